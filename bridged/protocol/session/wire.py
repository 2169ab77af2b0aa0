"""The packets of one session: adds session ids, acknowledgements and wraps to what the keys send.

Source: docs/protocol/control.md#1-3, #2, #3-2 and #4-2.
Pure: no sockets, no clock; callers pass `now` (monotonic seconds).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from bridged.errors import RemoteProtocolError
from bridged.protocol.packets.packet import (
    MAX_ACKS,
    MAX_KEY_ID,
    MAX_PIGGYBACKED_ACKS,
    ControlBody,
    ControlHeader,
    Opcode,
    parse_body,
    payload_room,
    serialize_body,
)
from bridged.protocol.packets.wrap import OpenedControl, WrapChannel, WrapKeys
from bridged.protocol.role import Role
from bridged.protocol.session.key_state import KeyState
from bridged.units import Octets

MAX_CONTROL_DATAGRAM: Final = 2560
"""Bytes. The largest `tls-mtu` with any wrap fits. This also limits what a stranger can make us buffer."""


class SessionWire:
    """Turns control packets into datagrams and back.

    Each datagram goes to `send`. A client's `remote_session_id` is None until the server's hard reset came.
    Packets with key ids 1..7 get the dynamic wrap once there is one (control.md#2-6).

    Raises:
        RemoteProtocolError: from `unwrap` and `take`, with the drop reason.
    """

    def __init__(
        self,
        role: Role,
        wrap: WrapChannel,
        local_session_id: bytes,
        remote_session_id: bytes | None,
        send: Callable[[bytes], None],
    ) -> None:
        self.local_session_id = local_session_id
        self.remote_session_id = remote_session_id
        self._role = role
        self._wrap = wrap
        self._dynamic: WrapChannel | None = None
        self._send_datagram = send

    def use_dynamic_wrap(self, channel: WrapChannel) -> None:
        """From now on, wrap every packet with key id 1..7 with this."""
        self._dynamic = channel

    @property
    def wrap_keys(self) -> WrapKeys:
        """The keys of the wrap with which the session began."""
        return self._wrap.keys

    @property
    def wrap_time(self) -> int:
        """Unix time in our wrapped packets."""
        return self._wrap.packet_time

    @property
    def wrapped_key_length(self) -> int:
        """Bytes of the key that a client's reset carries (tls-crypt-v2); 0: none."""
        return len(self._wrap.keys.wrapped_key)

    def payload_room(self, tls_mtu: int) -> Octets:
        """Bytes of TLS in one packet. OpenVPN counts the original wrap under the dynamic one, too."""
        return payload_room(self._wrap.keys.overhead, MAX_PIGGYBACKED_ACKS, tls_mtu=tls_mtu, ip_udp_header=48)

    # --- receiving ----------------------------------------------------------------------------------

    def unwrap(self, datagram: bytes) -> OpenedControl:
        """Open a datagram."""
        if len(datagram) > MAX_CONTROL_DATAGRAM:
            raise RemoteProtocolError("bad_length", f"a control packet of {len(datagram)} bytes")
        channel = self._channel(datagram[0] & MAX_KEY_ID) if datagram else self._wrap
        return channel.keys.open(datagram)

    def take(self, opened: OpenedControl, now: float) -> ControlBody:
        """Read the body of a packet of this session, record its packet id, and learn a server's session id.

        Packets of other sessions move no replay window, nor do our own ones that somebody sends back where
        tls-auth has no direction.
        """
        body = self._parse(opened)
        self._channel(opened.header.key_id).record(opened, now)
        self.remote_session_id = opened.header.session_id
        return body

    def _parse(self, opened: OpenedControl) -> ControlBody:
        header = opened.header
        if header.session_id == self.local_session_id:
            raise RemoteProtocolError("reflected", "one of our own packets")
        body = parse_body(header.opcode, opened.body)
        if body.acks and body.remote_session_id != self.local_session_id:
            raise RemoteProtocolError("cookie_mismatch", "acknowledges another session")
        is_answer = header.opcode is Opcode.HARD_RESET_SERVER_V2
        if header.opcode.is_hard_reset and (
            not is_answer or self._role is Role.SERVER or header.key_id != 0 or body.message_id != 0
        ):
            raise RemoteProtocolError(
                "bad_opcode", f"{header.opcode.name} does not belong into a session here"
            )
        if header.opcode is Opcode.SOFT_RESET_V1 and (header.key_id == 0 or body.message_id != 0):
            raise RemoteProtocolError("bad_opcode", "a soft reset opens a key id above 0 with message id 0")
        if self.remote_session_id is None:
            if not is_answer or not body.acks:
                raise RemoteProtocolError("cookie_mismatch", "not an answer to our hard reset")
        elif header.session_id != self.remote_session_id:
            raise RemoteProtocolError("cookie_mismatch", "from another session")
        return body

    # --- sending ---------------------------------------------------------------------------------

    def transmit(self, key: KeyState, now: float) -> None:
        """Send all packets of this key that are due, and acks that did not fit into them."""
        for packet in key.send.due(now):
            self._send(key, packet.opcode, packet.message_id, packet.payload)
        while key.inbox.has_new_acks:
            self._send(key, Opcode.ACK_V1, None, b"")

    def _channel(self, key_id: int) -> WrapChannel:
        return self._dynamic if key_id and self._dynamic is not None else self._wrap

    def _send(self, key: KeyState, opcode: Opcode, message_id: int | None, payload: bytes) -> None:
        acks: tuple[int, ...] = ()
        if self.remote_session_id is not None:
            acks = key.inbox.take_acks(self._ack_limit(message_id))
        body = ControlBody(acks, self.remote_session_id if acks else None, message_id, payload)
        header = ControlHeader(opcode, key.key_id, self.local_session_id)
        self._send_datagram(self._channel(key.key_id).wrap(header, serialize_body(body)))

    def _ack_limit(self, message_id: int | None) -> int:
        if message_id is not None:
            return MAX_PIGGYBACKED_ACKS
        # Without a wrap, one known server drops longer ones (control.md#3-2).
        cautious = not self._wrap.keys.has_packet_ids and self._role is Role.CLIENT
        return MAX_PIGGYBACKED_ACKS if cautious else MAX_ACKS
