"""What the system tests of whole daemons share: continuous pings that measure gaps, and waiting for reach."""

from __future__ import annotations

import itertools
import math
import re
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.lab import HOST_PORT, Bridged, Host, LabError, Process, Site, steady_ping, wait_for
from tests.lab.bounds import at_most
from tests.lab.process_memory import own_octets

PING = ("ping", "-n", "-D", "-i")
STEADY_PING = (sys.executable, str(Path(steady_ping.__file__)))
ANSWER = re.compile(r"^\[(\d+\.\d+)\] .*icmp_seq=(\d+) ", re.MULTILINE)


class Pings:
    """A ping that goes on beside the test: when which answer came.

    `interval_seconds` is the time between two questions; sequence numbers begin at 1. `program`: what to run,
    with interval and target; see tests/lab/steady_ping.py.
    """

    def __init__(
        self, host: Host, target: str, interval_seconds: float, program: Sequence[str] = PING
    ) -> None:
        self.interval_seconds = interval_seconds
        self._process: Process = host.namespace.popen(*program, str(interval_seconds), target, log="ping")
        self.began = time.time()

    def answers(self) -> list[tuple[float, int]]:
        """(Unix time, sequence number) of every answer so far, in order of arrival."""
        return [(float(at), int(number)) for at, number in ANSWER.findall(self._process.output())]

    def count(self) -> int:
        return len(self.answers())

    def wait_for_answers(self, count: int = 20, seconds: float = 10.0) -> None:
        """Until so many further answers came."""
        before = self.count()
        wait_for(lambda: self.count() >= before + count, f"{count} more answers to a ping", seconds)

    def stop(self) -> None:
        if self._process.running:
            self._process.stop(signal.SIGINT)

    def summary(self) -> tuple[int, int]:
        """(sent, received), after `stop`."""
        found = re.search(r"(\d+) packets transmitted, (\d+) received", self._process.output())
        if found is None:
            raise LabError(f"no summary of ping:\n{self._process.tail()}")
        return int(found[1]), int(found[2])

    def lost(self) -> int:
        """Questions without an answer, after `stop`; the last ones, maybe under way, are left out."""
        numbers = {number for _, number in self.answers()}
        return max(numbers, default=0) - len(numbers)

    def longest_gap(self, since: float = 0.0) -> float:
        """Seconds without an answer at most, from `since` (Unix time) or the first answer on."""
        times = [at for at, _ in self.answers() if at >= since]
        if since:
            times.insert(0, since)
        if len(times) < 2:
            raise LabError(f"no answers to a ping:\n{self._process.tail()}")
        return max(later - earlier for earlier, later in itertools.pairwise(times))


@contextmanager
def pinging(
    host: Host, target: str, interval_seconds: float = 0.01, program: Sequence[str] = PING
) -> Iterator[Pings]:
    """Pings from entry to exit; inside, `stop` may be called earlier."""
    pings = Pings(host, target, interval_seconds, program)
    try:
        yield pings
    finally:
        pings.stop()


def wait_reach(host: Host, target: str, most: float = 2.0) -> None:
    """Ping until an answer comes, which may take `most` seconds. Below a second: `quick_neighbours`.

    Raises:
        NotInTime: it took longer.
    """
    started = time.monotonic()
    process = host.namespace.popen("ping", "-n", "-i", "0.05", target, log="reach")
    try:
        process.wait_for_output("bytes from", most + 10.0)
        took = time.monotonic() - started
    finally:
        process.stop(signal.SIGINT)
    at_most(took, most, f"{target} to be reached")


def is_silent(host: Host, target: str, seconds: float) -> bool:
    """Whether pings are not answered for so long."""
    output = host.namespace.run(
        "ping", "-n", "-i", "0.05", "-w", str(math.ceil(seconds)), target, check=False
    )
    return "bytes from" not in output


def quick_neighbours(host: Host) -> None:
    """ARP asks again every 0.1 s instead of every second: what is measured is the tunnel."""
    host.namespace.sysctl(f"net.ipv4.neigh.{HOST_PORT}.retrans_time_ms", 100)


def stop_all(*daemons: Bridged | None) -> None:
    """SIGTERM to all that run; a daemon that fails to end well fails the test."""
    running = [daemon for daemon in daemons if daemon is not None and daemon.process is not None]
    running = [daemon for daemon in running if daemon.started.running]
    for daemon in running:
        daemon.started.send_signal(signal.SIGTERM)
    for daemon in running:
        assert daemon.started.ended() == 0, daemon.started.tail()


def links_of(site: Site) -> set[str]:
    """Names of all links of a site."""
    lines = site.namespace.ip("-o", "link", "show").splitlines()
    return {line.split(":")[1].strip().split("@")[0] for line in lines}


def own_kibioctets(daemon: Bridged) -> int:
    """Memory of the daemon's process, without pages of files."""
    return own_octets(int(daemon.status()["pid"])) // 1024
