"""Seal and open whole batches under one data key with a CBC cipher and an HMAC.

Source: docs/protocol/data.md#2-2. Read `bridged.protocol.packets.cbc_packet` first: it does the
same for one packet.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from bridged.dataplane.portable.tables.keys import NEVER, Drop, KeySlot
from bridged.errors import RemoteProtocolError
from bridged.protocol.keys.key_derivation import DataKey
from bridged.protocol.packets.cbc_packet import BLOCK, CbcHmac, open_cbc, seal_cbc
from bridged.protocol.packets.data_packet import MAX_DATA_PACKET_ID, PACKET_ID_LENGTH


class CbcSlot(KeySlot):
    """As `KeySlot`. Lone packets take no short cut: `seal_one` and `open_next` leave all to batches."""

    __slots__ = ("_open", "_seal")

    def _make_ciphers(self, key: DataKey) -> None:
        assert key.digest is not None
        self._seal: CbcHmac | None = CbcHmac(key.send_key, key.digest, key.send_hmac)
        self._open: CbcHmac | None = CbcHmac(key.receive_key, key.digest, key.receive_hmac)

    def payload_room(self, packet: int) -> int:
        assert self._seal is not None
        blocks = (packet - len(self.header) - self._seal.mac_length - BLOCK) // BLOCK
        return blocks * BLOCK - PACKET_ID_LENGTH - 1

    def close(self) -> None:
        self._key.zeroise()
        self._seal = self._open = None

    def seal(self, payloads: Sequence[bytes]) -> list[bytes]:
        if self._seal is None:
            return []
        packets = []
        for payload in payloads[: MAX_DATA_PACKET_ID + 1 - self.next_id]:
            packets.append(seal_cbc(self._seal, os.urandom(BLOCK), self.header, self.next_id, payload))
            self.next_id += 1
        self.use.count_sent(len(packets), sum(map(len, packets)))
        return packets

    def seal_one(self, payload: bytes) -> bytes | None:
        return None

    def open_next(self, packet: bytes) -> bytes | None:
        return None

    def open(self, packets: Sequence[bytes], drop: Drop, *, is_v2: bool) -> list[bytes]:
        self.accepted = 0
        if self.use.is_dead or self._open is None:
            self.awaited = NEVER
            for _ in packets:
                drop("key_expired")
            return []
        octets = 0
        payloads: list[bytes] = []
        for packet in packets:
            try:
                number, payload = self._open_one(self._open, packet)
            except RemoteProtocolError as error:
                if error.code == "tag_mismatch":
                    self.use.count_failed()
                drop(error.code)
                continue
            before = self.accepted
            self._admit(number, payload, drop, payloads, is_empty=False)
            octets += (self.accepted - before) * len(packet)
        self.awaited = self.window.highest + 1
        self.use.count_received(self.accepted, octets)
        return payloads

    def _open_one(self, key: CbcHmac, packet: bytes) -> tuple[int, bytes]:
        """Packet id and payload of an authentic packet.

        Raises:
            RemoteProtocolError: the drop reason.
        """
        opened = open_cbc(key, packet)
        return opened.packet_id, opened.payload
