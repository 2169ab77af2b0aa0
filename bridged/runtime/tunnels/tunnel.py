"""One tunnel at work: its sessions, its role, its data plane, and what the outside may ask of it.

What differs between server and client is its `TunnelRole`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Final

from bridged.addresses import Endpoint, MacAddress
from bridged.dataplane.contract import DataPlane, FdbEntry, Station, StationEvents
from bridged.endings import Ending, take_every_step
from bridged.errors import DataplaneError
from bridged.protocol.packets.occ import PING
from bridged.protocol.session.events import Established, Renegotiated, SessionEnded
from bridged.protocol.session.states import SessionState
from bridged.runtime.service.descriptors import DescriptorStore, is_bound_to
from bridged.runtime.service.manager import ServiceManager
from bridged.runtime.tunnels.adapter import AttachedTap
from bridged.runtime.tunnels.clock import monotonic
from bridged.runtime.tunnels.dataplane_events import DataplaneEvents
from bridged.runtime.tunnels.holding import Holding
from bridged.runtime.tunnels.link import LinkDown, News, PeerLink, Withheld
from bridged.runtime.tunnels.link_table import LinkTable
from bridged.runtime.tunnels.path_probes import PathProbes
from bridged.runtime.tunnels.peer_records import PeerRecords
from bridged.runtime.tunnels.sessions import Sessions
from bridged.runtime.tunnels.standing import Standing
from bridged.runtime.tunnels.static_stations import StaticStations
from bridged.runtime.tunnels.tunnel_plan import TunnelPlan
from bridged.runtime.tunnels.tunnel_role import RoleMaker
from bridged.units import MonotonicSeconds

STOP_SECONDS: Final = 2.0
"""How long a stop waits for farewells to be acknowledged."""


class RunningTunnel:
    """Composed of its `sessions`, its `role`, the `records` of its peers, and `standing`, who may stay.

    `make_role` makes the role; `tap` is the open adapter; `store` keeps a server's sockets for a successor.
    `has_socket`: sockets of a predecessor are in use. Asyncio; all methods run in the event loop.
    """

    def __init__(
        self,
        plan: TunnelPlan,
        dataplane: DataPlane,
        make_role: RoleMaker,
        tap: AttachedTap,
        now: Callable[[], MonotonicSeconds] = monotonic,
        store: DescriptorStore | None = None,
    ) -> None:
        self.dataplane = dataplane
        self.tap = tap
        self.sessions = Sessions(plan, dataplane, self._handle_news, now)
        self.records = PeerRecords(plan, now, tap.mac_conflicts)
        self.records.statistics.note_plan(plan.crl_next_update)
        self.standing = Standing(self.sessions)
        self.static_stations = StaticStations(self.sessions)
        self.role = make_role(self.sessions, self.records)
        self.holding = Holding(dataplane, plan.name, waits_for_sign=self.role.name == "server")
        self.path_probes = PathProbes(self.sessions, self.records.note_path_mtu)
        self.events = DataplaneEvents(
            self.sessions, self.records, self.role, tap, self.holding.note_sign, self.path_probes
        )
        self.has_socket = False
        self._store = store or DescriptorStore(ServiceManager())
        self._group = f"udp/{plan.name}"
        end_of_parts = (
            self.holding.close,
            self.sessions.close,
            self.path_probes.close,
            self.standing.close,
            self.events.stop,
            dataplane.stop,
            self.role.close,
        )
        self._ending = Ending(
            self.role.stop,
            self._say_farewell,
            self._wait_for_answers,
            *end_of_parts,
            partial(self._store.forget, self._group),
            partial(self.records.log.info, "tunnel_stopped"),
        )
        self._handing_over = Ending(
            # Before the farewell: nobody but the successor may read the answers.
            partial(dataplane.hold, lan=True, wan=True),
            self.role.hand_over,
            self.role.stop,
            self._say_hand_over,
            *end_of_parts,
            partial(self.records.log.info, "tunnel_handed_over"),
        )

    @property
    def plan(self) -> TunnelPlan:
        return self.sessions.plan

    @property
    def tap_name(self) -> str:
        return self.tap.name

    @property
    def links(self) -> LinkTable:
        return self.sessions.links

    @property
    def state(self) -> str:
        """A word for people; see `TunnelStatus`."""
        return "stopped" if self.sessions.is_stopping else self.role.state

    # --- life -------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Open the socket and begin.

        Raises:
            DataplaneError: `bind_failed`.
        """
        returning = self.role.open()
        if self.tap.is_inherited:
            self.holding.begin(returning)
        self.dataplane.start()
        if self.role.name == "server":
            self._store.keep(self._group, self.dataplane.socket_descriptors())
        self.events.start()
        self.sessions.watch_replays()
        self.records.log.info(
            "tunnel_started", role=self.role.name, dataplane=self.dataplane.name, tap=self.tap.name
        )
        self.role.start()

    async def stop(self) -> None:
        """Say farewell to every peer, wait a moment for the answers, end everything.

        Idempotent; what failed is tried again by the next call.

        Raises:
            ShutdownErrors: what failed; everything else was done.
        """
        self.sessions.is_stopping = True
        await self._ending.take()

    def _say_farewell(self) -> None:
        try:
            take_every_step(partial(self._leave, link) for link in list(self.links.values()))
        finally:
            self.sessions.rearm()

    def _leave(self, link: PeerLink) -> None:
        if link.session.state is SessionState.DRAINING:
            self._end(link)
        else:
            link.close("shutdown", "this end stops", notify=self.plan.exit_notify)

    async def _wait_for_answers(self) -> None:
        if not await self.sessions.wait_until_ended(STOP_SECONDS):
            self.records.log.info("farewell_unanswered", sessions=len(self.links))

    async def hand_over(self) -> None:
        """End everything at once, and leave what arrives meanwhile to a successor. Idempotent.

        Frames wait in the adapter, and a server's datagrams in its socket. The peers are told to come back.

        Raises:
            ShutdownErrors: what failed; everything else was done.
        """
        self.sessions.is_stopping = True
        await self._handing_over.take()

    def _say_hand_over(self) -> None:
        take_every_step(partial(link.hand_over, "this end restarts") for link in list(self.links.values()))

    def inherit_sockets(self, bind: Endpoint | None) -> None:
        """Use the sockets that a predecessor left, if they are bound to `bind`. Before `start`."""
        descriptors = self._store.take(self._group)
        if not descriptors:
            return
        try:
            if bind is not None and all(is_bound_to(descriptor, bind) for descriptor in descriptors):
                self.dataplane.inherit_sockets(descriptors)
                self.has_socket = True
        except DataplaneError as error:
            self.records.log.warning("socket_not_inherited", reason=error.message)
        for descriptor in descriptors:
            os.close(descriptor)
        if not self.has_socket:
            # The address is free only when the manager has closed its copies, too.
            self._store.forget(self._group)

    # --- changes ----------------------------------------------------------------------------------

    def apply(self, plan: TunnelPlan) -> None:
        """Use another plan from the next session on. Connected peers stay unless the plan refuses them."""
        self.sessions.plan = plan
        self.records.apply(plan)
        self.records.statistics.note_plan(plan.crl_next_update)
        self.standing.recheck()
        self.role.apply(plan)

    def renew_credentials(self, plan: TunnelPlan) -> int:
        """Take certificates, revocations and their rules from `plan`, and nothing else of it.

        Returns how many sessions ended.
        """
        self.sessions.plan = replace(
            self.plan,
            make_engine=plan.make_engine,
            certificates=plan.certificates,
            crl_next_update=plan.crl_next_update,
            crl_file=plan.crl_file,
            crl_mark=plan.crl_mark,
            judge_peer=plan.judge_peer,
        )
        self.records.statistics.note_plan(plan.crl_next_update)
        return self.standing.recheck()

    def handle_network_change(self) -> None:
        """Addresses, routes or links changed: let every peer hear where we are now."""
        for link in list(self.links.values()):
            if link.is_attached:
                self.dataplane.send_payload(link.handle, PING)
            link.handle_path_change()
        self.path_probes.handle_network_change()
        self.sessions.rearm()
        self.role.handle_network_change()

    def handle_clock_step(self) -> None:
        """Somebody set the clock, or the machine woke up: the network may be another one now."""
        self.role.handle_clock_step()
        self.handle_network_change()

    # --- news of the sessions ---------------------------------------------------------------------

    def _handle_news(self, link: PeerLink, news: News) -> None:
        """Record first, then tell the role."""
        match news:
            case Withheld():
                self.records.statistics.control_drops["transmit", "endpoint_unproven"] += 1
            case Established():
                if self.holding.is_active:
                    self.holding.note_established()
                    if self.role.name == "client":
                        link.ask()
                self.records.note_established(link, news)
                self.standing.note(link, news.negotiated.tls, news.duration)
                self.static_stations.renew(link.name)
                self.path_probes.begin(link)
            case Renegotiated():
                self.records.note_renegotiated(link, news)
                if news.outcome == "established" and link.terms is not None and news.tls is not None:
                    self.standing.note(link, news.tls, news.duration)
            case LinkDown():
                self.path_probes.end(link)
                self.sessions.note_last(news.last)
                self.standing.forget(link)
                self.static_stations.renew(link.name)
                if not link.is_abandoned:
                    self.records.note_down(link, news)
                if news.event.is_handed_over and not self.sessions.is_stopping:
                    self._await_successor(link)
            case SessionEnded():
                self.sessions.forget(link)
                self.records.note_ended(link)
        self.role.handle_news(link, news)

    def _await_successor(self, link: PeerLink) -> None:
        """The peer restarts. Hold what goes to it, unless others would wait, too."""
        if not any(other.is_attached for other in self.links.values() if other is not link):
            self.holding.begin(1)

    def _end(self, link: PeerLink) -> None:
        """End a session that is draining without waiting for its farewell."""
        self._handle_news(link, SessionEnded())

    # --- for the outside --------------------------------------------------------------------------

    def note_reflection(self, address: MacAddress, port: str, peer: str) -> None:
        """A LAN port sends frames of a remote station back; the station is held at our TAP."""
        self.records.statistics.mac_conflicts["local_port"] += 1
        self.records.log.warning("station_reflected", address=str(address), port=port, peer=peer)

    def note_contested(self, address: MacAddress, port: str, peer: str) -> None:
        """A peer sends frames with the address of a station that a LAN port had first, or with our own."""
        self.records.statistics.mac_conflicts["lan_station"] += 1
        self.records.log.warning(
            "station_contested",
            address=str(address),
            port=port,
            peer=peer,
            detail=f"this station of the LAN at {port} also sends from the site of {peer}; give one of the "
            "two another MAC address, or remove the cause (a loop, a cloned machine, an attack)",
        )

    def destinations(self) -> list[str]:
        """IP addresses that this tunnel sends to. Called in any thread: bridges ask in theirs."""
        return [link.endpoint.host for link in list(self.links.values())]

    def fdb(self) -> list[tuple[FdbEntry, str | None]]:
        """Learned stations with the name of their peer (None: behind the TAP)."""
        return [
            (entry, None if entry.handle is None else self.links.name_of(entry.handle))
            for entry in self.dataplane.fdb()
        ]

    def find_station(self, address: MacAddress) -> tuple[FdbEntry, str | None] | None:
        """One station as in `fdb`; None: unknown, or aged."""
        entry = self.dataplane.find_station(Station(0, address.octets))
        if entry is None:
            return None
        return entry, None if entry.handle is None else self.links.name_of(entry.handle)

    def station_events(self, after: int) -> StationEvents:
        """See `DataPlane.station_events`."""
        return self.dataplane.station_events(after)
