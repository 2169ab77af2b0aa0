"""TCP, small packets, round trips and a hub through the daemons of two checkouts, in turn A B A B.

For changes of either data plane; `lone_frames` measures lone frames without daemons. Each turn is a process
of its checkout's environment, with a lab of its own. Needs root; the other checkout needs its own .venv and
native build. Run as `python -m tests.bench.checkouts OTHER_CHECKOUT --dataplane native`.
Prints each pair, and for each measure the median of the ratios this / other. `cost` is the processor time of
both daemons for the same work; it drifts less than the rates do.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parents[2]
CHILD_SECONDS = 180.0
STEADY_PACKETS = {"native": 150_000.0, "portable": 12_000.0}
"""64-byte frames a second of `steady_packets`: well below what each build carries."""
HUB_PEERS = 20
WAN_MTU = 1500
MEASURES = ("tcp_stream", "udp_64_byte_packets", "steady_packets", "round_trip", "flood_ping", "hub")

Figures = dict[str, dict[str, float]]


def take(dataplane: str, names: list[str], seconds: float) -> Figures:
    """In a checkout's process: each measure's `value` and, where it makes sense, its `cost`."""
    from tests.bench.measures import Joined, prepare
    from tests.bench.processor import Stopwatch
    from tests.bench.tunnels import set_wan_offload, tunnel
    from tests.lab.core import Lab
    from tests.lab.topology import TwoSites

    found: Figures = {}
    takers = _takers(dataplane, seconds)

    def measure(joined: Joined, name: str) -> None:
        watch = Stopwatch(joined.programs)
        value, work = takers[name](joined)
        found[name] = {"value": value}
        if work:
            found[name]["cost"] = sum(watch.used()) / work

    if "hub" in names:
        found["hub"] = _hub(dataplane, seconds)
    if set(names) != {"hub"}:
        with Lab("bench") as lab:
            sites = TwoSites(lab, wan_mtu=WAN_MTU)
            set_wan_offload(sites.sites, "on")
            prepare(sites.a.host)
            for number, site in enumerate(sites.sites):
                site.namespace.cpus = site.host.namespace.cpus = str(number % (os.cpu_count() or 1))
            with tunnel(sites, "bridged", dataplane) as joined:
                for name in names:
                    if name != "hub":
                        measure(joined, name)
    return found


def _takers(dataplane: str, seconds: float) -> dict[str, Callable[..., tuple[float, float]]]:
    """Of each measure: takes two joined hosts, returns the figure and how much work it was (0: unknown)."""
    from tests.bench import measures
    from tests.bench.measures import Joined

    def of_tcp(joined: Joined) -> tuple[float, float]:
        value = measures.tcp_stream(joined, seconds).value
        return value, value

    def of_packets(joined: Joined) -> tuple[float, float]:
        return measures.small_packets(joined, seconds).value, 0

    def of_steady_packets(joined: Joined) -> tuple[float, float]:
        # Older checkouts have it under another name.
        sink = next(getattr(measures, name) for name in ("sink", "_sink") if hasattr(measures, name))
        with sink(joined.receiver) as arrived:
            _, received = measures._offer(joined, STEADY_PACKETS[dataplane], seconds, arrived)
        return received, received * seconds

    def of_round_trips(joined: Joined) -> tuple[float, float]:
        return measures.round_trip(joined, seconds).value, measures.ROUND_TRIPS

    def of_flood_pings(joined: Joined) -> tuple[float, float]:
        return measures.flood_ping(joined, seconds).value, measures.FLOOD_PINGS_PER_SECOND * seconds

    return {
        "tcp_stream": of_tcp,
        "udp_64_byte_packets": of_packets,
        "steady_packets": of_steady_packets,
        "round_trip": of_round_trips,
        "flood_ping": of_flood_pings,
    }


def _hub(dataplane: str, seconds: float) -> dict[str, float]:
    from tests.bench.hub import HubBench
    from tests.lab.core import Lab

    with Lab("hubbench") as lab:
        reading = HubBench(lab, HUB_PEERS, WAN_MTU, "on").measure("bridged", dataplane, seconds)
    per_processor = reading.details["mbit_per_busy_processor"]
    return {"value": reading.value, "cost": 1 / per_processor if per_processor else 0.0}


def run(checkout: Path, dataplane: str, names: list[str], seconds: float) -> Figures:
    """The figures of one checkout, by this file's procedure."""
    command = [str(checkout / ".venv/bin/python"), __file__, "--take", "--dataplane", dataplane]
    done = subprocess.run(
        [*command, "--seconds", str(seconds), "--measure", *names],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(checkout)},
        stdout=subprocess.PIPE,
        text=True,
        timeout=CHILD_SECONDS,
        check=True,
    )
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def compare(chosen: argparse.Namespace) -> None:
    """Print each pair, and the medians; whichever went first in one pair goes second in the next."""
    ratios: dict[str, list[float]] = {}
    for number in range(chosen.pairs):
        turn = [chosen.theirs, chosen.ours] if number % 2 == 0 else [chosen.ours, chosen.theirs]
        taken = {root: run(root, chosen.dataplane, chosen.measure, chosen.seconds) for root in turn}
        theirs, ours = taken[chosen.theirs], taken[chosen.ours]
        for name in chosen.measure:
            for kind, before in theirs[name].items():
                now = ours[name][kind]
                ratios.setdefault(f"{name} {kind}", []).append(now / before if before else 1.0)
                print(f"pair {number + 1} {name} {kind}: {before:.4g} -> {now:.4g}", flush=True)
    for name, found in ratios.items():
        print(f"ratio {name}: {statistics.median(found):.3f} ({', '.join(f'{one:.3f}' for one in found)})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("theirs", type=Path, nargs="?", help="the checkout to compare with")
    parser.add_argument("--ours", type=Path, default=HERE, help="the checkout to judge (default: this one)")
    parser.add_argument("--dataplane", choices=list(STEADY_PACKETS), default="portable")
    parser.add_argument("--measure", nargs="+", choices=MEASURES, default=list(MEASURES), metavar="NAME")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--take", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.take:
        print(json.dumps(take(chosen.dataplane, chosen.measure, chosen.seconds)))
    elif chosen.theirs is None:
        parser.error("OTHER_CHECKOUT is missing")
    else:
        chosen.theirs, chosen.ours = chosen.theirs.resolve(), chosen.ours.resolve()
        compare(chosen)


if __name__ == "__main__":
    main()
