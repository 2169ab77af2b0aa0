"""All that carries packets of one tunnel: its UDP socket and its TCP connections."""

from __future__ import annotations

from collections.abc import Callable

from bridged.addresses import Endpoint
from bridged.dataplane.portable.transport.seam import Path
from bridged.dataplane.portable.transport.streams import Streams
from bridged.dataplane.portable.transport.udp import UdpTransport


class Wires:
    """Finds what carries packets to an endpoint. `drop(reason, packets)` hears of losses."""

    def __init__(self, udp: UdpTransport, streams: Streams, drop: Callable[[str, int], None]) -> None:
        self.udp = udp
        self.streams = streams
        self._drop = drop

    def path(self, endpoint: Endpoint) -> Path:
        """The path to an endpoint.

        Raises:
            OSError: it cannot be reached.
        """
        return self.streams.path(endpoint) if endpoint.transport == "tcp" else self.udp.path(endpoint)

    def send_to(self, packet: bytes, endpoint: Endpoint) -> None:
        """Send one control packet."""
        if endpoint.transport == "udp":
            self.udp.send_to(packet, endpoint)
        elif not self.streams.send_to(packet, endpoint):
            self._drop("unreachable", 1)
