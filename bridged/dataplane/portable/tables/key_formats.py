"""Which kind of slot a data key needs."""

from __future__ import annotations

from bridged.dataplane.portable.tables.cbc_keys import CbcSlot
from bridged.dataplane.portable.tables.epoch_keys import EpochSlot
from bridged.dataplane.portable.tables.key_use import KeyUse
from bridged.dataplane.portable.tables.keys import KeySlot
from bridged.dataplane.portable.tables.static_keys import StaticSlot
from bridged.protocol.keys.key_derivation import DataKey


def make_slot(key: DataKey, replay_window: int, use: KeyUse) -> KeySlot:
    """A slot that seals and opens as the key's format asks."""
    if key.is_epoch:
        return EpochSlot(key, replay_window, use)
    if key.static_time is not None:
        return StaticSlot(key, replay_window, use)
    kind = CbcSlot if key.cipher.is_cbc else KeySlot
    return kind(key, replay_window, use)
