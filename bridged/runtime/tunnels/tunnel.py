"""One tunnel at work: its data plane, its sessions, one timer, and what the outside may ask of it.

What differs between server and client is in `server` and `client`.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Final

import structlog

from bridged.addresses import Endpoint, MacAddress
from bridged.dataplane.contract import (
    ControlReceived,
    DataPlane,
    FdbEntry,
    KeyNearLimit,
    OccReceived,
    PeerExpired,
    PeerFloated,
    PeerSnapshot,
    SessionUnknown,
    StationMoved,
    TapFailed,
)
from bridged.dataplane.contract import Event as DataplaneEvent
from bridged.errors import BridgedError, RemoteProtocolError
from bridged.protocol.packets.occ import OCC_EXIT, PING, OccType, occ_reply, parse_occ, serialize_occ
from bridged.protocol.packets.options_string import build_options_string
from bridged.protocol.packets.wrap import WrapChannel
from bridged.protocol.session.conversation import link_options
from bridged.protocol.session.events import Authenticated, Established, Identified, Renegotiated, SessionDown
from bridged.protocol.session.session import Session
from bridged.protocol.session.states import SessionState
from bridged.protocol.session.terms import UNASKED_PASSWORD
from bridged.protocol.session.tls_port import TlsEngine
from bridged.protocol.strangers.stranger import recognise
from bridged.runtime.tunnels.coalescing import Coalescing
from bridged.runtime.tunnels.link import PeerLink
from bridged.runtime.tunnels.link_table import LinkTable
from bridged.runtime.tunnels.log_budget import LogBudget
from bridged.runtime.tunnels.refused import RefusedPeers
from bridged.runtime.tunnels.standing import Standing
from bridged.runtime.tunnels.statistics import PeerBook, TunnelStatistics
from bridged.runtime.tunnels.tunnel_plan import TunnelPlan
from bridged.supervision import SUPERVISOR
from bridged.units import MonotonicSeconds, PeerHandle, UnixSeconds, WirePeerId

_UNOPENED: Final = frozenset({"wrap_mismatch", "short_packet", "bad_length", "bad_opcode"})
"""Drop reasons of packets whose wrap or body is not as ours."""
EVENTS_PER_TURN: Final = 64
"""A TLS handshake takes a millisecond in all: timers and the API wait for less than a tenth of a second."""
PUT_OUT: Final = ("kicked", "auth_expired")
REFUSALS: Final = frozenset(
    (
        "auth_failed",
        "certificate_rejected",
        "certificate_expired",
        "certificate_revoked",
        "crl_expired",
        "name_mismatch",
    )
)
"""Handshake outcomes that say: not let in."""
STOP_SECONDS: Final = 2.0
"""How long a stop waits for farewells to be acknowledged."""


class Tunnel(ABC):
    """Base of `ServerTunnel` and `ClientTunnel`; all methods run in the event loop."""

    role = ""

    def __init__(self, plan: TunnelPlan, dataplane: DataPlane) -> None:
        self.plan = plan
        self.dataplane = dataplane
        self.tap_name: str | None = None
        self.tap_mac: str | None = None
        self.on_tap_failed: Callable[[], None] = lambda: None
        self.last_error: str | None = None
        self.coalescing = Coalescing(frozenset())
        self.statistics = TunnelStatistics()
        self.book = PeerBook(plan.peer_names, plan.peer_retention)
        self.log = structlog.get_logger("bridged.tunnel").bind(tunnel=plan.name)
        self.is_stopping = False
        self.links = LinkTable()
        self.standing = Standing(self)
        self._handles = itertools.count(1)
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = float("inf")
        self._on_timer = SUPERVISOR.guard("session_timer", self._handle_timer, plan.name)
        self._all_ended = asyncio.Event()
        self.refused = RefusedPeers()
        self._complaints = LogBudget(monotonic)
        self._floats = LogBudget(monotonic)

    # --- life -------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Open the socket and begin.

        Raises:
            DataplaneError: `bind_failed`.
        """
        self.dataplane.start()
        take = SUPERVISOR.guard("tunnel_events", self._take_events, self.plan.name)
        asyncio.get_running_loop().add_reader(self.dataplane.event_fd(), take)
        self.log.info("tunnel_started", role=self.role, dataplane=self.dataplane.name, tap=self.tap_name)

    async def stop(self) -> None:
        """Say farewell, wait a moment for it, end everything. Idempotent."""
        if self.is_stopping:
            return
        self.is_stopping = True
        for link in list(self.links.values()):
            if link.session.state is SessionState.DRAINING:
                self.handle_ended(link)
            else:
                link.close("shutdown", "this end stops", notify=self.plan.exit_notify)
        self._rearm()
        if self.links:
            self._all_ended.clear()
            try:
                await asyncio.wait_for(self._all_ended.wait(), STOP_SECONDS)
            except TimeoutError:
                self.log.info("farewell_unanswered", sessions=len(self.links))
        if self._timer is not None:
            self._timer.cancel()
        self.standing.close()
        asyncio.get_running_loop().remove_reader(self.dataplane.event_fd())
        self.dataplane.stop()
        self.log.info("tunnel_stopped")

    def apply(self, plan: TunnelPlan) -> None:
        """Use another plan from the next session on; of those that are up, whom it still lets in goes on."""
        self.plan = plan
        self.book.apply(plan.peer_names, plan.peer_retention)
        self.standing.recheck()

    def handle_network_change(self) -> None:
        """Addresses, routes or links changed: let every peer hear from where we are now."""
        for link in list(self.links.values()):
            if link.is_attached:
                self.dataplane.send_payload(link.handle, PING)
            link.handle_path_change()
        self._rearm()

    def handle_clock_step(self) -> None:
        """Somebody set the clock, or the machine woke up: the network may be another one now."""
        self.handle_network_change()

    def note_reflection(self, address: MacAddress, port: str, peer: str) -> None:
        """A LAN port sends frames of a remote station back; the station is pinned to our TAP."""
        self.statistics.mac_conflicts["local_port"] += 1
        self.log.warning("station_reflected", address=str(address), port=port, peer=peer)

    def note_contested(self, address: MacAddress, port: str, peer: str) -> None:
        """A peer sends frames with the address of a station that a LAN port had first, or that is ours."""
        self.statistics.mac_conflicts["lan_station"] += 1
        self.log.warning(
            "station_contested",
            address=str(address),
            port=port,
            peer=peer,
            detail=f"this station of the LAN at {port} also sends at the site of {peer}; give one of the two "
            "another MAC address, or end what copies it there (a loop, a cloned machine, an attack)",
        )

    # --- from the data plane ----------------------------------------------------------------------

    def _take_events(self) -> None:
        for event in self.dataplane.poll_events(EVENTS_PER_TURN):
            try:
                self._handle(event)
            except RemoteProtocolError as error:
                self._note_dropped(event, error.code)
            except BridgedError as error:
                # A peer that was removed a moment ago, or a bug: neither may end the daemon.
                self.log.warning("event_failed", event_kind=type(event).__name__, code=error.code)
            except Exception as error:
                # A bug; it must not cost the events behind it.
                SUPERVISOR.note_failure("tunnel_events", self.plan.name, error)
        self._rearm()

    def _note_dropped(self, event: DataplaneEvent, code: str) -> None:
        """Count what was dropped; say so where the packet tells what its sender has configured wrongly."""
        if isinstance(event, ControlReceived) and code in _UNOPENED:
            stranger = recognise(event.datagram, self.plan.wrap)
            if stranger is not None:
                code = stranger.code
                told = self.refused.note_stranger(event.source, stranger, event.datagram, unix_now())
                fields = self._complaints.take() if told is not None else None
                if told is not None and fields is not None:
                    self.log.warning(
                        "stranger_refused",
                        endpoint=told.endpoint,
                        reason=told.reason,
                        detail=told.detail,
                        packets=told.times,
                        **fields,
                    )
        self.statistics.control_drops["receive", code] += 1

    def _handle(self, event: DataplaneEvent) -> None:
        match event:
            case ControlReceived(datagram, source):
                self.receive_control(datagram, source)
            case PeerFloated(handle, endpoint, previous):
                self._handle_float(handle, endpoint, previous)
            case PeerExpired(handle):
                self._with_link(handle, self.handle_expired)
            case SessionUnknown(handle):
                self._with_link(handle, self.handle_unknown)
            case KeyNearLimit(handle, key_id, trigger):
                self._with_link(handle, lambda link: link.renegotiate(trigger, key_id))
            case OccReceived(handle, payload):
                self._handle_occ(handle, payload)
            case StationMoved(station, previous_port, current):
                self.statistics.mac_conflicts["peer" if current and previous_port else "local_port"] += 1
                self.log.info(
                    "station_moved",
                    address=station.mac.hex(":"),
                    previous=self._port_name(previous_port),
                    current=self._port_name(current),
                )
            case TapFailed(number):
                self.log.warning("tap_failed", tap=self.tap_name, errno=number)
                self.on_tap_failed()

    def _handle_float(self, handle: PeerHandle, endpoint: Endpoint, previous: Endpoint) -> None:
        link = self.links.get(handle)
        if link is None:
            return
        for other in self.links.at(endpoint):
            # Nobody else: a peer can claim any address, and those who are in a handshake there prove theirs.
            if other is not link and other.is_attached and other.name == link.name:
                other.close("replaced", f"{endpoint} now belongs to {link.name}", notify=False)
        self.links.move(link, endpoint)
        record = self.book.record(link.name)
        record.endpoint_changes += 1
        record.last_endpoint = str(endpoint)
        fields = self._floats.take()
        if fields is not None:
            self.log.info(
                "peer_floated", peer=link.name, endpoint=str(endpoint), previous=str(previous), **fields
            )
        link.handle_float()

    def _handle_occ(self, handle: PeerHandle, payload: bytes) -> None:
        message = parse_occ(payload)
        link = self.links.get(handle)
        if link is None:
            return
        if message.type is OccType.EXIT:
            # A station in the peer's LAN can send it as a frame, though hardly one as short as this. A peer
            # that has agreed to leave by the control channel never says so here.
            if payload != OCC_EXIT or (link.terms is not None and link.terms.exit_by_control):
                raise RemoteProtocolError("housekeeping_magic", "an exit that the peer did not send itself")
            link.handle_occ_exit()
        elif message.type is OccType.REQUEST:
            reply = occ_reply(build_options_string(link_options(self.plan.session)))
            link.send_payload(serialize_occ(reply))
        elif message.type is OccType.REPLY:
            link.handle_occ_reply()

    def _with_link(self, handle: PeerHandle, step: Callable[[PeerLink], None]) -> None:
        link = self.links.get(handle)
        if link is not None:
            step(link)

    def _port_name(self, handle: PeerHandle | None) -> str:
        link = self.links.get(handle) if handle is not None else None
        return link.name if link is not None else "local"

    # --- for the two roles ------------------------------------------------------------------------

    @abstractmethod
    def receive_control(self, datagram: bytes, source: Endpoint) -> None:
        """A control packet from anybody.

        Raises:
            RemoteProtocolError: it is to be dropped and counted.
        """

    def handle_unknown(self, link: PeerLink) -> None:
        """Somebody says that the peer does not know this session; only a client asks whether that is so."""
        self.log.debug("notice_ignored", peer=link.name)

    def handle_expired(self, link: PeerLink) -> None:
        """Nothing came from this peer for its ping-restart time."""
        link.close("ping_timeout", "nothing was heard for ping-restart seconds", notify=False)

    def make_link(
        self,
        endpoint: Endpoint,
        *,
        local_session_id: bytes,
        remote_session_id: bytes | None = None,
        next_packet_id: int = 1,
        receive_peer_id: WirePeerId | None = None,
    ) -> PeerLink:
        session = Session(
            self.plan.session,
            self._make_engine,
            secrets.token_bytes,
            WrapChannel(self.plan.wrap, int(time.time()), next_packet_id),
            local_session_id,
            monotonic(),
            remote_session_id=remote_session_id,
        )
        handle = PeerHandle(next(self._handles))
        link = PeerLink(session, handle, endpoint, self.dataplane, self, receive_peer_id, monotonic)
        self.links.add(link)
        self.dataplane.expect(endpoint)
        return link

    def _make_engine(self) -> TlsEngine:
        """By the plan of that moment: a renegotiation meets the certificates of the last reload."""
        return self.plan.make_engine()

    def handle_named(self, link: PeerLink, name: str) -> None:
        self.links.rename(link, name)

    def handle_withheld(self, link: PeerLink) -> None:
        self.statistics.control_drops["transmit", "endpoint_unproven"] += 1

    def handle_settled(self, link: PeerLink) -> None:
        self.links.schedule(link)

    @abstractmethod
    def handle_identified(self, link: PeerLink, event: Identified) -> None:
        """Only a server hears it."""

    @abstractmethod
    def handle_authenticated(self, link: PeerLink, event: Authenticated) -> None:
        """Only a server is asked."""

    def handle_established(self, link: PeerLink, event: Established) -> None:
        terms = event.negotiated
        self.statistics.note_handshake("initial", "established", event.duration)
        self.statistics.authentications["certificate", "accepted"] += 1
        self.book.note_established(link.name, terms, str(link.endpoint), unix_now())
        self.last_error = None
        self.refused.forget(link.endpoint)
        self.log.info(
            "peer_connected",
            peer=link.name,
            endpoint=str(link.endpoint),
            cipher=terms.cipher.value,
            tls=terms.tls.version,
            key_group=terms.tls.group,
            derivation=terms.key_derivation,
            seconds=round(event.duration, 3),
        )
        for warning in terms.warnings:
            self.log.warning("options_differ", peer=link.name, difference=warning)
        if terms.has_unasked_password:
            self.statistics.authentications["password", "ignored"] += 1
            self.log.warning("password_ignored", peer=link.name, detail=UNASKED_PASSWORD)
        if terms.ignored:
            self.log.info("pushed_options_ignored", peer=link.name, options=list(terms.ignored))
        self.standing.note(link, terms.tls, event.duration)

    def handle_renegotiated(self, link: PeerLink, event: Renegotiated) -> None:
        self.statistics.note_handshake("renegotiation", event.outcome, event.duration)
        self.statistics.renegotiations[event.trigger, event.outcome] += 1
        if event.outcome == "established" and link.terms is not None:
            self.book.note_renegotiated(link.name, link.terms, unix_now())
            self.log.debug("key_renegotiated", peer=link.name, trigger=event.trigger)
            if event.tls is not None:
                self.standing.note(link, event.tls, event.duration)
        else:
            self.log.warning(
                "renegotiation_failed", peer=link.name, outcome=event.outcome, detail=event.detail
            )

    def handle_down(self, link: PeerLink, event: SessionDown, last: PeerSnapshot | None) -> None:
        self.standing.forget(link)
        if event.was_established:
            record = self.book.record(link.name)
            record.disconnects[event.reason] += 1
            if last is not None:
                record.retire(last)
            self.book.note_gone(link.name, unix_now())
            tell = self.log.warning if event.reason in PUT_OUT else self.log.info
            tell("peer_disconnected", peer=link.name, reason=event.reason, detail=event.detail)
            return
        if event.reason in ("shutdown", "replaced", *PUT_OUT):
            self.log.info("handshake_ended", endpoint=str(link.endpoint), reason=event.reason)
            return
        self.statistics.note_handshake("initial", event.reason, event.duration)
        if event.reason in REFUSALS:
            self.statistics.authentications["certificate", "refused"] += 1
        self.last_error = f"{event.reason}: {event.detail}"
        fields = self._complaints.take()
        if fields is None:
            return
        self.log.warning(
            "handshake_failed",
            endpoint=str(link.endpoint),
            outcome=event.reason,
            detail=event.detail,
            seconds=round(event.duration, 3),
            **fields,
        )

    def handle_ended(self, link: PeerLink) -> None:
        if link.handle in self.links:
            self.dataplane.stop_expecting(link.first_endpoint)
        self.links.discard(link)
        for code, count in link.session.drops.items():
            self.statistics.control_drops["receive", code] += count
        if not self.links:
            self._all_ended.set()

    # --- time -------------------------------------------------------------------------------------

    def rearm(self) -> None:
        """Set the timer to the earliest deadline of all sessions."""
        self._rearm()

    def _rearm(self) -> None:
        at = self.links.next_deadline()
        if at == self._timer_at and self._timer is not None:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._timer_at = at
        if at != float("inf"):
            self._timer = asyncio.get_running_loop().call_at(at, self._on_timer)

    def _handle_timer(self) -> None:
        self._timer = None
        self._timer_at = float("inf")
        for link in self.links.take_due(monotonic()):
            try:
                link.handle_timeout()
            except Exception as error:
                # A bug; the deadline would stay in the past, and the timer would never rest.
                code = error.code if isinstance(error, BridgedError) else type(error).__name__
                self.log.error("session_failed", peer=link.name, code=code, detail=str(error))
                link.abort(str(error))
        self._rearm()

    # --- for the outside --------------------------------------------------------------------------

    @property
    @abstractmethod
    def state(self) -> str: ...

    @property
    def remote(self) -> str | None:
        return None

    def destinations(self) -> list[str]:
        """IP addresses that this tunnel sends to."""
        return [link.endpoint.host for link in self.links.values()]

    def fdb(self) -> list[tuple[FdbEntry, str | None]]:
        """Learned stations with the name of their peer (None: behind the TAP)."""
        return [
            (entry, None if entry.handle is None else self._port_name(entry.handle))
            for entry in self.dataplane.fdb()
        ]


def monotonic() -> MonotonicSeconds:
    return MonotonicSeconds(time.monotonic())


def unix_now() -> UnixSeconds:
    return UnixSeconds(time.time())


def newest(links: Iterable[PeerLink]) -> PeerLink | None:
    """The link that was made last."""
    return max(links, key=lambda link: link.handle, default=None)
