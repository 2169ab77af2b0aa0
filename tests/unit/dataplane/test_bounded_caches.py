"""What peers can make the portable data plane remember has a limit."""

from __future__ import annotations

from typing import Any

from bridged.addresses import Endpoint
from bridged.dataplane.contract import PeerSettings
from bridged.dataplane.portable.headers.coalesce import _FOLDS, LENGTHS_REMEMBERED, Coalescer
from bridged.dataplane.portable.tables.key_use import KeyUse
from bridged.dataplane.portable.tables.keys import KeySlot
from bridged.dataplane.portable.tables.peers import IDS_REMEMBERED, Peer, PeerTable
from bridged.dataplane.portable.transport.seam import Path
from bridged.protocol.keys.cipher import Cipher
from bridged.protocol.keys.key_derivation import slice_keys
from bridged.protocol.packets.data_packet import serialize_data_header
from bridged.protocol.role import Role
from bridged.units import KeyId, PeerHandle, WirePeerId

NOWHERE: Any = None
"""What carries the packets of a peer that gets none."""


def segment(length: int, number: int) -> bytes:
    """A TCP segment in a frame of this length, 60 bytes or more; its checksums are wrong."""
    ip = bytes.fromhex("4500") + (length - 14).to_bytes(2, "big") + bytes.fromhex("0000400040060000")
    tcp = bytes(4) + number.to_bytes(4, "big") + bytes.fromhex("000000005010ffff00000000")
    addresses = bytes.fromhex("0200000000010200000000020800")
    return (addresses + ip + bytes([10, 0, 0, 1, 10, 0, 0, 2]) + tcp).ljust(length, b"\0")


def test_frames_of_all_lengths_leave_bounded_memory() -> None:
    coalescer = Coalescer(10)
    for length in range(60, 3000):
        coalescer.coalesce([segment(length, 1), segment(length, 1 + length - 54)])
    assert 0 < len(_FOLDS) <= LENGTHS_REMEMBERED
    assert len(coalescer._masks) <= 22


def slot(key_id: int) -> KeySlot:
    key = slice_keys(bytes(range(256)), Role.CLIENT, Cipher.AES_256_GCM, KeyId(key_id))
    return KeySlot(key, 64, KeyUse(is_aes_gcm=True))


def test_a_peer_that_writes_ever_other_ids_is_remembered_under_few_and_forgotten_with_its_keys() -> None:
    table = PeerTable()
    settings = PeerSettings(PeerHandle(1), "server", Endpoint("10.0.0.1", 1), None, None)
    peer = Peer(settings, Path(("10.0.0.1", 1), NOWHERE), 0.0)
    table.add(peer)
    for key_id in (0, 1):
        made = slot(key_id)
        table.install(peer, made)
        for wire_id in range(5000):
            table.remember(serialize_data_header(KeyId(key_id), WirePeerId(wire_id)), peer, made)
    assert len(table.receivers) == 2 * IDS_REMEMBERED
    table.drop_key(peer, KeyId(0))
    assert len(table.receivers) == IDS_REMEMBERED
    table.remove(peer)
    assert not table.receivers
