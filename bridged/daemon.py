"""The composition root: builds everything from the configuration, wires it, waits, takes it down.

Decides nothing itself; what can fail at run time has its own keeper.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import structlog

from bridged import __version__
from bridged.addresses import Endpoint, MacAddress
from bridged.admin.server import AdminServer
from bridged.admin.state import Station
from bridged.configuration import Configuration, find_warnings, load
from bridged.configuration.schema import DEFAULT_METRICS_PORT, Tunnel, tap_name
from bridged.dataplane import choose_dataplane, create_dataplane, fits_segments, tap_offloads
from bridged.dataplane.contract import DataplaneSettings
from bridged.errors import ShutdownErrors
from bridged.netlink.attachment import BridgeAttachment
from bridged.netlink.watch import LinkWatch
from bridged.runtime.adapter import TunnelAdapter
from bridged.runtime.bridges import attach_bridge, bridge_status, state_directory
from bridged.runtime.client import ClientTunnel
from bridged.runtime.coalescing import CoalescingGuard
from bridged.runtime.fallback_log import FallbackLog
from bridged.runtime.lag import LoopLag
from bridged.runtime.network import NetworkChanges
from bridged.runtime.reflections import Reflections
from bridged.runtime.server import ServerTunnel
from bridged.runtime.sizes import mss_limit
from bridged.runtime.snapshot import DaemonSnapshot
from bridged.runtime.trust import bind_endpoint, plan_tunnel
from bridged.runtime.tunnel import Tunnel as RunningTunnel
from bridged.runtime.tunnel_status import tunnel_status
from bridged.telemetry.collector import DaemonCollector, build_registry
from bridged.telemetry.logs import configure_logs
from bridged.telemetry.server import MetricsServer, call_in_loop, read_bearer_token
from bridged.units import Octets, Seconds, UnixSeconds

EXIT_DONE: Final = 0
EXIT_FAILED: Final = 1


def run(configuration_path: Path, confirm_seconds: float | None = None) -> int:
    """Run the daemon until SIGTERM or SIGINT; the exit status.

    `confirm_seconds`: take everything back, and return 1, unless confirmed in that time.

    Raises:
        ConfigurationError: the configuration cannot be used here; nothing was changed.
        BridgedError: the start failed; what was begun was taken back.
    """
    configuration = load(configuration_path)
    configure_logs(configuration.log)
    log = structlog.get_logger("bridged")
    for path, text in find_warnings(configuration):
        log.warning("configuration_warning", where=".".join(map(str, path)), text=text)
    return asyncio.run(Daemon(configuration, configuration_path.parent, confirm_seconds).run())


class Daemon:
    """All parts of one process. Implements `AdminState`; every method runs in the event loop."""

    def __init__(self, configuration: Configuration, base: Path, confirm_seconds: float | None) -> None:
        self._configuration = configuration
        self._base = base
        self._confirm_seconds = confirm_seconds
        self._confirm_deadline: UnixSeconds | None = None
        self._confirm_timer: asyncio.TimerHandle | None = None
        self._started = UnixSeconds(time.time())
        self._log = structlog.get_logger("bridged")
        self._stop = asyncio.Event()
        self._status = EXIT_DONE
        self._tunnels: dict[str, RunningTunnel] = {}
        self._bridges: dict[str, BridgeAttachment] = {}
        self._lag = LoopLag()
        self._coalescing = CoalescingGuard()
        self._undo: list[Callable[[], Awaitable[Any] | None]] = []

    async def run(self) -> int:
        """Start, wait for the end, stop."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._ignore_hangup)
        try:
            await self._start()
            self._log.info("daemon_started", version=__version__, tunnels=list(self._tunnels))
            await self._stop.wait()
        finally:
            await self._take_down()
        self._log.info("daemon_stopped", status=self._status)
        return self._status

    # --- start ------------------------------------------------------------------------------------

    async def _start(self) -> None:
        configuration = self._configuration
        state_directory(configuration)
        admin = AdminServer(configuration.admin.socket, self)
        await admin.start()
        self._undo.append(admin.stop)
        watch = LinkWatch()
        watch.start()
        self._undo.append(watch.close)
        for name, tunnel in configuration.tunnels.items():
            self._build_tunnel(name, tunnel)
        for name in configuration.bridges:
            attachment = attach_bridge(configuration, name, self._tunnels, watch)
            await attachment.start()
            self._bridges[name] = attachment
            self._undo.append(attachment.stop)
        for running in self._tunnels.values():
            await running.start()
            self._undo.append(running.stop)
        taps = [tap_name(name, tunnel) for name, tunnel in configuration.tunnels.items()]
        changes = NetworkChanges(watch, taps, self._announce_change)
        self._undo.append(changes.close)
        self._watch_reflections()
        self._serve_metrics(admin)
        fallbacks = FallbackLog({name: tunnel.dataplane for name, tunnel in self._tunnels.items()})
        fallbacks.start()
        self._undo.append(fallbacks.stop)
        self._lag.start()
        self._undo.append(self._lag.stop)
        self._await_confirmation()

    def _build_tunnel(self, name: str, tunnel: Tunnel) -> None:
        plan = plan_tunnel(
            self._configuration,
            name,
            self._base,
            lambda text: self._log.warning("private_file_readable", detail=text),
        )
        conflicts: list[MacAddress] = []
        choice = choose_dataplane(tunnel.dataplane)
        told = self._log.warning if choice.is_fallback else self._log.info
        told("dataplane_chosen", tunnel=name, dataplane=choice.kind, reason=choice.reason)
        adapter = TunnelAdapter(
            tap_name(name, tunnel),
            tunnel,
            self._configuration.state_directory,
            tap_offloads(choice.kind),
            self._learned_addresses,
            conflicts.append,
            queues=tunnel.workers if choice.kind == "native" else 1,
        )
        port = adapter.open()
        self._undo.append(adapter.close)
        coalescing = self._coalescing.decide(name, tunnel.coalesce, choice.kind, port)
        dataplane = create_dataplane(
            choice.kind,
            DataplaneSettings(
                tunnel=name,
                tap=port,
                bind=bind_endpoint(tunnel),
                mss_limit=mss_limit(tunnel, is_fitted=fits_segments(choice.kind, port)),
                ageing=Seconds(tunnel.fdb_ageing_seconds),
                fdb_capacity=tunnel.fdb_capacity,
                replay_window=tunnel.replay_window,
                forward_between_peers=tunnel.forward_between_peers,
                coalesce=coalescing.kinds,
                renegotiate_bytes=tunnel.renegotiate.bytes,
                renegotiate_packets=tunnel.renegotiate.packets,
                wan_mtu=Octets(tunnel.wan_mtu),
                workers=tunnel.workers,
                busy_poll=tunnel.busy_poll_microseconds,
            ),
        )
        kind = ServerTunnel if tunnel.role == "server" else ClientTunnel
        running = kind(plan, dataplane)
        running.tap_name = port.name
        running.tap_mac = str(port.mac)
        running.on_tap_failed = lambda: adapter.reopen(dataplane.attach_tap)
        running.coalescing = coalescing
        running.statistics.offload_fallbacks = adapter.fallbacks
        running.statistics.offload_fallbacks.update(
            ("coalesce", cause) for cause, _ in coalescing.refused.values()
        )
        running.statistics.mac_conflicts["adapter"] += len(conflicts)
        self._tunnels[name] = running

    def _watch_reflections(self) -> None:
        bridges = self._configuration.bridges
        reflections = Reflections(
            {name: bridge.ports for name, bridge in bridges.items()},
            {name: [t for t in self._tunnels.values() if t.plan.bridge == name] for name in bridges},
        )
        reflections.start()
        self._undo.append(reflections.close)

    def _serve_metrics(self, admin: AdminServer) -> None:
        settings = self._configuration.metrics
        if settings.listen is None:
            return
        token = read_bearer_token(settings.bearer_token_file) if settings.bearer_token_file else None
        snapshot = call_in_loop(asyncio.get_running_loop(), self.snapshot)
        registry = build_registry(DaemonCollector(snapshot, settings, admin.counters))
        server = MetricsServer(Endpoint.parse(settings.listen, DEFAULT_METRICS_PORT), registry, token)
        server.start()
        # In a thread: a scrape under way waits for this loop.
        self._undo.append(lambda: asyncio.to_thread(server.stop))

    def _learned_addresses(self) -> set[MacAddress]:
        return {entry.address for tunnel in self._tunnels.values() for entry, _ in tunnel.fdb()}

    def _announce_change(self) -> None:
        for tunnel in self._tunnels.values():
            tunnel.handle_network_change()

    def _ignore_hangup(self) -> None:
        self._log.warning("reload_unavailable", detail="restart the daemon to apply a new configuration")

    # --- confirmation -----------------------------------------------------------------------------

    def _await_confirmation(self) -> None:
        if self._confirm_seconds is None:
            return
        self._confirm_deadline = UnixSeconds(time.time() + self._confirm_seconds)
        loop = asyncio.get_running_loop()
        self._confirm_timer = loop.call_later(self._confirm_seconds, self._not_confirmed)
        self._log.warning("confirmation_needed", seconds=self._confirm_seconds, command="bridged confirm")

    def _not_confirmed(self) -> None:
        self._log.error("not_confirmed", detail="everything is taken back")
        self._status = EXIT_FAILED
        self._stop.set()

    def confirm(self) -> bool:
        if self._confirm_timer is None:
            return False
        self._confirm_timer.cancel()
        self._confirm_timer = None
        self._confirm_deadline = None
        self._log.info("confirmed")
        return True

    # --- stop -------------------------------------------------------------------------------------

    async def _take_down(self) -> None:
        """Everything in reverse order of its making; goes on to its end and then reports."""
        if self._confirm_timer is not None:
            self._confirm_timer.cancel()
        errors: list[BaseException] = []
        while self._undo:
            step = self._undo.pop()
            try:
                result = step()
                if result is not None:
                    await result
            except ShutdownErrors as group:
                errors.extend(group.errors)
            except Exception as error:
                # Whatever it is, the rest of the host is still to be given back.
                errors.append(error)
        for met in errors:
            self._log.error("shutdown_error", detail=str(met) or type(met).__name__)
        if errors:
            self._status = EXIT_FAILED

    # --- AdminState -------------------------------------------------------------------------------

    def snapshot(self) -> DaemonSnapshot:
        return DaemonSnapshot(
            version=__version__,
            pid=os.getpid(),
            started=self._started,
            now=UnixSeconds(time.time()),
            bridges=tuple(bridge_status(attachment) for attachment in self._bridges.values()),
            tunnels=tuple(tunnel_status(tunnel) for tunnel in self._tunnels.values()),
            confirm_deadline=self._confirm_deadline,
            control_loop_lag=self._lag.snapshot(),
        )

    def fdb(self, tunnel: str) -> list[Station]:
        return [Station(entry.address, peer, entry.age) for entry, peer in self._tunnels[tunnel].fdb()]
