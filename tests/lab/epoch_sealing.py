"""Seals one data packet in the epoch format: the reference that tests hold both data planes to.

Source: docs/protocol/data.md#2-3.
"""

from __future__ import annotations

from bridged.errors import LocalProtocolError
from bridged.protocol.packets.data_packet import Aead
from bridged.protocol.packets.epoch_packet import MAX_COUNTER, nonce


def seal_epoch(aead: Aead, iv: bytes, header: bytes, epoch: int, counter: int, payload: bytes) -> bytes:
    """Make a data packet. `aead` and `iv` are those of `epoch`; a counter is never reused in an epoch.

    Raises:
        LocalProtocolError: a counter that may not be sent, or an empty payload.
    """
    if not 1 <= counter <= MAX_COUNTER or not payload:
        raise LocalProtocolError(f"counter {counter} may not be sent, nor an empty payload")
    identity = epoch.to_bytes(2, "big") + counter.to_bytes(6, "big")
    return header + identity + aead.encrypt(nonce(iv, identity), payload, header + identity)
