"""The composition root: builds everything from the configuration, connects it, waits, and takes it down.

It decides nothing itself; whatever can fail at run time has its own keeper.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Generator
from pathlib import Path
from typing import Any, Final

import structlog

from bridged import __version__
from bridged.addresses import MacAddress
from bridged.admin.server import AdminServer
from bridged.admin.state import TunnelStation
from bridged.configuration import Configuration
from bridged.daemon.confirmation import Confirmation
from bridged.daemon.metrics_pages import MetricsPages
from bridged.daemon.slow_stop import SlowStop
from bridged.dataplane.contract import DataPlane
from bridged.endings import Ending
from bridged.errors import BridgedError, ShutdownErrors
from bridged.memory import give_back_start, keep_collections_small, use_small_pages
from bridged.netlink.watch import LinkWatch
from bridged.runtime.service.descriptors import DescriptorStore
from bridged.runtime.service.manager import ServiceManager
from bridged.runtime.service.reporter import Reporter, status_line
from bridged.runtime.site.bridges import bridge_status, tunnel_destinations
from bridged.runtime.site.reloads import Reloads
from bridged.runtime.site.site import Site
from bridged.runtime.site.state_folder import make_state_folder
from bridged.runtime.site.trust_keeper import Revocation, TrustKeeper
from bridged.runtime.snapshot import DaemonSnapshot, DutiesStatus, ReloadStatus, finish
from bridged.runtime.tunnels.static_stations import StaticStation
from bridged.runtime.tunnels.tunnel_status import tunnel_status
from bridged.runtime.watchers.clock_steps import ClockSteps
from bridged.runtime.watchers.fallback_log import FallbackLog
from bridged.runtime.watchers.host_watch import HostWatch
from bridged.runtime.watchers.loop_guard import LoopGuard
from bridged.runtime.watchers.loop_lag import LoopLag
from bridged.runtime.watchers.network_changes import NetworkChanges
from bridged.runtime.watchers.reflections import Reflections
from bridged.supervision import SUPERVISOR, Timer
from bridged.telemetry.logs import configure_logs
from bridged.telemetry.status_files import StatusFiles
from bridged.units import UnixSeconds

EXIT_DONE: Final = 0
EXIT_FAILED: Final = 1
SETTLED_SECONDS: Final = 3.0
HANDSHAKES_SECONDS: Final = 60.0
"""How often memory is given back at most, however many peers connect."""


class Daemon:
    """All parts of one process. Implements `AdminState`; every method runs in the event loop."""

    def __init__(
        self,
        configuration: Configuration,
        path: Path,
        confirm_seconds: float | None,
        manager: ServiceManager | None = None,
        store: DescriptorStore | None = None,
    ) -> None:
        manager = manager or ServiceManager()
        self.hands_over = False
        self._store = store or DescriptorStore(manager)
        self._started = UnixSeconds(time.time())
        self._log = structlog.get_logger("bridged")
        self._stop = asyncio.Event()
        self._confirmation = Confirmation(confirm_seconds, self._stop.set)
        self._has_failed = False
        self._watch = LinkWatch()
        self._site = Site(self._watch, path.parent, self._store)
        self._changes: NetworkChanges | None = None
        self._reflections = Reflections()
        self._host_watch = HostWatch()
        self._loop_guard = LoopGuard()
        self._metrics = MetricsPages(self._store, self.snapshot_in_steps, self._find_unready)
        self._reporter = Reporter(manager, self._describe, self._planes, os.environ)
        self._status_files = StatusFiles(lambda: self._site.tunnels)
        self._reloads = Reloads(
            self._site,
            path,
            configuration,
            is_running=self._is_running,
            on_changed=self._observe,
            on_applied=self._apply_rest,
            on_begun=self._reporter.begin_reload,
            on_ended=self._reporter.end_reload,
        )
        self._lag = LoopLag()
        self._keeper = TrustKeeper(self._site, self._reloads.lock, self._state_directory)
        self._memory_timer: Timer | None = None
        self._handshakes = 0
        self._undo: list[Callable[[], Awaitable[Any] | None]] = []

    def _state_directory(self) -> Path:
        return self._configuration.state_directory

    @property
    def _configuration(self) -> Configuration:
        return self._reloads.configuration

    async def run(self) -> int:
        """Start, wait for a stop signal, stop."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGUSR1, self._hand_over)
        loop.add_signal_handler(signal.SIGHUP, SUPERVISOR.guard("reload", self._reloads.reload_soon))
        SUPERVISOR.watch_loop(loop)
        use_small_pages()
        # Before the start: what is made there may end with a reload and must be collected then.
        keep_collections_small()
        try:
            await self._start()
            give_back_start()
            # Again after the first peers have connected: handshake code is rarely used, too.
            self._give_back_soon()
            self._undo.append(lambda: self._memory_timer.cancel() if self._memory_timer else None)
            handshakes = SUPERVISOR.every("memory", HANDSHAKES_SECONDS, self._give_back_handshakes)
            self._undo.append(handshakes.cancel)
            self._reporter.start()
            self._log.info("daemon_started", version=__version__, tunnels=list(self._site.tunnels))
            await self._stop.wait()
        finally:
            await self._take_down()
        status = EXIT_FAILED if self._has_failed or self._confirmation.has_expired else EXIT_DONE
        self._log.info("daemon_stopped", status=status)
        return status

    def _give_back_soon(self) -> None:
        """After a start or a reload: a tunnel that restarted has left its memory to the allocators."""
        if self._memory_timer is not None:
            self._memory_timer.cancel()
        self._memory_timer = SUPERVISOR.after("memory", SETTLED_SECONDS, give_back_start)

    def _give_back_handshakes(self) -> None:
        """What handshakes since the last time have loaded: of peers that came late, and renegotiations."""
        tunnels = self._site.tunnels.values()
        handshakes = sum(tunnel.records.statistics.handshakes.total() for tunnel in tunnels)
        if handshakes != self._handshakes:
            self._handshakes = handshakes
            give_back_start()

    # --- start ------------------------------------------------------------------------------------

    async def _start(self) -> None:
        configuration = self._configuration
        make_state_folder(configuration.state_directory)
        admin = AdminServer(
            configuration.admin.socket, self, self._store.take_listener("admin", {socket.AF_UNIX})
        )
        await admin.start()
        self._undo.append(admin.stop)
        # Early: Prometheus sees the start, and a host that takes long to set up is not taken for a dead one.
        self._metrics.start(configuration.metrics, admin.counters)
        self._undo.append(self._metrics.stop)
        self._watch.start()
        self._undo.append(self._watch.close)
        # Behind the tunnels: what it blocks would loop as long as they run.
        self._undo.append(self._loop_guard.stop)
        self._undo.append(lambda: self._site.hand_over() if self.hands_over else self._site.stop())
        await self._site.become(configuration, self._site.plan(configuration))
        self._changes = NetworkChanges(self._watch, self._announce_change)
        self._undo.append(self._changes.close)
        self._watch_clock()
        self._reflections.start()
        self._undo.append(self._reflections.close)
        self._observe(configuration)
        self._host_watch.start()
        self._undo.append(self._host_watch.stop)
        self._status_files.apply(configuration)
        self._undo.append(self._status_files.stop)
        # Before the site: nobody waits for a scrape of what is being taken down.
        self._undo.append(self._metrics.stop)
        fallbacks = FallbackLog(self._planes)
        self._undo.append(fallbacks.stop)
        fallbacks.start()
        self._undo.append(self._keeper.stop)
        self._keeper.start()
        self._lag.start()
        self._undo.append(self._lag.stop)
        self._confirmation.begin()

    def _observe(self, configuration: Configuration) -> None:
        """Watch the host on behalf of the present bridges and tunnels."""
        bridges, tunnels = configuration.bridges, self._site.tunnels.values()
        assert self._changes is not None
        self._changes.own = {tunnel.tap.name for tunnel in tunnels}
        self._host_watch.bridges = tuple(bridges)
        self._host_watch.destinations = lambda: tunnel_destinations(configuration, self._site.tunnels.get)
        # In a loop the later tunnel is blocked: better a client than a server with many peers.
        servers_first = sorted(tunnels, key=lambda tunnel: tunnel.role.name != "server")
        self._loop_guard.apply(
            {name: [each.tap.name for each in servers_first if each.plan.bridge == name] for name in bridges}
        )
        self._reflections.apply(
            {name: bridge.ports for name, bridge in bridges.items()},
            {name: [tunnel for tunnel in tunnels if tunnel.plan.bridge == name] for name in bridges},
        )

    def _find_unready(self) -> str | None:
        """Why this daemon is not ready; None: every tunnel has started."""
        if self._changes is None or self._stop.is_set():
            return "starting or stopping"
        running = self._site.tunnels
        missing = [name for name in self._configuration.tunnels if name not in running]
        missing += [name for name, tunnel in running.items() if tunnel.state == "stopped"]
        return f"not started: {', '.join(missing)}" if missing else None

    def _watch_clock(self) -> None:
        steps = ClockSteps(self._announce_clock_step)
        try:
            steps.start()
        except OSError as error:
            # Waits then end by themselves, but later.
            self._log.warning("clock_not_watched", detail=str(error))
            return
        self._undo.append(steps.close)

    def _announce_clock_step(self) -> None:
        for tunnel in self._site.tunnels.values():
            tunnel.handle_clock_step()

    def _announce_change(self) -> None:
        for tunnel in self._site.tunnels.values():
            tunnel.handle_network_change()

    # --- reload -----------------------------------------------------------------------------------

    async def reload(self) -> ReloadStatus:
        return await self._reloads.reload()

    def _is_running(self) -> bool:
        return self._changes is not None and not self._stop.is_set()

    def _apply_rest(self, target: Configuration) -> None:
        """Apply what concerns neither bridges nor tunnels."""
        configure_logs(target.log)
        self._status_files.apply(target)
        self._metrics.apply(target.metrics)
        self._give_back_soon()

    # --- service manager --------------------------------------------------------------------------

    def _hand_over(self) -> None:
        """SIGUSR1: stop, and leave adapters, bridges and sockets to a successor."""
        if not self._store.is_present:
            self._log.warning("no_descriptor_store", detail="this is an ordinary stop: nobody keeps adapters")
        self.hands_over = self._store.is_present
        self._stop.set()

    def _planes(self) -> dict[str, DataPlane]:
        return {name: tunnel.dataplane for name, tunnel in self._site.tunnels.items()}

    def _describe(self) -> str:
        tunnels = self._site.tunnels
        peers = sum(link.is_attached for tunnel in tunnels.values() for link in tunnel.links.values())
        return status_line(len(tunnels), peers, (undone.duty for undone in SUPERVISOR.undone()))

    # --- stop -------------------------------------------------------------------------------------

    async def _take_down(self) -> None:
        """Undo everything in reverse order. Continues after errors, and reports them at the end."""
        self._confirmation.end()
        self._stop.set()
        self._reporter.begin_stop()
        try:
            with SlowStop():
                # Wait for a running reload.
                async with self._reloads.lock:
                    undo, self._undo = self._undo, []
                await Ending(*reversed(undo)).take()
        except ShutdownErrors as failed:
            for error in failed.errors:
                self._log.error("shutdown_error", detail=str(error) or type(error).__name__)
            self._has_failed = True

    # --- AdminState -------------------------------------------------------------------------------

    def snapshot(self) -> DaemonSnapshot:
        return finish(self.snapshot_in_steps())

    def snapshot_in_steps(self) -> Generator[None, None, DaemonSnapshot]:
        """The same in short steps, between which the loop does other work."""
        tunnels = []
        for tunnel in list(self._site.tunnels.values()):
            tunnels.append((yield from tunnel_status(tunnel)))
            yield
        return DaemonSnapshot(
            version=__version__,
            pid=os.getpid(),
            started=self._started,
            now=UnixSeconds(time.time()),
            bridges=tuple(bridge_status(attachment) for attachment in self._site.bridges.values()),
            tunnels=tuple(tunnels),
            confirm_deadline=self._confirmation.deadline,
            control_loop_lag=self._lag.snapshot(),
            reload=self._reloads.status,
            warnings={**self._host_watch.warnings, **self._loop_guard.warnings},
            duties=DutiesStatus(dict(SUPERVISOR.failures), SUPERVISOR.undone()),
        )

    def confirm(self) -> bool:
        return self._confirmation.confirm()

    def kick(self, name: str, tunnel: str | None) -> int:
        ended = self._site.kick(name, tunnel)
        self._log.warning("peer_kicked", peer=name, sessions_ended=ended)
        return ended

    async def revoke(self, name: str, keep: str | None, state: str | None) -> Revocation:
        own = self._state_directory()
        if state is not None and Path(state).resolve() != own.resolve():
            raise BridgedError("other_state", f"the daemon's state folder is {own}, not {state}")
        if not self._is_running():
            raise BridgedError("not_ready", "the daemon is starting or stopping; try again")
        return await self._keeper.revoke(name, keep)

    def static_stations(self, tunnel: str) -> list[StaticStation]:
        return list(self._site.tunnels[tunnel].static_stations)

    def add_station(self, tunnel: str, address: MacAddress, peer: str | None) -> StaticStation:
        return self._site.tunnels[tunnel].static_stations.add(address, peer)

    def remove_station(self, tunnel: str, address: MacAddress) -> bool:
        return self._site.tunnels[tunnel].static_stations.remove(address)

    def fdb(self, tunnel: str) -> list[TunnelStation]:
        return [
            TunnelStation(MacAddress(entry.station.mac), peer, entry.age, entry.is_static)
            for entry, peer in self._site.tunnels[tunnel].fdb()
        ]
