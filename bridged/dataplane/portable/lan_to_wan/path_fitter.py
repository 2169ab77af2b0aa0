"""Probes the path to a peer with packets that nobody may cut, and fits TCP to what the paths of all bear.

Source: bridged/dataplane/contract/verbs.py (`probe_path`, `use_path_mtu`). Called with the loop's gate held.
"""

from __future__ import annotations

from typing import Final

from bridged.dataplane.portable.headers.mss import MssFitter
from bridged.dataplane.portable.lan_to_wan.too_big import outer_octets
from bridged.dataplane.portable.tables.peers import Peer, PeerTable
from bridged.dataplane.portable.transport.udp import UdpTransport

AROUND_TCP: Final = 14 + 4 + 20 + 20
"""Bytes of a frame around what TCP carries: Ethernet with a VLAN tag, IPv4, TCP."""


class PathFitter:
    """`limit`: the largest MSS as configured (0: any)."""

    def __init__(self, table: PeerTable, transport: UdpTransport, mss: MssFitter) -> None:
        self.limit = mss.limit
        self._table = table
        self._transport = transport
        self._mss = mss

    def probe(self, peer: Peer, payload: bytes, octets: int, now: float) -> int:
        """See `DataPlane.probe_path`."""
        slot = peer.sealing
        if slot is None or peer.fragment or peer.path.carrier.is_stream:
            return octets
        outer = outer_octets(peer)
        part = payload[: max(0, slot.payload_room(octets - outer) - peer.framing_octets)]
        packets = slot.seal(peer.packed(part, slot)) if part else []
        if not packets:
            return octets
        if not self._transport.send_whole(packets[0], peer.path):
            return 0
        peer.sent_at = now
        return outer + len(packets[0])

    def use(self, peer: Peer, octets: int) -> None:
        """See `DataPlane.use_path_mtu`."""
        peer.path_mtu = octets
        self.fit()

    def fit(self) -> None:
        """Lower the MSS to what the smallest known path bears."""
        if not self.limit:
            return
        fits = [self.limit]
        for peer in self._table.by_handle.values():
            if peer.path_mtu and peer.sealing is not None:
                room = peer.sealing.payload_room(peer.path_mtu - outer_octets(peer))
                fits.append(max(1, room - peer.framing_octets - AROUND_TCP))
        self._mss.limit = min(fits)
