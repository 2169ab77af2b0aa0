"""Round trips of lone frames through the portable data plane of two checkouts, in turn.

For changes of the portable data plane: a frame goes from a TAP in hand to a peer in hand, and one comes back.
Run as `python -m tests.bench.lone_frames OTHER_CHECKOUT`. Needs no root. Prints medians in microseconds.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parents[2]
ROUND_TRIPS = 8000
CHILD_SECONDS = 120.0


def measure() -> None:
    """One checkout, in a process of its own: prints the median time of a round trip."""
    from tests.contract.dataplane_rig import BROADCAST, Rig, frame

    with Rig("portable") as rig:
        peer = rig.peer(1)
        rig.put(frame(1, BROADCAST))
        peer.payloads()
        peer.send(frame(11, 1))
        rig.frames()
        out, back = frame(1, 11, bytes(46)), frame(11, 1, bytes(46))
        for end in (peer.socket, rig.tap):
            end.settimeout(5.0)
        times = []
        for packet in [peer.seal(back) for _ in range(ROUND_TRIPS)]:
            began = time.perf_counter()
            rig.tap.send(out)
            peer.socket.recv(2000)
            peer.socket.sendto(packet, peer.target)
            rig.tap.recv(2000)
            times.append(time.perf_counter() - began)
        print(statistics.median(times) * 1e6)


def run(checkout: Path) -> float:
    """Microseconds of a round trip with the modules of a checkout, by this file's procedure."""
    done = subprocess.run(
        [sys.executable, __file__, "--measure"],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": f"{checkout}{os.pathsep}{checkout / 'tap'}"},
        capture_output=True,
        text=True,
        timeout=CHILD_SECONDS,
        check=True,
    )
    # The rig says what it counted behind it.
    return float(done.stdout.split()[0])


def compare(other: Path, pairs: int) -> None:
    """Print each pair, and the median of the ratios (above 1: this checkout is slower)."""
    ratios = []
    for number in range(pairs):
        before, now = run(other), run(HERE)
        ratios.append(now / before)
        print(f"pair {number + 1}: {before:.1f} -> {now:.1f}", flush=True)
    print(f"ratio: {statistics.median(ratios):.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("other", type=Path, nargs="?", help="the checkout to compare with")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure()
    elif arguments.other is None:
        parser.error("OTHER_CHECKOUT is missing")
    else:
        compare(arguments.other.resolve(), arguments.pairs)


if __name__ == "__main__":
    main()
