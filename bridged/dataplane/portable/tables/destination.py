"""Where frames with one pair of addresses go.

Pure.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from bridged.dataplane.portable.control.counters import BROADCAST, MULTICAST, UNKNOWN_UNICAST
from bridged.dataplane.portable.tables.fdb import Entry
from bridged.dataplane.portable.tables.peers import Peer


class Destination(NamedTuple):
    """`kind` is an index of `control.counters.KINDS`; `drop` the drop reason if there is nowhere to go.

    `target` is the FDB entry that the destination rests on (None: a flood).
    """

    kind: int
    to_tap: bool = False
    peers: tuple[Peer, ...] = ()
    target: Entry | None = None
    drop: str | None = None


_BROADCAST_ADDRESS: Final = b"\xff" * 6


def flood_kind(addresses: bytes) -> int:
    """The kind of a frame whose destination is no known station; `addresses`: its first 12 bytes."""
    if addresses.startswith(_BROADCAST_ADDRESS):
        return BROADCAST
    return MULTICAST if addresses[0] & 1 else UNKNOWN_UNICAST
