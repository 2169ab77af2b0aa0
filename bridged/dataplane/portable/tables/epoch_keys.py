"""Seal and open whole batches under one data key in the epoch format.

Source: docs/protocol/data.md#2-3. Read `bridged.protocol.packets.epoch_packet` first: it opens one packet.
Tests compare the two, and what is sealed with `tests/lab/epoch_sealing.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from cryptography.exceptions import InvalidTag

from bridged.dataplane.portable.tables.key_use import AEAD_BLOCK_OCTETS, AES_GCM_RENEGOTIATE, KeyUse
from bridged.dataplane.portable.tables.keys import LEAST_FRAME_OCTETS, NEVER, Drop, KeySlot
from bridged.errors import RemoteProtocolError
from bridged.protocol.keys.epoch_keys import FUTURE_EPOCHS, LAST_EPOCH, RENEGOTIATE_EPOCH, EpochKey
from bridged.protocol.keys.key_derivation import DataKey
from bridged.protocol.keys.replay import ReplayWindow
from bridged.protocol.packets.data_packet import (
    HEADER_V1,
    HEADER_V2,
    RENEGOTIATE_PACKET_ID,
    TAG_LENGTH,
    make_aead,
)
from bridged.protocol.packets.epoch_packet import IDENTITY_LENGTH, MAX_COUNTER, open_epoch, parse_epoch

_COUNTER_BITS: Final = 48
COUNTER_END: Final = MAX_COUNTER - (1 << 20)
"""The next epoch begins from this counter on. A batch has far fewer packets than are left then."""
_TEXT_V2: Final = HEADER_V2 + IDENTITY_LENGTH
_LEAST_V2_OCTETS: Final = _TEXT_V2 + TAG_LENGTH + LEAST_FRAME_OCTETS


class _Receiving:
    """One epoch of the peer: what opens its packets, and those that were seen."""

    def __init__(self, key: EpochKey, replay_window: int) -> None:
        self.key = key
        self.iv = key.iv
        self.aead = make_aead(key.cipher, key.cipher_key)
        self.window = ReplayWindow(replay_window)

    def awaited(self) -> int:
        """The identity behind the highest received."""
        return _identity(self.key.epoch, self.window.highest + 1)


class EpochSlot(KeySlot):
    """As `KeySlot`, whose packet ids are identities here: an epoch, and in the lower 48 bits a counter.

    A nonce is the identity XOR a mask, and the rest of the IV behind it; mask and rest are those of an epoch.
    `window` and `decrypt` are those of the peer's present epoch, `encrypt` that of ours.
    """

    __slots__ = ("_before", "_future", "_now", "_open_mask", "_seal_mask", "_size", "_spent", "sending")

    def __init__(self, key: DataKey, replay_window: int, use: KeyUse) -> None:
        super().__init__(key, replay_window, use)
        self._size = replay_window
        self._before: _Receiving | None = None
        self._future: list[_Receiving] = []
        self._send_in(EpochKey(1, bytes(key.send_key), key.cipher))
        self._receive_in(_Receiving(EpochKey(1, bytes(key.receive_key), key.cipher), replay_window))

    def _make_ciphers(self, key: DataKey) -> None:
        """Each epoch has its own."""

    def _send_in(self, key: EpochKey) -> None:
        self.sending = key
        self.encrypt = make_aead(key.cipher, key.cipher_key).encrypt
        self._seal_mask, self.seal_iv = _mask_and_rest(key.iv)
        self.next_id = _identity(key.epoch, 1)
        self._spent = self._blocks_sent()

    def _receive_in(self, epoch: _Receiving) -> None:
        self._now: _Receiving | None = epoch
        self.window, self.decrypt = epoch.window, epoch.aead.decrypt
        self._open_mask, self.open_iv = _mask_and_rest(epoch.iv)
        self.awaited = epoch.awaited()
        latest = self._future[-1] if self._future else epoch
        while len(self._future) < FUTURE_EPOCHS and latest.key.epoch < LAST_EPOCH:
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
        super().close()
        self._now = self._before = None
        self._future.clear()
        self.sending = EpochKey(0, b"", self._key.cipher)

    def _blocks_sent(self) -> int:
        """Blocks and packets of all epochs, or a few more."""
        return self.use.octets_sent // AEAD_BLOCK_OCTETS + 2 * self.use.packets_sent

    def _is_worn(self) -> bool:
        is_full = self._key.cipher.is_aes_gcm and self._blocks_sent() - self._spent >= AES_GCM_RENEGOTIATE
        return is_full or self.next_id & MAX_COUNTER >= COUNTER_END

    def seal(self, payloads: Sequence[bytes]) -> list[bytes]:
        if self._now is None:
            return []
        if self._is_worn():
            if self.sending.epoch >= LAST_EPOCH:
                return []
            self._send_in(self.sending.next())
        header, mask, rest = self.header, self._seal_mask, self.seal_iv
        encrypt = self.encrypt
        number = self.next_id
        packets = []
        for payload in payloads:
            front = header + number.to_bytes(8, "big")
            packets.append(front + encrypt((number ^ mask).to_bytes(8, "big") + rest, payload, front))
            number += 1
        self.next_id = number
        self.use.count_sent(len(packets), sum(map(len, packets)))
        return packets

    def seal_one(self, payload: bytes) -> bytes | None:
        number, use = self.next_id, self.use
        # Whether the epoch is worn is looked at in `seal`, which is soon enough.
        if use.packets_sent >= use.due_sent:
            return None
        self.next_id = number + 1
        front = self.header + number.to_bytes(8, "big")
        nonce = (number ^ self._seal_mask).to_bytes(8, "big") + self.seal_iv
        packet = front + self.encrypt(nonce, payload, front)
        use.packets_sent += 1
        use.octets_sent += len(packet)
        return packet

    def open_next(self, packet: bytes) -> bytes | None:
        number, use = int.from_bytes(packet[HEADER_V2:_TEXT_V2], "big"), self.use
        if (
            number != self.awaited
            or len(packet) < _LEAST_V2_OCTETS
            or use.packets_received >= use.due_received
        ):
            return None
        nonce = (number ^ self._open_mask).to_bytes(8, "big") + self.open_iv
        try:
            payload = self.decrypt(nonce, packet[_TEXT_V2:], packet[:_TEXT_V2])
        except InvalidTag:
            return None
        self.awaited = number + 1
        self.following += 1
        use.packets_received += 1
        use.octets_received += len(packet)
        return payload

    def open(self, packets: Sequence[bytes], drop: Drop, *, is_v2: bool) -> list[bytes]:
        self.accepted = 0
        if self.use.is_dead or self._now is None:
            self.awaited = NEVER
            for _ in packets:
                drop("key_expired")
            return []
        at = HEADER_V2 if is_v2 else HEADER_V1
        text_at = at + IDENTITY_LENGTH
        least = text_at + TAG_LENGTH + self.least_payload
        octets = 0
        payloads: list[bytes] = []
        for packet in packets:
            number = int.from_bytes(packet[at:text_at], "big")
            if number != self.awaited or len(packet) < least:
                octets += self._open_other(packet, drop, payloads)
                continue
            nonce = (number ^ self._open_mask).to_bytes(8, "big") + self.open_iv
            try:
                payloads.append(self.decrypt(nonce, packet[text_at:], packet[:text_at]))
            except InvalidTag:
                self.use.count_failed()
                drop("tag_mismatch")
                continue
            self.awaited = number + 1
            self.following += 1
            self.accepted += 1
            octets += len(packet)
        self._settle()
        self.use.count_received(self.accepted, octets)
        return payloads

    def _open_other(self, packet: bytes, drop: Drop, payloads: list[bytes]) -> int:
        """One packet that is not the next in order, or short; its bytes if it was authentic and new."""
        self._settle()
        try:
            _, number, counter = parse_epoch(packet)
            epoch = self._find(number)
            if epoch is None:
                drop("replay_too_old" if number < self.awaited >> _COUNTER_BITS else "unknown_key_id")
                return 0
            payload = open_epoch(epoch.aead, epoch.iv, packet).payload
        except RemoteProtocolError as error:
            if error.code == "tag_mismatch":
                self.use.count_failed()
            drop(error.code)
            return 0
        if not self._admit_in(epoch, counter, payload, drop, payloads):
            return 0
        return len(packet)

    def _find(self, epoch: int) -> _Receiving | None:
        known = (self._now, self._before, *self._future)
        return next((one for one in known if one is not None and one.key.epoch == epoch), None)

    def _admit_in(
        self, epoch: _Receiving, counter: int, payload: bytes, drop: Drop, payloads: list[bytes]
    ) -> bool:
        """One authentic packet: follow its epoch, check replay, then its length; whether it was new."""
        if epoch in self._future:
            self._follow(epoch)
        reason = epoch.window.verdict(counter)
        if reason is not None:
            drop(reason)
            return False
        self.use.note_order(counter, epoch.window.highest)
        epoch.window.accept(counter)
        if epoch is self._now:
            self.awaited = epoch.awaited()
        self.accepted += 1
        if len(payload) < self.least_payload:
            drop("short_frame")
        else:
            payloads.append(payload)
        return True

    def _follow(self, epoch: _Receiving) -> None:
        """The peer seals in this later epoch now; so do we."""
        self._before = self._now
        del self._future[: self._future.index(epoch) + 1]
        self._receive_in(epoch)
        sending = self.sending
        while sending.epoch < epoch.key.epoch:
            sending = sending.next()
        if sending is not self.sending:
            self._send_in(sending)


def _identity(epoch: int, counter: int) -> int:
    return epoch << _COUNTER_BITS | counter


def _mask_and_rest(iv: bytes) -> tuple[int, bytes]:
    return int.from_bytes(iv[:IDENTITY_LENGTH], "big"), iv[IDENTITY_LENGTH:]
