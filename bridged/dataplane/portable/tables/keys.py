"""Seal and open whole batches under one data key.

Source: docs/protocol/data.md#2-1 and #3. Read `bridged.protocol.packets.data_packet` first: it does the same
for one packet at a time, and tests compare the two. Acts on its own state only: no sockets, no clock.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from cryptography.exceptions import InvalidTag

from bridged.dataplane.contract import LimitTrigger
from bridged.dataplane.portable.tables.key_use import KeyUse
from bridged.protocol.keys.key_derivation import DataKey
from bridged.protocol.keys.replay import ReplayWindow
from bridged.protocol.packets.data_packet import (
    MAX_DATA_PACKET_ID,
    OVERHEAD_V1,
    OVERHEAD_V2,
    make_aead,
    serialize_data_header,
)
from bridged.units import KeyId, WirePeerId

LEAST_FRAME_OCTETS: Final = 14

_LEAST_V2_OCTETS: Final = OVERHEAD_V2 + LEAST_FRAME_OCTETS

NEVER: Final = -1
"""No packet has this id."""

Drop = Callable[[str], None]
"""Count one dropped packet by its reason."""


class KeySlot:
    """One key id of one peer: its AEAD objects, packet ids, replay window and use.

    It owns the DataKey and zeroises it in `close`; then it seals and opens nothing. `awaited` is the packet
    id behind the highest received; `following` counts those that came in order and are not in the window yet.
    `additional` is the additional data of a sealed packet, up to its packet id.
    """

    __slots__ = (
        "_key",
        "accepted",
        "additional",
        "awaited",
        "decrypt",
        "encrypt",
        "following",
        "header",
        "known_as",
        "least_payload",
        "next_id",
        "open_iv",
        "seal_iv",
        "use",
        "window",
    )

    def __init__(self, key: DataKey, replay_window: int, use: KeyUse) -> None:
        self._key = key
        self.seal_iv = bytes(key.send_iv)
        self.open_iv = bytes(key.receive_iv)
        self._make_ciphers(key)
        self.header = self.additional = b""
        self.address_to(None)
        self.next_id = 1
        self.awaited = 1
        self.following = 0
        self.window = ReplayWindow(replay_window)
        self.use = use
        self.known_as: list[bytes] = []
        """Packet headers under which the table of peers finds this slot."""
        self.accepted = 0
        """Packets of the last `open` that were authentic and new, including short ones."""
        self.least_payload = LEAST_FRAME_OCTETS
        """Bytes of the shortest payload that `open` returns."""

    def _make_ciphers(self, key: DataKey) -> None:
        """Prepare what seals and opens."""
        self.encrypt = make_aead(key.cipher, key.send_key).encrypt
        self.decrypt = make_aead(key.cipher, key.receive_key).decrypt

    @property
    def key_id(self) -> KeyId:
        return self._key.key_id

    @property
    def highest_packet_id(self) -> int:
        """Of both directions."""
        return max(self.next_id - 1, self.awaited - 1)

    @property
    def replay_mark(self) -> int:
        """See `PeerSnapshot.replay_mark`."""
        return 0

    def payload_room(self, packet: int) -> int:
        """Bytes of the largest payload in a packet of at most so many."""
        return packet - len(self.header) - OVERHEAD_V1 + 1

    def limit_reached(self) -> LimitTrigger | None:
        """Why the key should be replaced; reported once, else None."""
        use = self.use
        return use.trigger(self.highest_packet_id) if use.is_due() else None

    def address_to(self, peer_id: WirePeerId | None) -> None:
        """Write DATA_V2 with this peer id from now on, or DATA_V1."""
        self.header = serialize_data_header(self._key.key_id, peer_id)
        # DATA_V1 leaves its first byte unauthenticated.
        self.additional = self.header if peer_id is not None else b""

    def close(self) -> None:
        """Overwrite the key. The copies inside the AEAD objects go when Python frees these."""
        self._key.zeroise()
        self.encrypt = _closed
        self.decrypt = _closed
        self.seal_iv = self.open_iv = b""

    def seal(self, payloads: Sequence[bytes]) -> list[bytes]:
        """The packets for these payloads (1 byte or more each), in order.

        There are fewer packets than payloads if the packet ids run out: an id is never used twice.
        """
        header, additional = self.header, self.additional
        iv = self.seal_iv
        encrypt = self.encrypt
        number = self.next_id
        left = MAX_DATA_PACKET_ID + 1 - number
        if len(payloads) > left:
            payloads = payloads[:left]
        packets = []
        for payload in payloads:
            identity = number.to_bytes(4, "big")
            sealed = encrypt(identity + iv, payload, additional + identity)
            packets.append(header + identity + sealed[-16:] + sealed[:-16])
            number += 1
        self.next_id = number
        self.use.count_sent(len(packets), sum(map(len, packets)))
        return packets

    def seal_one(self, payload: bytes) -> bytes | None:
        """`seal` for one payload; None, and nothing is done, if the limits have to be looked at first."""
        number, use = self.next_id, self.use
        if number > MAX_DATA_PACKET_ID or use.packets_sent >= use.due_sent:
            return None
        self.next_id = number + 1
        identity = number.to_bytes(4, "big")
        sealed = self.encrypt(identity + self.seal_iv, payload, self.additional + identity)
        packet = self.header + identity + sealed[-16:] + sealed[:-16]
        use.packets_sent += 1
        use.octets_sent += len(packet)
        return packet

    def open_next(self, packet: bytes) -> bytes | None:
        """`open` for the DATA_V2 packet that is next in order.

        None, and nothing is done, for any other, and if the limits have to be looked at first.
        """
        use = self.use
        if (
            len(packet) < _LEAST_V2_OCTETS
            or int.from_bytes(packet[4:8], "big") != self.awaited
            or use.packets_received >= use.due_received
        ):
            return None
        try:
            payload = self.decrypt(packet[4:8] + self.open_iv, packet[24:] + packet[8:24], packet[:8])
        except InvalidTag:
            return None
        self.awaited += 1
        self.following += 1
        use.packets_received += 1
        use.octets_received += len(packet)
        return payload

    def _settle(self) -> None:
        """Bring the replay window up to date with the packets that came in order."""
        if self.following:
            self.window.accept_next(self.following)
            self.following = 0

    def open(self, packets: Sequence[bytes], drop: Drop, *, is_v2: bool) -> list[bytes]:
        """The payloads of the packets that are authentic, new and long enough to be frames.

        Only ids of authentic packets are recorded. `drop` hears of every other packet: `short_packet`,
        `tag_mismatch`, `replay`, `replay_too_old`, `short_frame`, `key_expired`. `accepted` is how many
        packets were authentic and new, including those with short frames.
        """
        self.accepted = 0
        if self.use.is_dead:
            self.awaited = NEVER
            for _ in packets:
                drop("key_expired")
            return []
        # DATA_V1 leaves its first byte unauthenticated.
        begin, at, body = (0, 4, OVERHEAD_V2) if is_v2 else (1, 1, OVERHEAD_V1)
        tag_at = at + 4
        least = body + self.least_payload
        iv = self.open_iv
        decrypt = self.decrypt
        self._settle()
        expected = self.awaited
        following = 0
        payloads = []
        for packet in packets:
            try:
                payload = decrypt(
                    packet[at:tag_at] + iv, packet[body:] + packet[tag_at:body], packet[begin:tag_at]
                )
            except InvalidTag:
                if len(packet) <= body:
                    drop("short_packet")
                else:
                    self.use.count_failed()
                    drop("tag_mismatch")
                continue
            if int.from_bytes(packet[at:tag_at], "big") == expected and len(packet) >= least:
                expected += 1
                following += 1
                payloads.append(payload)
                continue
            # Out of order, or not a frame: bring the window up to date, and look closely.
            if following:
                self.window.accept_next(following)
                self.accepted += following
                following = 0
            number = int.from_bytes(packet[at:tag_at], "big")
            self._admit(number, payload, drop, payloads, is_empty=len(packet) <= body)
            expected = self.window.highest + 1
        self.awaited = expected
        if following:
            self.window.accept_next(following)
            self.accepted += following
        self.use.count_received(self.accepted, sum(map(len, payloads)) + body * self.accepted)
        return payloads

    def _admit(
        self, number: int, payload: bytes, drop: Drop, payloads: list[bytes], *, is_empty: bool
    ) -> None:
        """One authentic packet: check replay, then its length."""
        reason = self.window.verdict(number)
        if reason is None and is_empty:
            reason = "short_packet"
        if reason is not None:
            drop(reason)
            return
        self.use.note_order(number, self.window.highest)
        self.window.accept(number)
        self.accepted += 1
        if len(payload) < self.least_payload:
            self.use.octets_received += len(payload)
            drop("short_frame")
        else:
            payloads.append(payload)


def _closed(nonce: bytes, data: bytes, associated_data: bytes | None) -> bytes:
    raise InvalidTag
