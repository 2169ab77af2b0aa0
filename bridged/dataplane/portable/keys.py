"""Seal and open whole batches under one data key.

Source: docs/protocol/data.md, sections 2.1 and 3. `bridged.protocol.data_packet` is the same for one packet
at a time, to be read first; tests hold the two together.
Acts on its own state only: no sockets, no clock.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from cryptography.exceptions import InvalidTag

from bridged.dataplane.contract import LimitTrigger
from bridged.dataplane.portable.limits import FAILED_TAGS_END, KeyUse
from bridged.protocol.data_packet import (
    MAX_DATA_PACKET_ID,
    OVERHEAD_V1,
    OVERHEAD_V2,
    make_aead,
    serialize_data_header,
)
from bridged.protocol.key_derivation import DataKey
from bridged.protocol.replay import ReplayWindow
from bridged.units import KeyId, WirePeerId

LEAST_FRAME_OCTETS: Final = 14

Drop = Callable[[str], None]
"""Count one dropped packet by its reason."""


class KeySlot:
    """One key id of one peer: its AEAD objects, packet ids, replay window and use.

    Owns the DataKey, and zeroises it in `close`. A closed slot seals and opens nothing.
    """

    __slots__ = (
        "_header",
        "_key",
        "_open",
        "_open_iv",
        "_seal",
        "_seal_iv",
        "accepted",
        "next_id",
        "use",
        "window",
    )

    def __init__(self, key: DataKey, replay_window: int, use: KeyUse) -> None:
        self._key = key
        self._seal = make_aead(key.cipher, key.send_key).encrypt
        self._open = make_aead(key.cipher, key.receive_key).decrypt
        self._seal_iv = bytes(key.send_iv)
        self._open_iv = bytes(key.receive_iv)
        self._header = serialize_data_header(key.key_id, None)
        self.next_id = 1
        self.window = ReplayWindow(replay_window)
        self.use = use
        self.accepted = 0
        """Packets of the last `open` that were authentic and new, short ones included."""

    @property
    def key_id(self) -> KeyId:
        return self._key.key_id

    @property
    def cipher_name(self) -> str:
        return self._key.cipher.value

    @property
    def highest_packet_id(self) -> int:
        """Of both directions."""
        return max(self.next_id - 1, self.window.highest)

    def limit_reached(self) -> LimitTrigger | None:
        """Why the key should be replaced; told once."""
        use = self.use
        return use.trigger(self.highest_packet_id) if use.is_due() else None

    def address_to(self, peer_id: WirePeerId | None) -> None:
        """Write DATA_V2 with this peer id from now on, or DATA_V1."""
        self._header = serialize_data_header(self._key.key_id, peer_id)

    def close(self) -> None:
        """Overwrite the key. The AEAD objects' own copies go with them, as far as Python can say."""
        self._key.zeroise()
        self._seal = _closed
        self._open = _closed
        self._seal_iv = self._open_iv = b""

    def seal(self, payloads: Sequence[bytes]) -> list[bytes]:
        """The packets for these payloads (1 octet or more each), in order.

        Fewer than were given where the packet ids ran out: an id is never used twice.
        """
        header = self._header
        iv = self._seal_iv
        encrypt = self._seal
        number = self.next_id
        left = MAX_DATA_PACKET_ID + 1 - number
        if len(payloads) > left:
            payloads = payloads[:left]
        packets = []
        if len(header) == 1:
            for payload in payloads:
                identity = number.to_bytes(4, "big")
                sealed = encrypt(identity + iv, payload, identity)
                packets.append(header + identity + sealed[-16:] + sealed[:-16])
                number += 1
        else:
            for payload in payloads:
                identity = number.to_bytes(4, "big")
                additional = header + identity
                sealed = encrypt(identity + iv, payload, additional)
                packets.append(additional + sealed[-16:] + sealed[:-16])
                number += 1
        self.next_id = number
        self.use.count_sent(len(packets), sum(map(len, payloads)))
        return packets

    def seal_one(self, payload: bytes) -> bytes | None:
        """As `seal` for one payload; None where the packet ids ran out."""
        number = self.next_id
        if number > MAX_DATA_PACKET_ID:
            return None
        self.next_id = number + 1
        identity = number.to_bytes(4, "big")
        header = self._header
        sealed = self._seal(
            identity + self._seal_iv, payload, identity if len(header) == 1 else header + identity
        )
        use = self.use
        use.packets_sent += 1
        use.octets_sent += len(payload)
        return header + identity + sealed[-16:] + sealed[:-16]

    def open_next(self, packet: bytes) -> bytes | None:
        """The frame of a DATA_V2 packet, if it is the one awaited next; else None, and nothing is changed.

        None says nothing of the packet: ask `open`.
        """
        window = self.window
        if (
            len(packet) < OVERHEAD_V2 + LEAST_FRAME_OCTETS
            or int.from_bytes(packet[4:8], "big") != window.highest + 1
            or self.use.failed_tags >= FAILED_TAGS_END
        ):
            return None
        try:
            frame = self._open(
                packet[4:8] + self._open_iv, packet[OVERHEAD_V2:] + packet[8:OVERHEAD_V2], packet[:8]
            )
        except InvalidTag:
            return None
        window.accept_next(1)
        use = self.use
        use.packets_received += 1
        use.octets_received += len(packet)
        return frame

    def open(self, packets: Sequence[bytes], drop: Drop, *, is_v2: bool) -> list[bytes]:
        """The payloads of those packets that are authentic, new and long enough to be frames.

        Ids are recorded only of authentic packets. Every other packet is told to `drop`: `short_packet`,
        `tag_mismatch`, `replay`, `replay_too_old`, `short_frame`, `key_expired`. `accepted` says how
        many packets were authentic and new, those with short frames included.
        """
        self.accepted = 0
        if self.use.is_dead:
            for _ in packets:
                drop("key_expired")
            return []
        # DATA_V1 leaves its first octet unauthenticated.
        begin, at, body = (0, 4, OVERHEAD_V2) if is_v2 else (1, 1, OVERHEAD_V1)
        tag_at = at + 4
        least = body + LEAST_FRAME_OCTETS
        iv = self._open_iv
        decrypt = self._open
        expected = self.window.highest + 1
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
                    self.use.failed_tags += 1
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
            self._admit(packet, int.from_bytes(packet[at:tag_at], "big"), payload, body, drop, payloads)
            expected = self.window.highest + 1
        if following:
            self.window.accept_next(following)
            self.accepted += following
        self.use.count_received(len(packets), sum(map(len, packets)))
        return payloads

    def _admit(
        self, packet: bytes, number: int, payload: bytes, body: int, drop: Drop, payloads: list[bytes]
    ) -> None:
        """One authentic packet: check replay, then its length."""
        reason = self.window.verdict(number)
        if reason is None and len(packet) <= body:
            reason = "short_packet"
        if reason is not None:
            drop(reason)
            return
        self.window.accept(number)
        self.accepted += 1
        if len(payload) < LEAST_FRAME_OCTETS:
            drop("short_frame")
        else:
            payloads.append(payload)


def _closed(nonce: bytes, data: bytes, associated_data: bytes | None) -> bytes:
    raise InvalidTag
