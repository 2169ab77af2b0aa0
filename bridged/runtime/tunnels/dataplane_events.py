"""Carries the events of a tunnel's data plane to its sessions, its role and its records.

Asyncio. A few events in each turn of the loop, so that timers and the API get theirs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from bridged.addresses import Endpoint, MacAddress
from bridged.dataplane.contract import (
    ControlReceived,
    DataplaneEvent,
    FramingRefused,
    KeyNearLimit,
    OccReceived,
    PeerExpired,
    PeerFloated,
    SessionUnknown,
    StationMoved,
    StreamClosed,
    StreamEnd,
    TapFailed,
)
from bridged.errors import BridgedError, RemoteProtocolError
from bridged.protocol.packets.framing_choice import PUSHED
from bridged.protocol.packets.occ import (
    OCC_EXIT,
    OccType,
    load_of,
    mtu_reply,
    occ_reply,
    parse_occ,
    serialize_occ,
)
from bridged.protocol.packets.options_string import build_options_string
from bridged.protocol.packets.packet_size import PacketShape
from bridged.protocol.session.conversation import link_options
from bridged.runtime.tunnels.adapter import AttachedTap
from bridged.runtime.tunnels.link import PeerLink
from bridged.runtime.tunnels.path_probes import ETHERNET, PathProbes
from bridged.runtime.tunnels.peer_records import PeerRecords
from bridged.runtime.tunnels.sessions import Sessions
from bridged.runtime.tunnels.tunnel_role import TunnelRole
from bridged.supervision import SUPERVISOR
from bridged.units import PeerHandle

EVENTS_PER_TURN: Final = 64
"""A TLS handshake takes a millisecond in all, so timers and the API wait less than a tenth of a second."""


_ENDS: Final[dict[StreamEnd, str]] = {
    "closed": "the other end closed it",
    "reset": "the network or the other end broke it off",
    "bad_framing": "the other end sent something else than packets",
    "overflow": "the other end reads too slowly",
}
_COMPRESSES: Final = (
    "it compresses frames, which are dropped here: at its end, write `{}` in place of its `comp-lzo` or "
    "`compress` line, and remove `allow-compression yes`"
)
_FRAMES_OTHERWISE: Final = (
    "its compression framing is not what both ends agreed on, so its frames are dropped: it ignores a pushed "
    "`comp-lzo` or `compress` (`pull-filter`), or has another setting than `compression_framing` here"
)


class DataplaneEvents:
    """Reads events from `start` to `stop`. `on_sign`: a peer said something on the data channel."""

    def __init__(
        self,
        sessions: Sessions,
        records: PeerRecords,
        role: TunnelRole,
        tap: AttachedTap,
        on_sign: Callable[[], None],
        probes: PathProbes,
    ) -> None:
        self._probes = probes
        self._on_sign = on_sign
        self._sessions = sessions
        self._records = records
        self._role = role
        self._tap = tap
        self._log = records.log
        self._descriptor = -1

    def start(self) -> None:
        """Begin, in the running event loop."""
        self._descriptor = self._sessions.dataplane.event_fd()
        take = SUPERVISOR.guard("tunnel_events", self._take, self._sessions.plan.name)
        asyncio.get_running_loop().add_reader(self._descriptor, take)

    def stop(self) -> None:
        """Read no more. Idempotent."""
        if self._descriptor >= 0:
            asyncio.get_running_loop().remove_reader(self._descriptor)
            self._descriptor = -1

    def handle(self, event: DataplaneEvent) -> None:
        """Act on one event.

        Raises:
            RemoteProtocolError: what the peer sent is to be dropped and counted.
            BridgedError: the data plane refused.
        """
        match event:
            case ControlReceived(datagram, source):
                self._role.receive_control(datagram, source)
            case StreamClosed(endpoint, reason):
                self._handle_stream_end(endpoint, reason)
            case PeerFloated(handle, endpoint, previous):
                self._handle_float(handle, endpoint, previous)
            case PeerExpired(handle):
                self._with_link(handle, _expire)
            case SessionUnknown(handle):
                self._with_link(handle, self._role.handle_unknown)
            case FramingRefused(handle, is_compressed):
                self._with_link(handle, lambda link: self._warn_of_framing(link, is_compressed))
            case KeyNearLimit(handle, key_id, trigger):
                self._with_link(handle, lambda link: link.renegotiate(trigger, key_id))
            case OccReceived(handle, payload, left_out):
                self._with_link(handle, lambda link: self._handle_occ(link, payload, left_out))
            case StationMoved(station, previous_port, current):
                self._handle_moved(MacAddress(station.mac), previous_port, current)
            case TapFailed(number):
                self._log.warning("tap_failed", tap=self._tap.name, errno=number)
                self._tap.reopen()

    def _take(self) -> None:
        for event in self._sessions.dataplane.poll_events(EVENTS_PER_TURN):
            try:
                self.handle(event)
            except RemoteProtocolError as error:
                packet = event if isinstance(event, ControlReceived) else None
                self._records.note_dropped(packet, error.code, self._sessions.plan.wrap)
            except BridgedError as error:
                # A peer that was removed a moment ago, or a bug. Neither may end the daemon.
                self._log.warning("event_failed", event_kind=type(event).__name__, code=error.code)
            except Exception as error:
                # A bug. It must not cost the events behind it.
                SUPERVISOR.note_failure("tunnel_events", self._sessions.plan.name, error)
        self._sessions.rearm()

    def _handle_stream_end(self, endpoint: Endpoint, reason: StreamEnd) -> None:
        for link in self._sessions.links.at(endpoint):
            link.lose(f"the TCP connection ended: {_ENDS[reason]}")
        self._role.handle_stream_closed(endpoint)

    def _handle_float(self, handle: PeerHandle, endpoint: Endpoint, previous: Endpoint) -> None:
        links = self._sessions.links
        link = links.get(handle)
        if link is None:
            return
        for other in links.at(endpoint):
            # Only sessions of the same name: a peer can claim any address, and a session that is in its
            # handshake there proves its own.
            if other is not link and other.is_attached and other.name == link.name:
                other.close("replaced", f"{endpoint} now belongs to {link.name}", notify=False)
        links.move(link, endpoint)
        self._records.note_float(link, previous)
        link.handle_float()
        self._probes.handle_float(link)
        if handle in links:
            self._role.handle_floated(link, previous)

    def _handle_occ(self, link: PeerLink, payload: bytes, left_out: int) -> None:
        message = parse_occ(payload)
        self._on_sign()
        link.handle_occ(len(payload) + left_out)
        if message.type is OccType.EXIT:
            # A station in the peer's LAN can send these bytes as a frame, though hardly one as short. A peer
            # that has agreed to leave by the control channel never sends them.
            if payload != OCC_EXIT or (link.terms is not None and link.terms.exit_by_control):
                raise RemoteProtocolError("housekeeping_magic", "an exit that the peer did not send itself")
            link.handle_occ_exit()
        elif message.type is OccType.REQUEST:
            framing = None if link.terms is None else link.terms.framing
            options = link_options(self._sessions.plan.session, framing)
            reply = occ_reply(build_options_string(options))
            link.send_payload(serialize_occ(reply))
        elif message.type is OccType.REPLY:
            link.handle_occ_reply()
        elif message.type is OccType.MTU_LOAD:
            link.handle_occ_reply()
            self._probes.handle_answer(link, len(payload))
        elif message.type is OccType.MTU_REQUEST:
            if (shape := self._shape(link)) is not None:
                reply = mtu_reply(shape.octets(link.largest_received), shape.octets(link.largest_sent))
                link.send_payload(serialize_occ(reply))
        elif (load := load_of(message, self._largest_frame)) is not None:
            link.send_payload(serialize_occ(load))

    @property
    def _largest_frame(self) -> int:
        return self._sessions.plan.session.tun_mtu + ETHERNET

    def _shape(self, link: PeerLink) -> PacketShape | None:
        terms = link.terms
        if terms is None:
            return None
        return PacketShape(
            terms.cipher,
            self._sessions.plan.session.digest,
            has_peer_id=terms.transmit_peer_id is not None,
            is_epoch=terms.is_epoch,
            is_static=terms.key_derivation == "static",
            framing=terms.framing,
            fragment=terms.fragment,
        )

    def _warn_of_framing(self, link: PeerLink, is_compressed: bool) -> None:
        if link.terms is None:
            return
        if is_compressed:
            text = _COMPRESSES.format(PUSHED[link.terms.framing])
            self._log.warning("peer_compresses", peer=link.name, detail=text)
        else:
            self._log.warning("framing_differs", peer=link.name, detail=_FRAMES_OTHERWISE)

    def _handle_moved(
        self, address: MacAddress, previous: PeerHandle | None, current: PeerHandle | None
    ) -> None:
        kind = "peer" if current and previous else "local_port"
        self._records.statistics.mac_conflicts[kind] += 1
        name_of = self._sessions.links.name_of
        self._log.info(
            "station_moved", address=str(address), previous=name_of(previous), current=name_of(current)
        )

    def _with_link(self, handle: PeerHandle, step: Callable[[PeerLink], None]) -> None:
        link = self._sessions.links.get(handle)
        if link is not None:
            step(link)


def _expire(link: PeerLink) -> None:
    link.close("ping_timeout", "no packet arrived for ping-restart seconds", notify=False)
