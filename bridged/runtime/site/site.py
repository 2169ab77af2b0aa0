"""The bridges and tunnels of one daemon: made from a configuration, and changed into another one's.

What is configured as before goes on without losing a frame; what differs is changed while it runs where that
is possible; else it alone restarts.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import structlog

from bridged.addresses import MacAddress
from bridged.configuration.diff import bridge_effect, tunnel_effect
from bridged.configuration.schema import Bridge, Configuration, Tunnel, tap_name
from bridged.configuration.secrets import find_exposed_secrets
from bridged.dataplane import choose_dataplane, create_dataplane, fits_segments, tap_offloads
from bridged.errors import NetlinkError, ShutdownErrors
from bridged.netlink.attachment import BridgeAttachment
from bridged.netlink.watch import LinkWatch
from bridged.runtime.client.client import ClientTunnel
from bridged.runtime.server.server import ServerTunnel
from bridged.runtime.site.bridge_lock import lock_bridge
from bridged.runtime.site.bridges import attach_bridge, give_back_leftovers, wish_for
from bridged.runtime.site.host_warnings import refuse_own_servers
from bridged.runtime.site.preflight import check_address, check_tunnels
from bridged.runtime.tunnels.adapter import TunnelAdapter
from bridged.runtime.tunnels.coalescing import CoalescingGuard
from bridged.runtime.tunnels.dataplane_settings import dataplane_settings
from bridged.runtime.tunnels.mss import sizes_by_remote
from bridged.runtime.tunnels.tunnel import Tunnel as RunningTunnel
from bridged.runtime.tunnels.tunnel_credentials import bind_endpoint, plan_tunnel
from bridged.runtime.tunnels.tunnel_plan import TunnelPlan
from bridged.supervision import SUPERVISOR
from bridged_tap import AdapterLock

LEFTOVERS_PAUSE_SECONDS: Final = 1.0


class Site:
    """What runs. `tunnels` and `bridges` are by name, and change only in `become` and `stop`.

    `watch` tells of the host's links. Relative files of a configuration are looked up under `base`.
    """

    def __init__(self, watch: LinkWatch, base: Path) -> None:
        self.tunnels: dict[str, RunningTunnel] = {}
        self.bridges: dict[str, BridgeAttachment] = {}
        self._watch = watch
        self._base = base
        self._log = structlog.get_logger("bridged")
        self._coalescing = CoalescingGuard()
        self._target: Configuration | None = None
        self._leftovers: asyncio.Task[None] | None = None
        self._locks: dict[str, AdapterLock] = {}
        self._adapters: dict[str, TunnelAdapter] = {}
        # What each was made from; a tunnel is here once it has started.
        self._tunnel_sections: dict[str, Tunnel] = {}
        self._bridge_sections: dict[str, Bridge] = {}
        self._taps: dict[str, set[str]] = {}
        """Bridge -> the TAPs that it has had since it started."""

    def plan(self, target: Configuration) -> dict[str, TunnelPlan]:
        """What the tunnels of `target` are made of, by name; reads certificates and keys, changes nothing.

        Raises:
            ConfigurationError, PkiError: some of it cannot be used.
        """
        plans = {name: plan_tunnel(target, name, self._base) for name in target.tunnels}
        for path, text in find_exposed_secrets(target):
            self._log.warning("private_file_readable", where=".".join(map(str, path)), detail=text)
        return plans

    def renew_trust(self) -> int:
        """Take what the embedded CA issues and revokes now, in the tunnels that use it.

        Returns how many sessions it ended. Nothing else of the configuration is read again.

        Raises:
            ConfigurationError, PkiError: it cannot be used; nothing was changed.
        """
        names = [name for name, tunnel in self.tunnels.items() if tunnel.plan.is_embedded]
        plans = {name: plan_tunnel(self._settings(), name, self._base) for name in names}
        ended = 0
        for name, plan in plans.items():
            running = self.tunnels[name]
            running.plan = replace(
                running.plan,
                make_engine=plan.make_engine,
                certificates=plan.certificates,
                crl_next_update=plan.crl_next_update,
                judge_peer=plan.judge_peer,
            )
            ended += running.standing.recheck()
        return ended

    def kick(self, name: str, tunnel: str | None = None) -> int:
        """End the sessions of the peer `name`, in one tunnel or in all. Returns how many ended.

        Raises:
            KeyError: there is no such tunnel.
        """
        tunnels = list(self.tunnels.values()) if tunnel is None else [self.tunnels[tunnel]]
        return sum(running.standing.kick(name) for running in tunnels)

    async def check(self, target: Configuration) -> None:
        """Whether `become` could succeed, as far as that can be known before anything is touched.

        Raises:
            BridgedError: a port, an address or an adapter cannot be had; nothing was changed.
        """
        bindings = (bind_endpoint(section) for section in self._tunnel_sections.values())
        check_tunnels(
            target.tunnels,
            {endpoint for endpoint in bindings if endpoint is not None},
            {running.tap_name or "" for running in self.tunnels.values()},
        )
        refuse_own_servers(target)
        for name in target.bridges.keys() - self._locks.keys():
            lock_bridge(name).release()
        before, self._target = self._target, target
        try:
            for name in target.bridges:
                running_or_new = self.bridges.get(name) or attach_bridge(
                    target, name, self._settings, self.tunnels, self._watch
                )
                await running_or_new.check(wish_for(target, name), self.bridges.keys())
        finally:
            self._target = before

    async def become(self, target: Configuration, plans: Mapping[str, TunnelPlan]) -> list[str]:
        """Make everything as `target` says; names what had to start anew (`tunnels.NAME`, `bridges.NAME`).

        `plans`: see `plan`. After an error call it again, with this or another configuration: it goes on from
        what there is.

        Raises:
            BridgedError, OSError: a bridge, an adapter or a socket cannot be had.
        """
        refuse_own_servers(target)
        if self._target is None:
            await self._give_back_leftovers(target)
        self._target = target
        # Before any adapter moves: a bridge must not take a TAP that another one is about to get.
        for name in self._lasting_bridges(target):
            known = {tap.name for tap in self.bridges[name].wish.taps}
            wish = wish_for(target, name)
            kept = tuple(tap for tap in wish.taps if tap.name in known)
            await self.bridges[name].change(replace(wish, taps=kept))
            self._bridge_sections[name] = target.bridges[name]
        restarted = [*await self._end_tunnels(target), *await self._end_bridges(target)]
        for name, tunnel in target.tunnels.items():
            if name in self.tunnels:
                self.tunnels[name].apply(plans[name])
                self._tunnel_sections[name] = tunnel
            else:
                self._build_tunnel(target, name, plans[name])
        for name, bridge in target.bridges.items():
            if name in self.bridges:
                await self.bridges[name].change(wish_for(target, name))
                await self.bridges[name].settle()
                continue
            self._locks[name] = lock_bridge(name)
            attachment = attach_bridge(target, name, self._settings, self.tunnels, self._watch)
            try:
                await attachment.start()
            except BaseException:
                self._unlock(name)
                raise
            self.bridges[name] = attachment
            self._bridge_sections[name] = bridge
        for name, tunnel in target.tunnels.items():
            if name not in self._tunnel_sections:
                check_address(name, tunnel)
                await self.tunnels[name].start()
                self._tunnel_sections[name] = tunnel
        return [name for name in restarted if self._has(name)]

    async def _give_back_leftovers(self, target: Configuration) -> None:
        """Of a killed daemon. What the kernel refuses to give back is tried again beside the work."""
        try:
            await give_back_leftovers(target)
        except NetlinkError as error:
            SUPERVISOR.note_failure("leftovers", "", error)

            async def try_again() -> None:
                await asyncio.sleep(LEFTOVERS_PAUSE_SECONDS)
                await give_back_leftovers(self._settings(), has_begun=True)

            self._leftovers = SUPERVISOR.keep("leftovers", try_again)

    async def stop(self) -> None:
        """End all tunnels, give all bridges back, close all adapters, in this order. Idempotent.

        Raises:
            ShutdownErrors: what failed; everything else was done.
        """
        if self._leftovers is not None:
            self._leftovers.cancel()
        errors: list[BaseException] = []
        steps: list[Callable[[], Awaitable[Any]]] = [
            *(running.stop for running in reversed(self.tunnels.values())),
            *(attachment.stop for attachment in reversed(self.bridges.values())),
        ]
        for step in steps:
            try:
                await step()
            except ShutdownErrors as group:
                errors.extend(group.errors)
            except Exception as error:
                # Whatever it is, the rest of the host is still to be given back.
                errors.append(error)
        for name in list(self._locks):
            self._unlock(name)
        for adapter in self._adapters.values():
            adapter.close()
        for known in (
            self.tunnels,
            self.bridges,
            self._adapters,
            self._tunnel_sections,
            self._bridge_sections,
            self._taps,
        ):
            known.clear()
        if errors:
            raise ShutdownErrors(errors)

    def _lasting_bridges(self, target: Configuration) -> list[str]:
        return [
            name
            for name in self.bridges
            if name in target.bridges
            and bridge_effect(self._bridge_sections[name], target.bridges[name]) != "restart"
        ]

    async def _end_tunnels(self, target: Configuration) -> list[str]:
        """Those that are not wanted any more, or cannot be changed while they run, or never started."""
        ended: list[str] = []
        for name in list(self.tunnels):
            before, wanted = self._tunnel_sections.get(name), target.tunnels.get(name)
            if before is None or wanted is None or tunnel_effect(before, wanted) == "restart":
                await self._end_tunnel(name)
                ended.append(f"tunnels.{name}")
        return ended

    async def _end_bridges(self, target: Configuration) -> list[str]:
        """So for bridges; and those that hold a TAP that outlives its tunnel: only a stop gives it back."""
        lasting = self._lasting_bridges(target)
        ended: list[str] = []
        for name in list(self.bridges):
            if name not in lasting or self._holds_stranger(name, target):
                try:
                    await self.bridges.pop(name).stop()
                finally:
                    self._unlock(name)
                del self._bridge_sections[name]
                self._taps.pop(name, None)
                ended.append(f"bridges.{name}")
        return ended

    def _holds_stranger(self, name: str, target: Configuration) -> bool:
        wanted = {
            tap_name(tunnel_name, tunnel)
            for tunnel_name, tunnel in target.tunnels.items()
            if tunnel.bridge == name
        }
        return any(_exists(tap) for tap in self._taps.get(name, set()) - wanted)

    async def _end_tunnel(self, name: str) -> None:
        self._tunnel_sections.pop(name, None)
        running, adapter = self.tunnels.pop(name), self._adapters.pop(name)
        try:
            await running.stop()
        finally:
            adapter.close()

    def _build_tunnel(self, target: Configuration, name: str, plan: TunnelPlan) -> None:
        """Open the adapter and build what will use it; it is not started."""
        tunnel = target.tunnels[name]
        conflicts: list[MacAddress] = []
        choice = choose_dataplane(tunnel.dataplane)
        told = self._log.warning if choice.is_fallback else self._log.info
        told("dataplane_chosen", tunnel=name, dataplane=choice.kind, reason=choice.reason)
        adapter = TunnelAdapter(
            tap_name(name, tunnel),
            tunnel,
            target.state_directory,
            tap_offloads(choice.kind),
            self._learned_addresses,
            conflicts.append,
            queues=tunnel.workers if choice.kind == "native" else 1,
        )
        port = adapter.open()
        try:
            coalescing = self._coalescing.decide(name, tunnel.coalesce, choice.kind, port)
            dataplane = create_dataplane(
                choice.kind, dataplane_settings(name, tunnel, port, choice.kind, coalescing.kinds)
            )
            kind = ServerTunnel if tunnel.role == "server" else ClientTunnel
            running = kind(plan, dataplane)
        except BaseException:
            adapter.close()
            raise
        if isinstance(running, ClientTunnel):
            running.sizes = sizes_by_remote(tunnel, fits_path=fits_segments(choice.kind, port))
        running.tap_name = port.name
        running.tap_mac = str(port.mac)
        running.on_tap_failed = lambda: adapter.reopen(dataplane.attach_tap)
        running.coalescing = coalescing
        running.statistics.offload_fallbacks = adapter.fallbacks
        running.statistics.offload_fallbacks.update(
            ("coalesce", cause) for cause, _ in coalescing.refused.values()
        )
        running.statistics.mac_conflicts["adapter"] += len(conflicts)
        self._adapters[name] = adapter
        self.tunnels[name] = running
        self._taps.setdefault(tunnel.bridge, set()).add(port.name)

    def _unlock(self, name: str) -> None:
        lock = self._locks.pop(name, None)
        if lock is not None:
            lock.release()

    def _settings(self) -> Configuration:
        assert self._target is not None
        return self._target

    def _has(self, section: str) -> bool:
        kind, _, name = section.partition(".")
        return name in (self.tunnels if kind == "tunnels" else self.bridges)

    def _learned_addresses(self) -> set[MacAddress]:
        return {
            MacAddress(entry.station.mac) for tunnel in self.tunnels.values() for entry, _ in tunnel.fdb()
        }


def _exists(link: str) -> bool:
    try:
        socket.if_nametoindex(link)
    except OSError:
        return False
    return True
