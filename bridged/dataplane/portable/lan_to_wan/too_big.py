"""Frames that are too large for their peer's path: what must not be cut is answered, so that its host sends
smaller ones; IPv4 that may be cut is cut, as a router does.

Source: `headers.too_big`, `headers.ipv4_cut`; decisions 104 and 108.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from bridged.dataplane.portable.control.allowance import Allowance
from bridged.dataplane.portable.control.counters import DropCounter
from bridged.dataplane.portable.headers.ipv4_cut import cut_ipv4
from bridged.dataplane.portable.headers.too_big import answer
from bridged.dataplane.portable.tables.peers import Peer

SMALL_OCTETS: Final = 512
"""Frames up to this many bytes fit every path."""
SOURCES: Final = 256
"""Stations whose answers are limited one by one."""
BURST: Final = 32
PER_SECOND: Final = 16
TOTAL: Final = 256
"""Answers to all stations, at once and a second: a station can make up source addresses."""


Tell = Callable[[bytes], None]
"""Takes an answer to where its cause came from."""


def outer_octets(peer: Peer) -> int:
    """Bytes of IP and UDP header around a packet to the peer."""
    return 48 if peer.endpoint.is_ipv6 else 28


class TooBig:
    """Makes frames fit. `wan_mtu`: bytes of the largest outer packet (0: not known, everything fits), where a
    peer's `path_mtu` is not known.

    `counts`: those of `mtu_events`.
    """

    def __init__(self, wan_mtu: int, drops: DropCounter, counts: dict[str, int]) -> None:
        self.wan_mtu = wan_mtu
        self._drops = drops
        self._counts = counts
        self._stations: OrderedDict[bytes, Allowance] = OrderedDict()
        self._total = Allowance(TOTAL, TOTAL)

    def fitted(self, peer: Peer, frames: list[bytes], now: float, tell: Tell | None) -> list[bytes]:
        """The frames that go to this peer, some of them cut; others are dropped, and mostly answered.

        `tell` None: nothing is answered, since several peers may have the destination.
        """
        if max(map(len, frames)) <= SMALL_OCTETS or not self.wan_mtu:
            return frames
        fit = self._fit(peer)
        if fit is None or max(map(len, frames)) <= fit:
            return frames
        fitting: list[bytes] = []
        for frame in frames:
            if len(frame) <= fit:
                fitting.append(frame)
            elif tell is None or not self._refuses(peer, frame, fit, now, tell):
                fitting += self._cut(frame, fit)
        return fitting

    def _cut(self, frame: bytes, fit: int) -> list[bytes]:
        parts = cut_ipv4(frame, fit)
        if parts is None:
            return [frame]
        self._counts["ipv4_cut"] += 1
        return parts

    def _fit(self, peer: Peer) -> int | None:
        """Bytes of the largest frame that crosses the peer's path in one piece; None: any."""
        slot = peer.sealing
        # A stream has no largest packet, and what `fragment` cuts needs no answer.
        if slot is None or peer.fragment or peer.path.carrier.is_stream:
            return None
        outer = outer_octets(peer)
        return slot.payload_room((peer.path_mtu or self.wan_mtu) - outer) - peer.framing_octets

    def _refuses(self, peer: Peer, frame: bytes, fit: int, now: float, tell: Tell) -> bool:
        answered = answer(frame, fit)
        if answered is None:
            return False
        self._drops.count("transmit", "too_big", 1, peer.traffic.drops)
        if self._may_answer(frame[6:12], now):
            tell(answered)
            self._counts["too_big_answered"] += 1
        return True

    def _may_answer(self, station: bytes, now: float) -> bool:
        allowance = self._stations.pop(station, None) or Allowance(BURST, PER_SECOND)
        self._stations[station] = allowance
        if len(self._stations) > SOURCES:
            self._stations.popitem(last=False)
        return allowance.take(now) and self._total.take(now)
