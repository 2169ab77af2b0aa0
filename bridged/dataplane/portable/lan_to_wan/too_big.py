"""Answers frames that are too large for their peer's path, so that their host sends smaller ones.

Source: `headers.too_big`; decision 104.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from bridged.dataplane.portable.control.allowance import Allowance
from bridged.dataplane.portable.control.counters import DropCounter
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
IPV4_AND_UDP: Final = 28
IPV6_AND_UDP: Final = 48


class TooBig:
    """Refuses frames. `wan_mtu`: bytes of the largest outer packet (0: not known, nothing is refused).

    `write` takes answers into the LAN; `counts`: those of `mtu_events`.
    """

    def __init__(
        self, wan_mtu: int, write: Callable[[bytes], None], drops: DropCounter, counts: dict[str, int]
    ) -> None:
        self.wan_mtu = wan_mtu
        self._write = write
        self._drops = drops
        self._counts = counts
        self._stations: OrderedDict[bytes, Allowance] = OrderedDict()
        self._total = Allowance(TOTAL, TOTAL)

    def without_refused(self, peer: Peer, frames: list[bytes], now: float) -> list[bytes]:
        """The frames that go to this peer; the others are dropped, and mostly answered."""
        if max(map(len, frames)) <= SMALL_OCTETS or not self.wan_mtu:
            return frames
        fit = self._fit(peer)
        if fit is None or max(map(len, frames)) <= fit:
            return frames
        return [frame for frame in frames if len(frame) <= fit or not self._refuses(peer, frame, fit, now)]

    def _fit(self, peer: Peer) -> int | None:
        """Bytes of the largest frame that crosses the peer's path in one piece; None: any."""
        slot = peer.sealing
        # A stream has no largest packet, and what `fragment` cuts needs no answer.
        if slot is None or peer.fragment or peer.path.carrier.is_stream:
            return None
        outer = IPV6_AND_UDP if peer.endpoint.is_ipv6 else IPV4_AND_UDP
        return slot.payload_room(self.wan_mtu - outer) - peer.framing_octets

    def _refuses(self, peer: Peer, frame: bytes, fit: int, now: float) -> bool:
        answered = answer(frame, fit)
        if answered is None:
            return False
        self._drops.count("transmit", "too_big", 1, peer.traffic.drops)
        if self._may_answer(frame[6:12], now):
            self._write(answered)
            self._counts["too_big_answered"] += 1
        return True

    def _may_answer(self, station: bytes, now: float) -> bool:
        allowance = self._stations.pop(station, None) or Allowance(BURST, PER_SECOND)
        self._stations[station] = allowance
        if len(self._stations) > SOURCES:
            self._stations.popitem(last=False)
        return allowance.take(now) and self._total.take(now)
