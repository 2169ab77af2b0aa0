"""Long and lossy lines: one TCP connection and eight, through a line that delays and loses packets.

The line is a program of our own (native/sys/examples/line.rs) in the WAN's namespace, the same for both
tunnels. Each run draws its losses from the seed of its pair. Socket buffers are the kernel's defaults.
"""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench.measures import Reading, tcp_of_many
from tests.bench.tunnels import pin, tunnel
from tests.lab.core import Lab
from tests.lab.host_settings import CONGESTION_WANTED
from tests.lab.namespace import Namespace
from tests.lab.openvpn import Profile
from tests.lab.processes import run
from tests.lab.topology import TwoSites
from tests.lab.waiting import LabError

REPOSITORY = Path(__file__).resolve().parents[2]
LINE = REPOSITORY / "native" / "target" / "release" / "examples" / "line"
BUILD_SECONDS = 300.0
RELAY_ADDRESS = "203.0.113.1"
ROUND_TRIPS_MS = (10, 40, 150)
LOSSES_PERCENT = (0.0, 0.1, 1.0, 3.0)
STREAMS = (1, 8)
# Documentation/networking/ip-sysctl.rst: the defaults of a machine with enough memory.
TCP_BUFFERS = {"net.ipv4.tcp_rmem": "4096 131072 6291456", "net.ipv4.tcp_wmem": "4096 16384 4194304"}


@dataclass(frozen=True, slots=True)
class Line:
    """A scene: round trip of the bare line in milliseconds, loss each way in per cent, TCP connections."""

    round_trip_ms: int
    loss_percent: float
    streams: int

    @property
    def name(self) -> str:
        return f"tcp_{self.round_trip_ms}_ms_{self.loss_percent:g}_percent_{self.streams}_streams"

    @classmethod
    def parse(cls, text: str) -> Line:
        """From "40/0.1/1".

        Raises:
            ValueError: it is none.
        """
        round_trip, loss, streams = text.split("/")
        return cls(int(round_trip), float(loss), int(streams))

    def __str__(self) -> str:
        return f"{self.round_trip_ms}/{self.loss_percent:g}/{self.streams}"


LINES = tuple(
    Line(round_trip, loss, streams)
    for round_trip in ROUND_TRIPS_MS
    for loss in LOSSES_PERCENT
    for streams in STREAMS
)
USUAL_LINES = tuple(Line(40, loss, 1) for loss in LOSSES_PERCENT)


def build_line() -> Path:
    """The program, built where it is not.

    Raises:
        LabError: no Rust toolchain, or it does not build.
    """
    try:
        cargo = run("bash", str(REPOSITORY / "scripts" / "native.sh"), "--cargo").strip()
        subprocess.run(
            (
                cargo,
                "build",
                "--release",
                "--locked",
                "--quiet",
                "--package",
                "bridged-sys",
                "--example",
                "line",
            ),
            cwd=REPOSITORY / "native",
            check=True,
            timeout=BUILD_SECONDS,
        )
    except (LabError, subprocess.SubprocessError) as error:
        raise LabError(f"the line's program cannot be built: {error}") from error
    return LINE


@contextmanager
def line(space: Namespace, target: str, port: int, scene: Line, seed: int) -> Iterator[str]:
    """The line at work; yields the address that a client is to call."""
    process = space.popen(
        str(LINE),
        *(f"{RELAY_ADDRESS}:{port}", f"{target}:{port}", str(scene.round_trip_ms * 500)),
        *(str(scene.loss_percent / 100), str(seed)),
        log="line",
        stdin=subprocess.PIPE,
    )
    try:
        process.wait_for_output("line ready", 5)
        yield RELAY_ADDRESS
    finally:
        process.stop(signal.SIGTERM)


def measure_lossy(
    programs: Sequence[str],
    dataplane: str,
    pairs: int,
    seconds: float,
    scene: Line,
    congestion: str = CONGESTION_WANTED,
) -> list[dict[str, Reading]]:
    """`pairs` times what each program reached in turn: Mbit/s that arrived."""
    with Lab("lossy") as lab:
        sites = TwoSites(lab, wan="switch")
        pin(sites.sites)
        for site in sites.sites:
            for key, value in TCP_BUFFERS.items():
                site.host.namespace.sysctl(key, value)

        def take(program: str, seed: int) -> Reading:
            target, port = sites.a.wan_ipv4, Profile().port
            with (
                line(sites.wan_namespace, target, port, scene, seed) as remote,
                tunnel(sites, program, dataplane, congestion=congestion, remote=remote) as joined,
            ):
                return tcp_of_many(joined, seconds, scene.streams)

        return [{program: take(program, number) for program in programs} for number in range(1, pairs + 1)]
