"""What is measured between two hosts: TCP, small packets per second, the round trip, processor time.

Every measure returns a `Reading`: one number, and what else was seen. `Measure` says what it is of, and what
ours / theirs must reach.
"""

from __future__ import annotations

import contextlib
import re
import socket
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.processor import Stopwatch
from tests.lab.host_settings import CONGESTION_WANTED
from tests.lab.iperf import iperf3
from tests.lab.namespace import Namespace
from tests.lab.topology import HOST_PORT, Host
from tests.lab.waiting import LabError

SOURCE = str(Path(__file__).with_name("udp_source.py"))
UDP_PORT = 9
UDP_PAYLOAD_OCTETS = 22  # 14 + 20 + 8 + 22 = 64 bytes of Ethernet frame, without FCS
PROBE_SECONDS = 0.5
RATE_FIRST = 30_000.0
RATE_STEP = 1.35
RATE_LAST = 1_500_000.0
ROUND_TRIPS = 1500
FLOOD_PINGS_PER_SECOND = 2500
STREAMS = 4
GIGABYTE = 1e9


@dataclass(frozen=True, slots=True)
class Joined:
    """Two hosts that a tunnel joins, and the process ids of the tunnel's programs (none: the kernel)."""

    sender: Host
    receiver: Host
    programs: tuple[int, ...] = ()
    congestion: str = CONGESTION_WANTED
    """Of the hosts' TCP; already one that this kernel has."""


@dataclass(frozen=True, slots=True)
class Reading:
    """The measured number, and further figures by name for the record."""

    value: float
    details: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Measure:
    """`take(joined, seconds)` measures. A bar is the least ours / theirs where `higher_is_better`, else the
    largest.

    `bar`: of the portable data plane against OpenVPN. `native_bars`: by peer; a peer that is not in there is
    quoted only.
    """

    name: str
    unit: str
    take: Callable[[Joined, float], Reading]
    bar: float | None
    higher_is_better: bool
    native_bars: Mapping[str, float] = field(default_factory=dict)
    digits: int = 0

    def bar_for(self, dataplane: str, peer: str) -> float | None:
        if dataplane == "native":
            return self.native_bars.get(peer)
        return self.bar if peer in ("openvpn", "bridged") else None

    def reaches(self, ratio: float, bar: float) -> bool:
        return ratio >= bar if self.higher_is_better else ratio <= bar


def prepare(host: Host) -> None:
    """Make datagrams leave the host one by one, as a network card's frames come in."""
    host.namespace.run("ethtool", "-K", HOST_PORT, "tx-udp-segmentation", "off")


def tcp_stream(joined: Joined, seconds: float) -> Reading:
    """One TCP connection, Mbit/s of payload that arrived."""
    return Reading(_iperf(joined, seconds, "-O", "1")["sum_received"]["bits_per_second"] / 1e6)


def tcp_streams(joined: Joined, seconds: float) -> Reading:
    """STREAMS connections in one direction, Mbit/s: so many that none of them waits for itself."""
    end = _iperf(joined, seconds, "-O", "1", "-P", str(STREAMS))
    return Reading(end["sum_received"]["bits_per_second"] / 1e6)


def tcp_of_many(joined: Joined, seconds: float, streams: int) -> Reading:
    """So many connections in one direction behind their first two seconds, Mbit/s."""
    end = _iperf(joined, seconds, "-O", "2", "-P", str(streams))
    return Reading(
        end["sum_received"]["bits_per_second"] / 1e6, {"retransmits": end["sum_sent"]["retransmits"]}
    )


def tcp_both_ways(joined: Joined, seconds: float) -> Reading:
    """STREAMS connections in each direction at once; the sum of both directions, Mbit/s."""
    end = _iperf(joined, seconds, "-O", "1", "--bidir", "-P", str(STREAMS))
    ways = [
        end["sum_received"]["bits_per_second"] / 1e6,
        end["sum_received_bidir_reverse"]["bits_per_second"] / 1e6,
    ]
    return Reading(sum(ways), {"there_mbit": ways[0], "back_mbit": ways[1]})


def processor_seconds(joined: Joined, seconds: float) -> Reading:
    """Processor seconds of both daemons (all threads, user and kernel) for 10^9 bytes of TCP payload."""
    watch = Stopwatch(joined.programs)
    octets = _iperf(joined, seconds)["sum_received"]["bytes"]
    used = watch.used()
    if not joined.programs or octets == 0:
        raise LabError("no program or no traffic whose processor time could be counted")
    per_gigabyte = [part * GIGABYTE / octets for part in used]
    names = ("sending_end", "receiving_end")
    return Reading(sum(per_gigabyte), dict(zip(names, per_gigabyte, strict=True)))


def small_packets(joined: Joined, seconds: float) -> Reading:
    """64-byte frames each second that arrive, at the offered load where most of them do.

    The load is raised step by step until more offered means less received; at the best step it is then
    measured for `seconds`. `offered_most` in the details is what the generator really sent in its fastest
    step: where that is well above what arrived, the generator was not the limit.
    """
    with sink(joined.receiver) as arrived:
        best_rate, best, most = RATE_FIRST, 0.0, 0.0
        rate = RATE_FIRST
        while rate <= RATE_LAST:
            offered, received = _offer(joined, rate, PROBE_SECONDS, arrived)
            most = max(most, offered)
            if received > best:
                best_rate, best = rate, received
            elif rate > 2 * best or received < 0.5 * best:
                break
            rate *= RATE_STEP
        offered, received = _offer(joined, best_rate, seconds, arrived)
    return Reading(received, {"offered": offered, "offered_most": max(most, offered)})


def round_trip(joined: Joined, seconds: float) -> Reading:
    """Median of ROUND_TRIPS pings, one at a time, microseconds. `seconds` is not used."""
    del seconds
    target = joined.receiver.ipv4
    output = joined.sender.namespace.run("ping", "-n", "-A", "-c", str(ROUND_TRIPS), target, seconds=60)
    times = [float(text) for text in re.findall(r"time=([0-9.]+) ms", output)]
    if len(times) < 0.99 * ROUND_TRIPS:
        raise LabError(f"only {len(times)} of {ROUND_TRIPS} pings were answered")
    return Reading(statistics.median(times) * 1000)


def flood_ping(joined: Joined, seconds: float) -> Reading:
    """Average round trip of a flood ping (the next question follows each answer at once), microseconds."""
    count = int(FLOOD_PINGS_PER_SECOND * seconds)
    output = joined.sender.namespace.run(
        *("ping", "-n", "-q", "-f", "-c", str(count), joined.receiver.ipv4), seconds=30 + 20 * seconds
    )
    found = re.search(r"(\d+) received.*= ([\d.]+)/([\d.]+)/([\d.]+)/", output, re.DOTALL)
    if found is None or int(found[1]) < 0.99 * count:
        raise LabError(f"flood ping: not {count} answers\n{output}")
    return Reading(
        float(found[3]) * 1000, {"least": float(found[2]) * 1000, "longest": float(found[4]) * 1000}
    )


MEASURES = (
    Measure("tcp_stream", "Mbit/s", tcp_stream, 1.5, True, {"openvpn": 9.0, "fastd": 5.0}),
    Measure("udp_64_byte_packets", "packets/s", small_packets, 1.0, True, {"openvpn": 2.5}),
    Measure("round_trip", "µs", round_trip, 1.3, False),
)
"""What `make bench` takes of the portable data plane, and the bars for it."""

MORE_MEASURES = (
    Measure("tcp_4_streams_both_ways", "Mbit/s", tcp_both_ways, None, True, {"openvpn": 9.0}),
    Measure("flood_ping", "µs", flood_ping, None, False, {"openvpn": 1.0}, digits=1),
    Measure(
        *("cpu_seconds_per_gigabyte", "s/GB", processor_seconds, None, False),
        native_bars={"openvpn": 1 / 9},
        digits=2,
    ),
)


def _iperf(joined: Joined, seconds: float, *options: str) -> dict[str, dict[str, float]]:
    """iperf3 from sender to receiver; the part `end` of its JSON."""
    hosts = (joined.sender.namespace, joined.receiver.namespace, joined.receiver.ipv4)
    load = ("-t", str(seconds), *options)
    end: dict[str, dict[str, float]]
    end = iperf3(*hosts, *load, congestion=joined.congestion, seconds=seconds + 30)["end"]
    return end


def _offer(joined: Joined, rate: float, seconds: float, arrived: Callable[[], int]) -> tuple[float, float]:
    """(datagrams sent, datagrams arrived) each second."""
    before = arrived()
    sent = joined.sender.namespace.run(
        *(sys.executable, SOURCE, joined.receiver.ipv4, str(UDP_PORT)),
        *("--payload", str(UDP_PAYLOAD_OCTETS), "--rate", str(rate), "--seconds", str(seconds)),
        seconds=seconds + 30,
    )
    time.sleep(0.05)  # what the queues still hold belongs to this step
    return int(sent) / seconds, (arrived() - before) / seconds


@contextlib.contextmanager
def sink(host: Host) -> Iterator[Callable[[], int]]:
    """A socket that nobody reads: the kernel counts what arrives for it and throws it away, at no cost."""
    with host.namespace.entered():
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.bind((host.ipv4, UDP_PORT))
        yield lambda: datagrams_arrived(host.namespace)


def datagrams_arrived(namespace: Namespace) -> int:
    """UDP datagrams that have arrived in a namespace, kept or not (Udp: InDatagrams + RcvbufErrors)."""
    names, values = (
        line.split()[1:]
        for line in namespace.run("cat", "/proc/net/snmp").splitlines()
        if line[:5] == "Udp: "
    )
    counts = dict(zip(names, map(int, values), strict=True))
    return counts["InDatagrams"] + counts["RcvbufErrors"]
