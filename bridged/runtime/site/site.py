"""The bridges and tunnels of one daemon: made from a configuration, and changed into another one's.

What is configured as before goes on without losing a frame. What differs is changed while it runs, where that
is possible; otherwise it restarts, and nothing else does. `configuration.diff` says which is which.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

import structlog

from bridged.addresses import MacAddress
from bridged.configuration.diff import bridge_effect, tunnel_effect
from bridged.configuration.schema import Bridge, Configuration
from bridged.configuration.secrets import find_exposed_secrets
from bridged.configuration.tunnel import Tunnel, tap_name
from bridged.endings import Ending, Step, take_at_once
from bridged.errors import ConfigurationError, NetlinkError
from bridged.netlink.attachment import BridgeAttachment
from bridged.netlink.watch import LinkWatch
from bridged.runtime.service.descriptors import DescriptorStore
from bridged.runtime.service.manager import ServiceManager
from bridged.runtime.site.bridge_lock import lock_bridge
from bridged.runtime.site.bridges import attach_bridge, undo_leftovers, wish_for
from bridged.runtime.site.building import build_tunnel
from bridged.runtime.site.host_warnings import refuse_own_servers
from bridged.runtime.site.preflight import check_address, check_tunnels
from bridged.runtime.tunnels.adapter import TunnelAdapter
from bridged.runtime.tunnels.coalescing import CoalescingGuard
from bridged.runtime.tunnels.tunnel import RunningTunnel
from bridged.runtime.tunnels.tunnel_credentials import bound_endpoints, plan_tunnel
from bridged.runtime.tunnels.tunnel_plan import TunnelPlan
from bridged.supervision import SUPERVISOR
from bridged_tap import AdapterLock

LEFTOVERS_PAUSE_SECONDS: Final = 1.0


@dataclass(slots=True)
class _SiteTunnel:
    """One tunnel of the site. `section`: the configuration it runs by; None until it has started."""

    running: RunningTunnel
    adapter: TunnelAdapter
    section: Tunnel | None = None


@dataclass(slots=True)
class _SiteBridge:
    """One bridge of the site. `taps`: the adapters it has had since it started."""

    attachment: BridgeAttachment
    lock: AdapterLock
    section: Bridge
    taps: set[str]


class Site:
    """What runs. It changes only in `become` and `stop`.

    `watch` reports changes of the host's links. `store` outlives the process. Relative files of a
    configuration are looked up under `base`.
    """

    def __init__(self, watch: LinkWatch, base: Path, store: DescriptorStore | None = None) -> None:
        self._watch = watch
        self._store = store or DescriptorStore(ServiceManager())
        self._base = base
        self._log = structlog.get_logger("bridged")
        self._coalescing = CoalescingGuard()
        self._target: Configuration | None = None
        self._leftovers: asyncio.Task[None] | None = None
        self._tunnels: dict[str, _SiteTunnel] = {}
        self._bridges: dict[str, _SiteBridge] = {}

    @property
    def tunnels(self) -> dict[str, RunningTunnel]:
        """By name."""
        return {name: known.running for name, known in self._tunnels.items()}

    @property
    def bridges(self) -> dict[str, BridgeAttachment]:
        """By name."""
        return {name: known.attachment for name, known in self._bridges.items()}

    # --- questions and small changes --------------------------------------------------------------

    def plan(self, target: Configuration) -> dict[str, TunnelPlan]:
        """What the tunnels of `target` are made of, by name; reads certificates and keys, changes nothing.

        Raises:
            ConfigurationError, PkiError: some of it cannot be used.
        """
        plans = {name: self._plan(target, name) for name in target.tunnels}
        for path, text in find_exposed_secrets(target):
            self._log.warning("private_file_readable", where=".".join(map(str, path)), detail=text)
        return plans

    def _plan(self, target: Configuration, name: str) -> TunnelPlan:
        """The plan of one tunnel. Counts a revocation list that cannot be used.

        Raises:
            ConfigurationError, PkiError: some of it cannot be used.
        """
        try:
            return plan_tunnel(target, name, self._base)
        except ConfigurationError as error:
            known = self._tunnels.get(name)
            if known is not None and error.key.endswith("tls.crl"):
                known.running.records.statistics.crl_loads["rejected"] += 1
            raise

    def renew_trust(self) -> int:
        """Load the embedded CA's certificates and revocations again, for the tunnels that use it.

        Returns how many sessions ended. Nothing else of the configuration is read.

        Raises:
            ConfigurationError, PkiError: it cannot be used; nothing was changed.
        """
        embedded = {name: tunnel for name, tunnel in self.tunnels.items() if tunnel.plan.is_embedded}
        plans = {name: plan_tunnel(self._settings(), name, self._base) for name in embedded}
        return sum(tunnel.renew_credentials(plans[name]) for name, tunnel in embedded.items())

    def renew_list(self, name: str) -> int:
        """Read the revocation list of one tunnel again, and its certificates with it.

        Returns how many sessions ended.

        Raises:
            ConfigurationError, PkiError: it cannot be used; nothing was changed.
        """
        return self._tunnels[name].running.renew_credentials(self._plan(self._settings(), name))

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
        bindings = (bound_endpoints(known.section) for known in self._tunnels.values() if known.section)
        check_tunnels(
            target.tunnels,
            {endpoint for endpoints in bindings for endpoint in endpoints},
            {known.running.tap.name for known in self._tunnels.values()},
        )
        refuse_own_servers(target)
        for name in target.bridges.keys() - self._bridges.keys():
            lock_bridge(name).release()
        before, self._target = self._target, target
        try:
            for name in target.bridges:
                known = self._bridges.get(name)
                attachment = known.attachment if known is not None else self._attach(target, name)
                await attachment.check(wish_for(target, name), self._bridges.keys())
        finally:
            self._target = before

    # --- become -----------------------------------------------------------------------------------

    async def become(self, target: Configuration, plans: Mapping[str, TunnelPlan]) -> list[str]:
        """Make everything as `target` says; names what had to restart (`tunnels.NAME`, `bridges.NAME`).

        `plans`: see `plan`. After an error call it again, with this or another configuration: it goes on from
        what there is.

        Raises:
            BridgedError, OSError: a bridge, an adapter or a socket cannot be had.
        """
        refuse_own_servers(target)
        if self._target is None:
            self._store.forget_all_but(_kept_groups(target))
            await self._undo_leftovers(target)
        self._target = target
        # 1. Before any adapter moves: a bridge must not take a TAP that another one is about to get.
        await self._let_go_of_taps(target)
        # 2. End what cannot be changed while it runs.
        ended_tunnels = await self._end_tunnels(target)
        ended_bridges = await self._end_bridges(target)
        # 3. Change the tunnels that stay, and build the new ones: adapters come before bridges.
        for name in target.tunnels:
            self._place_tunnel(target, plans[name])
        # 4. The same for bridges. New ones start here.
        for name in target.bridges:
            await self._place_bridge(target, name)
        # 5. Start the new tunnels.
        for name, section in target.tunnels.items():
            known = self._tunnels[name]
            if known.section is None:
                if not known.running.has_socket:
                    for endpoint in bound_endpoints(section):
                        check_address(name, section, endpoint)
                await known.running.start()
                known.section = section
        tunnels, bridges = target.tunnels, target.bridges
        return [
            *(f"tunnels.{name}" for name in ended_tunnels if name in tunnels),
            *(f"bridges.{name}" for name in ended_bridges if name in bridges),
        ]

    async def _let_go_of_taps(self, target: Configuration) -> None:
        for name in self._lasting_bridges(target):
            known = self._bridges[name]
            present = {tap.name for tap in known.attachment.wish.taps}
            wish = wish_for(target, name)
            kept = tuple(tap for tap in wish.taps if tap.name in present)
            await known.attachment.change(replace(wish, taps=kept))
            known.section = target.bridges[name]

    async def _end_tunnels(self, target: Configuration) -> list[str]:
        """End tunnels that are not wanted any more, must restart, or never started."""
        ended = {
            name: known
            for name, known in self._tunnels.items()
            if known.section is None
            or name not in target.tunnels
            or tunnel_effect(known.section, target.tunnels[name]) == "restart"
        }
        for name in ended:
            del self._tunnels[name]
        stops = partial(take_at_once, [known.running.stop for known in ended.values()])
        await Ending(stops, *(known.adapter.close for known in ended.values())).take()
        return [*ended]

    async def _end_bridges(self, target: Configuration) -> list[str]:
        """End bridges in the same way. A stop also removes the TAP of an ended tunnel from its bridge."""
        lasting = self._lasting_bridges(target)
        ended: list[str] = []
        for name, known in list(self._bridges.items()):
            orphaned_taps = known.taps - _taps_of(target, name)
            if name not in lasting or any(map(_exists, orphaned_taps)):
                del self._bridges[name]
                ended.append(name)
                try:
                    await known.attachment.stop()
                finally:
                    known.lock.release()
        return ended

    def _lasting_bridges(self, target: Configuration) -> list[str]:
        return [
            name
            for name, known in self._bridges.items()
            if name in target.bridges and bridge_effect(known.section, target.bridges[name]) != "restart"
        ]

    def _place_tunnel(self, target: Configuration, plan: TunnelPlan) -> None:
        """Change the tunnel that runs, or build it; see step 5 for its start."""
        section = target.tunnels[plan.name]
        known = self._tunnels.get(plan.name)
        if known is not None:
            known.running.apply(plan)
            known.section = section
            return
        known = _SiteTunnel(*build_tunnel(target, plan, self._coalescing, self._is_learned, self._store))
        self._tunnels[plan.name] = known
        bridge = self._bridges.get(section.bridge)
        if bridge is not None:
            bridge.taps.add(known.running.tap.name)

    async def _place_bridge(self, target: Configuration, name: str) -> None:
        known = self._bridges.get(name)
        if known is not None:
            await known.attachment.change(wish_for(target, name))
            await known.attachment.settle()
            return
        lock = lock_bridge(name)
        try:
            attachment = self._attach(target, name)
            await attachment.start()
        except BaseException:
            lock.release()
            raise
        self._bridges[name] = _SiteBridge(attachment, lock, target.bridges[name], _taps_of(target, name))

    def _attach(self, target: Configuration, name: str) -> BridgeAttachment:
        return attach_bridge(target, name, self._settings, self._find_running, self._watch)

    def _find_running(self, tunnel: str) -> RunningTunnel | None:
        known = self._tunnels.get(tunnel)
        return known.running if known is not None else None

    async def _undo_leftovers(self, target: Configuration) -> None:
        """Undo what a killed daemon left. What the kernel refuses to undo is tried again beside the work."""
        try:
            await undo_leftovers(target)
        except NetlinkError as error:
            SUPERVISOR.note_failure("leftovers", "", error)

            async def try_again() -> None:
                await asyncio.sleep(LEFTOVERS_PAUSE_SECONDS)
                await undo_leftovers(self._settings(), has_begun=True)

            self._leftovers = SUPERVISOR.keep("leftovers", try_again)

    # --- stop -------------------------------------------------------------------------------------

    async def stop(self) -> None:
        """End all tunnels, restore the host, close all adapters, in this order. Idempotent.

        Raises:
            ShutdownErrors: what failed; everything else was done.
        """
        tunnels, bridges = list(self._tunnels.values()), list(self._bridges.values())
        # At once: each waits for its peers to acknowledge the farewell.
        await self._end(
            [partial(take_at_once, [known.running.stop for known in tunnels])],
            [known.attachment.stop for known in reversed(bridges)],
            [known.adapter.close for known in tunnels],
        )

    async def hand_over(self) -> None:
        """Leave adapters, bridges and sockets as they are to a successor, which the manager starts next.

        The journals stay, so that it continues with the host's changes and undoes them one day.

        Raises:
            ShutdownErrors: what failed; everything else was done.
        """
        tunnels, bridges = list(self._tunnels.values()), list(self._bridges.values())
        await self._end(
            [known.running.hand_over for known in tunnels],
            [known.attachment.leave for known in bridges],
            [known.adapter.hand_over for known in tunnels],
        )

    async def _end(self, tunnels: list[Step], bridges: list[Step], adapters: list[Step]) -> None:
        """Take these steps, in this order, and forget what has ended."""
        if self._leftovers is not None:
            self._leftovers.cancel()
        locks = [known.lock.release for known in self._bridges.values()]
        await Ending(*tunnels, *bridges, *locks, *adapters, self._bridges.clear, self._tunnels.clear).take()

    def _settings(self) -> Configuration:
        assert self._target is not None
        return self._target

    def _is_learned(self, address: MacAddress) -> bool:
        """Whether a switch of ours knows a station of this address."""
        return any(tunnel.find_station(address) is not None for tunnel in self.tunnels.values())


def _kept_groups(target: Configuration) -> set[str]:
    """What of a predecessor this configuration can use."""
    adapters = {f"tap/{tap_name(name, section)}" for name, section in target.tunnels.items()}
    return adapters | {f"udp/{name}" for name, section in target.tunnels.items() if section.role == "server"}


def _taps_of(target: Configuration, bridge: str) -> set[str]:
    """The adapters that belong to a bridge."""
    return {tap_name(name, section) for name, section in target.tunnels.items() if section.bridge == bridge}


def _exists(link: str) -> bool:
    try:
        socket.if_nametoindex(link)
    except OSError:
        return False
    return True
