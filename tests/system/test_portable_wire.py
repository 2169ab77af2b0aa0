"""The portable data plane's socket on a real path: what the kernel refuses is done otherwise, and counted."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import pytest

from bridged.addresses import Endpoint
from bridged.dataplane.portable.control.counters import BatchSizes, new_batch_sizes
from bridged.dataplane.portable.transport.seam import Path
from bridged.dataplane.portable.transport.udp import SEGMENT_RETRY_SECONDS, UdpTransport
from bridged.units import Octets
from tests.lab import Lab, TwoSites

pytestmark = pytest.mark.root


@dataclass
class Line:
    """Our socket at one end of a path of 1500 bytes, a plain one at the other."""

    wire: UdpTransport
    far: socket.socket
    path: Path
    sizes: Mapping[str, BatchSizes]
    drops: list[tuple[str, int]] = field(default_factory=list)

    def arrived(self, count: int) -> list[bytes]:
        found: list[bytes] = []
        while len(found) < count and select.select([self.far], [], [], 3)[0]:
            found.append(self.far.recv(65535))
        return found


@pytest.fixture
def line() -> Iterator[Line]:
    with Lab("wire") as lab:
        sites = TwoSites(lab, wan_mtu=1500, bridges=False)
        drops: list[tuple[str, int]] = []
        sizes = new_batch_sizes()
        with sites.a.namespace.entered():
            wire = UdpTransport(
                Endpoint(sites.a.wan_ipv4, 0),
                Octets(1 << 20),
                lambda reason, count: drops.append((reason, count)),
                sizes,
            )
            wire.open()
        with sites.b.namespace.entered():
            far = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        far.bind((sites.b.wan_ipv4, 0))
        far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        yield Line(wire, far, Path(far.getsockname(), wire), sizes, drops)
        wire.close()
        far.close()


def packets(count: int, size: int) -> list[bytes]:
    return [bytes([number]) * size for number in range(count)]


def test_equal_packets_go_in_one_call_and_arrive_one_by_one(line: Line) -> None:
    sent = [*packets(40, 1400), b"shorter", b"longer than that"]
    assert line.wire.send(sent, line.path, 0.0) == sum(map(len, sent))
    assert line.arrived(42) == sent
    histogram = line.sizes["segments_per_send"].histogram()
    assert sum(histogram.counts) == 2
    assert line.wire.fallbacks == {}


def test_packets_too_large_to_be_segmented_are_sent_singly_and_fragmented(line: Line) -> None:
    sent = packets(10, 1600)
    assert line.wire.send(sent, line.path, 0.0) == 16_000
    assert line.arrived(10) == sent
    assert sum(line.wire.fallbacks.values()) == 1
    assert {name for name, _ in line.wire.fallbacks} == {"udp_gso"}
    line.wire.send(sent, line.path, 1.0)
    assert line.arrived(10) == sent
    assert sum(line.wire.fallbacks.values()) == 1, "the size that failed is remembered"
    smaller = packets(10, 1400)
    line.wire.send(smaller, line.path, 1.0)
    assert line.arrived(10) == smaller
    assert line.sizes["segments_per_send"].histogram().counts[4] == 1, "smaller ones still go together"
    line.wire.send(sent, line.path, SEGMENT_RETRY_SECONDS + 1)
    assert line.arrived(10) == sent
    assert sum(line.wire.fallbacks.values()) == 2, "the path may have changed: tried again after a while"
    assert line.drops == []


def test_more_than_the_kernel_takes_at_once_is_split(line: Line) -> None:
    for count, size in ((200, 100), (90, 1400)):
        sent = packets(count, size)
        assert line.wire.send(sent, line.path, 0.0) == count * size
        assert line.arrived(count) == sent
    assert line.drops == []


def test_an_unreachable_destination_is_a_counted_drop(line: Line) -> None:
    path = Path(("192.0.2.77", 9), line.wire)
    assert line.wire.send(packets(3, 100), path, 0.0) == 0
    assert sum(count for reason, count in line.drops if reason == "unreachable") == 3
    line.wire.send_to(b"x", Endpoint("2001:db8::1", 9))
    assert line.drops[-1] == ("unreachable", 1)


def test_a_closed_socket_drops_and_gives_nothing(line: Line) -> None:
    line.wire.close()
    assert line.wire.send(packets(3, 100), line.path, 0.0) == 0
    assert sum(count for _, count in line.drops) == 3
    assert line.wire.receive() is None
    assert line.wire.local_endpoint is None
