"""Reports what the kernel's bridges learn, as it happens: which station is behind which port.

Source: rtnetlink(7), Linux `neighbour.h`, bridge(8) (`monitor fdb`).
In the event loop. When the kernel drops part of a burst, the loss is reported.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from bridged.addresses import MacAddress
from bridged.netlink.multicast import MulticastListener, attributes, messages

_RTM_NEWNEIGH: Final = 28
_RTM_DELNEIGH: Final = 29
_RTNLGRP_NEIGH: Final = 3
_AF_BRIDGE: Final = 7
_NUD_PERMANENT_OR_NOARP: Final = 0x80 | 0x40
_NDA_LLADDR: Final = 2
_NEIGHBOUR: Final = struct.Struct("=BxxxiHBB")
_MAC_OCTETS: Final = 6


@dataclass(frozen=True, slots=True)
class StationHeard:
    """A bridge has learned that `address` is behind the port with this interface index.

    `gone`: it has forgotten the station (aged, flushed) without learning another place.
    """

    address: MacAddress
    index: int
    gone: bool = False


class FdbWatch:
    """Calls `callback` in the event loop with what was learned, from `start` to `close`.

    `on_lost` is called when the kernel had to drop some of them.
    """

    def __init__(
        self, callback: Callable[[list[StationHeard]], None], on_lost: Callable[[], None] = lambda: None
    ) -> None:
        self._callback = callback
        self._listener = MulticastListener((_RTNLGRP_NEIGH,), self._take, on_lost)

    def start(self) -> None:
        """Begin to listen, in the network namespace of this thread.

        Raises:
            OSError: no netlink socket to be had.
        """
        self._listener.start()

    def close(self) -> None:
        self._listener.close()

    def _take(self, datagrams: list[bytes]) -> None:
        heard = [station for datagram in datagrams for station in parse_stations(datagram)]
        if heard:
            self._callback(heard)


def parse_stations(datagram: bytes) -> Iterator[StationHeard]:
    """The learned and forgotten stations in one datagram of the kernel; skips everything else."""
    for kind, body in messages(datagram):
        if kind not in (_RTM_NEWNEIGH, _RTM_DELNEIGH) or len(body) < _NEIGHBOUR.size:
            continue
        family, index, state, _, _ = _NEIGHBOUR.unpack_from(body)
        if family != _AF_BRIDGE or state & _NUD_PERMANENT_OR_NOARP:
            continue
        address = dict(attributes(body, _NEIGHBOUR.size)).get(_NDA_LLADDR, b"")
        if len(address) == _MAC_OCTETS:
            yield StationHeard(MacAddress(address), index, gone=kind == _RTM_DELNEIGH)
