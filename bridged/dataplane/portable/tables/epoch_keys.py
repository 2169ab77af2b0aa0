"""Seal and open whole batches under one data key in the epoch format.

Source: docs/protocol/data.md#2-3. Read `bridged.protocol.packets.epoch_packet` first: it does the same for
one packet.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from bridged.dataplane.portable.tables.key_use import AES_GCM_RENEGOTIATE
from bridged.dataplane.portable.tables.keys import NEVER, Drop, KeySlot
from bridged.errors import RemoteProtocolError
from bridged.protocol.keys.epoch_keys import FUTURE_EPOCHS, LAST_EPOCH, RENEGOTIATE_EPOCH, EpochKey
from bridged.protocol.keys.key_derivation import DataKey
from bridged.protocol.keys.replay import ReplayWindow
from bridged.protocol.packets.data_packet import RENEGOTIATE_PACKET_ID, TAG_LENGTH, make_aead
from bridged.protocol.packets.epoch_packet import (
    IDENTITY_LENGTH,
    MAX_COUNTER,
    open_epoch,
    parse_epoch,
    seal_epoch,
)

COUNTER_END: Final = MAX_COUNTER - (1 << 20)
"""The next epoch begins from this counter on."""


class _Receiving:
    """One epoch of the peer: what opens its packets, and those that were seen."""

    def __init__(self, key: EpochKey, replay_window: int) -> None:
        self.key = key
        self.iv = key.iv
        self.aead = make_aead(key.cipher, key.cipher_key)
        self.window = ReplayWindow(replay_window)


class EpochSlot(KeySlot):
    """As `KeySlot`. Lone packets take no short cut: `seal_one` and `open_next` leave all to batches."""

    __slots__ = ("_before", "_future", "_now", "_sealer", "_size", "_used", "sending")

    def _make_ciphers(self, key: DataKey) -> None:
        self._size = 0
        self._now: _Receiving | None = None
        self._before: _Receiving | None = None
        self._future: list[_Receiving] = []
        self._send_in(EpochKey(1, bytes(key.send_key), key.cipher))

    def start(self, replay_window: int) -> None:
        """Prepare the epochs of the peer; to be called once."""
        self._size = replay_window
        self._now = _Receiving(EpochKey(1, bytes(self._key.receive_key), self._key.cipher), replay_window)
        self._look_ahead()

    def _send_in(self, key: EpochKey) -> None:
        self.sending = key
        self.seal_iv = key.iv
        self._sealer = make_aead(key.cipher, key.cipher_key)
        self.next_id = 1
        self._used = 0

    def _look_ahead(self) -> None:
        latest = self._future[-1] if self._future else self._now
        while latest is not None and len(self._future) < FUTURE_EPOCHS and latest.key.epoch < LAST_EPOCH:
            latest = _Receiving(latest.key.next(), self._size)
            self._future.append(latest)

    @property
    def highest_packet_id(self) -> int:
        """As a share of all epochs; from RENEGOTIATE_EPOCH on RENEGOTIATE_PACKET_ID."""
        received = self._now.key.epoch if self._now is not None else 0
        return max(self.sending.epoch, received) * (RENEGOTIATE_PACKET_ID // RENEGOTIATE_EPOCH)

    def payload_room(self, packet: int) -> int:
        return packet - len(self.header) - IDENTITY_LENGTH - TAG_LENGTH

    def close(self) -> None:
        self._key.zeroise()
        self._now = self._before = None
        self._future.clear()
        self.sending = EpochKey(0, b"", self._key.cipher)

    def _is_worn(self) -> bool:
        is_full = self._key.cipher.is_aes_gcm and self._used >= AES_GCM_RENEGOTIATE
        return is_full or self.next_id >= COUNTER_END

    def seal(self, payloads: Sequence[bytes]) -> list[bytes]:
        if not self.sending.epoch:
            return []
        packets = []
        for payload in payloads:
            if self._is_worn():
                if self.sending.epoch >= LAST_EPOCH:
                    break
                self._send_in(self.sending.next())
            iv, epoch = self.seal_iv, self.sending.epoch
            packets.append(seal_epoch(self._sealer, iv, self.header, epoch, self.next_id, payload))
            self.next_id += 1
            self._used += 2 + len(payload) // 16
        self.use.count_sent(len(packets), sum(map(len, packets)))
        return packets

    def seal_one(self, payload: bytes) -> bytes | None:
        return None

    def open_next(self, packet: bytes) -> bytes | None:
        return None

    def _find(self, epoch: int) -> _Receiving | None:
        known = (self._now, self._before, *self._future)
        return next((one for one in known if one is not None and one.key.epoch == epoch), None)

    def open(self, packets: Sequence[bytes], drop: Drop, *, is_v2: bool) -> list[bytes]:
        self.accepted = 0
        if self.use.is_dead or self._now is None:
            self.awaited = NEVER
            for _ in packets:
                drop("key_expired")
            return []
        octets = 0
        payloads: list[bytes] = []
        for packet in packets:
            try:
                _, number, counter = parse_epoch(packet)
                epoch = self._find(number)
                if epoch is None:
                    drop("replay_too_old" if number < self._now.key.epoch else "unknown_key_id")
                    continue
                payload = open_epoch(epoch.aead, epoch.iv, packet).payload
            except RemoteProtocolError as error:
                if error.code == "tag_mismatch":
                    self.use.count_failed()
                drop(error.code)
                continue
            if self._admit_in(epoch, counter, payload, drop, payloads):
                octets += len(packet)
        self.use.count_received(self.accepted, octets)
        return payloads

    def _admit_in(
        self, epoch: _Receiving, counter: int, payload: bytes, drop: Drop, payloads: list[bytes]
    ) -> bool:
        """One authentic packet: follow its epoch, check replay, then its length; whether it was new."""
        if epoch in self._future:
            self._before, self._now = self._now, epoch
            del self._future[: self._future.index(epoch) + 1]
            self._look_ahead()
            if epoch.key.epoch > self.sending.epoch:
                sending = self.sending
                while sending.epoch < epoch.key.epoch:
                    sending = sending.next()
                self._send_in(sending)
        reason = epoch.window.verdict(counter)
        if reason is not None:
            drop(reason)
            return False
        self.use.note_order(counter, epoch.window.highest)
        epoch.window.accept(counter)
        self.accepted += 1
        if len(payload) < self.least_payload:
            drop("short_frame")
        else:
            payloads.append(payload)
        return True
