"""The link layer of a tunnel: what is learned from a frame, and where it goes. It is chosen here.

Today that is a learning switch for every tunnel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from bridged.dataplane.contract import StationMoved
from bridged.dataplane.portable.tables.destination import Destination
from bridged.dataplane.portable.tables.fdb import Entry, Fdb
from bridged.dataplane.portable.tables.peers import Peer, PeerTable
from bridged.dataplane.portable.tables.switch import Switch
from bridged.units import MonotonicSeconds


class LinkLayer(Protocol):
    """Decides for frames by their first 12 bytes (`addresses`). `ingress` None: they came from the TAP.

    An answer holds until `fdb.version` changes, the set of peers changes, or an entry it rests on ages.
    """

    fdb: Fdb

    def learn(self, ingress: Peer | None, addresses: bytes, now: MonotonicSeconds) -> str | None:
        """Take note of the source; None if the frame may pass, else the drop reason (see `Fdb.learn`)."""

    def source(self, addresses: bytes, now: MonotonicSeconds) -> Entry | None:
        """The source's entry, if it has one."""

    def destination(self, ingress: Peer | None, addresses: bytes, now: MonotonicSeconds) -> Destination:
        """Where the frame goes."""


def create_link_layer(
    fdb: Fdb, table: PeerTable, tell: Callable[[StationMoved], None], *, forward_between_peers: bool
) -> LinkLayer:
    """The link layer of a new data plane. `tell` hears of stations that moved."""
    return Switch(fdb, table, tell, forward_between_peers=forward_between_peers)
