"""What is measured between two hosts: a TCP stream, small packets per second, the round trip.

Every measure returns one number and says what it is of in `Measure`.
"""

from __future__ import annotations

import contextlib
import json
import re
import signal
import socket
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.lab.namespace import LabError, Namespace
from tests.lab.topology import HOST_PORT, Host

SOURCE = str(Path(__file__).with_name("udp_source.py"))
IPERF_PORT = 5201
UDP_PORT = 9
UDP_PAYLOAD_OCTETS = 22  # 14 + 20 + 8 + 22 = 64 octets of Ethernet frame, without FCS
PROBE_SECONDS = 0.5
RATE_FIRST = 30_000.0
RATE_STEP = 1.35
RATE_LAST = 1_500_000.0
ROUND_TRIPS = 1500


@dataclass(frozen=True, slots=True)
class Measure:
    """`take(sender, receiver, seconds)` gives the number; `bar` is what ours / theirs must reach.

    `higher_is_better`: the bar is a least ratio, otherwise a largest one.
    """

    name: str
    unit: str
    take: Callable[[Host, Host, float], float]
    bar: float
    higher_is_better: bool

    def passes(self, ratio: float) -> bool:
        return ratio >= self.bar if self.higher_is_better else ratio <= self.bar


def prepare(host: Host) -> None:
    """Make datagrams leave the host one by one, as a network card's frames come in."""
    host.namespace.run("ethtool", "-K", HOST_PORT, "tx-udp-segmentation", "off")


def tcp_stream(sender: Host, receiver: Host, seconds: float) -> float:
    """One TCP connection, Mbit/s of payload that arrived."""
    sink = receiver.namespace.popen("iperf3", "-s", "-1", "-p", str(IPERF_PORT), "--forceflush", log="iperf3")
    try:
        sink.wait_for_output("Server listening", 5)
        output = sender.namespace.run(
            *("iperf3", "-J", "-c", receiver.ipv4, "-p", str(IPERF_PORT), "-t", str(seconds), "-O", "1"),
            seconds=seconds + 30,
        )
    finally:
        sink.stop(signal.SIGKILL)
    return float(json.loads(output)["end"]["sum_received"]["bits_per_second"]) / 1e6


def small_packets(sender: Host, receiver: Host, seconds: float) -> float:
    """64-octet frames each second that arrive, at the offered load where most of them do.

    The load is raised step by step until more offered means less received; at the best step it is then
    measured for `seconds`.
    """
    with _sink(receiver) as arrived:
        best_rate, best = RATE_FIRST, 0.0
        rate = RATE_FIRST
        while rate <= RATE_LAST:
            received = _offer(sender, receiver, rate, PROBE_SECONDS, arrived)
            if received > best:
                best_rate, best = rate, received
            elif rate > 2 * best or received < 0.5 * best:
                break
            rate *= RATE_STEP
        return _offer(sender, receiver, best_rate, seconds, arrived)


def round_trip(sender: Host, receiver: Host, seconds: float) -> float:
    """Median of ROUND_TRIPS pings, one at a time, microseconds. `seconds` is not used."""
    del seconds
    output = sender.namespace.run("ping", "-n", "-A", "-c", str(ROUND_TRIPS), receiver.ipv4, seconds=60)
    times = [float(text) for text in re.findall(r"time=([0-9.]+) ms", output)]
    if len(times) < 0.99 * ROUND_TRIPS:
        raise LabError(f"only {len(times)} of {ROUND_TRIPS} pings were answered")
    return statistics.median(times) * 1000


MEASURES = (
    Measure("tcp_stream", "Mbit/s", tcp_stream, 1.5, True),
    Measure("udp_64_byte_packets", "packets/s", small_packets, 1.0, True),
    Measure("round_trip", "µs", round_trip, 1.3, False),
)


def _offer(sender: Host, receiver: Host, rate: float, seconds: float, arrived: Callable[[], int]) -> float:
    before = arrived()
    sender.namespace.run(
        *(sys.executable, SOURCE, receiver.ipv4, str(UDP_PORT), "--payload", str(UDP_PAYLOAD_OCTETS)),
        *("--rate", str(rate), "--seconds", str(seconds)),
        seconds=seconds + 30,
    )
    time.sleep(0.05)  # what the queues still hold belongs to this step
    return (arrived() - before) / seconds


@contextlib.contextmanager
def _sink(host: Host) -> Iterator[Callable[[], int]]:
    """A socket that nobody reads: the kernel counts what arrives for it and throws it away, at no cost."""
    with host.namespace.entered():
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.bind((host.ipv4, UDP_PORT))
        yield lambda: _datagrams(host.namespace)


def _datagrams(namespace: Namespace) -> int:
    """UDP datagrams that have arrived in a namespace, kept or not (Udp: InDatagrams + RcvbufErrors)."""
    names, values = (
        line.split()[1:]
        for line in namespace.run("cat", "/proc/net/snmp").splitlines()
        if line[:5] == "Udp: "
    )
    counts = dict(zip(names, map(int, values), strict=True))
    return counts["InDatagrams"] + counts["RcvbufErrors"]
