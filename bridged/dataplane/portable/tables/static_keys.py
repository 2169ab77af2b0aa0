"""Seal and open whole batches under a static key.

Source: docs/protocol/data.md#2-4; docs/decisions/0115. Read `bridged.protocol.packets.static_packet`
first: it does the same for one packet.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from bridged.dataplane.portable.tables.cbc_keys import CbcSlot
from bridged.dataplane.portable.tables.key_use import KeyUse
from bridged.errors import RemoteProtocolError
from bridged.protocol.keys.key_derivation import DataKey
from bridged.protocol.keys.replay import ReplayWindow
from bridged.protocol.packets.cbc_packet import BLOCK, CbcHmac
from bridged.protocol.packets.data_packet import MAX_DATA_PACKET_ID
from bridged.protocol.packets.static_packet import marked_iv, open_static, seal_static


class StaticSlot(CbcSlot):
    """As `CbcSlot`. When the ids run out, they begin again with a later time.

    Packets of the peer with an older time are replays; with a newer one its ids begin again. Packets of ours
    that come back are known by their IV.
    """

    __slots__ = ("_newest", "_origin", "_time")

    def __init__(self, key: DataKey, replay_window: int, use: KeyUse) -> None:
        super().__init__(key, replay_window, use)
        assert key.static_time is not None
        self._time = key.static_time
        self._origin = bytes(key.static_origin)
        self._newest, highest = key.static_mark >> 32, key.static_mark & MAX_DATA_PACKET_ID
        self.window.begin_behind(highest)

    @property
    def replay_mark(self) -> int:
        return self._newest << 32 | self.window.highest

    @property
    def highest_packet_id(self) -> int:
        """They never run out."""
        return 0

    def seal(self, payloads: Sequence[bytes]) -> list[bytes]:
        if self._seal is None:
            return []
        packets = []
        for payload in payloads:
            if self.next_id > MAX_DATA_PACKET_ID:
                self._time, self.next_id = self._time + 1, 1
            packets.append(seal_static(self._seal, self._new_iv(), self.next_id, self._time, payload))
            self.next_id += 1
        self.use.count_sent(len(packets), sum(map(len, packets)))
        return packets

    def close(self) -> None:
        super().close()
        self._origin = b""

    def _new_iv(self) -> bytes:
        if self._origin:
            return marked_iv(self._origin, self.next_id, self._time)
        return os.urandom(BLOCK)

    def _open_one(self, key: CbcHmac, packet: bytes) -> tuple[int, bytes]:
        opened = open_static(key, packet)
        if opened.is_from(self._origin):
            raise RemoteProtocolError("reflected", "one of our own packets")
        if opened.packet_time < self._newest:
            raise RemoteProtocolError("replay_too_old", "it has an older time than packets before")
        if opened.packet_time > self._newest:
            self._newest = opened.packet_time
            self.window = ReplayWindow(self.window.size)
        return opened.packet_id, opened.payload
