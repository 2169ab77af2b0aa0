"""`make bench`: our two daemons against OpenVPN's two, in turn A B A B, in one run in one lab.

Both use the same sites, the same kernel bridges and the same cables; only the programs in between change.
Prints a table and writes build/bench.json:
[{"measure", "unit", "dataplane", "peer", "wan_mtu", "pairs": [[ours, theirs], …], "ratio_median"}, …].
A ratio is ours / theirs of one pair; `--enforce` fails where a median misses its bar.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.bench.measures import MEASURES, Measure, prepare
from tests.lab.bridged_daemon import bridged_pair
from tests.lab.core import Interrupted, Lab
from tests.lab.namespace import LabError, wait_for
from tests.lab.openvpn import Profile, openvpn_pair, openvpn_version
from tests.lab.topology import TwoSites

ETHERNET_MTU = 1500
# Outer IPv4 and UDP headers leave less; the daemons aim at a packet below the path's MTU.
PATH_MARGIN = 8


@dataclass(slots=True)
class Result:
    """All pairs of one measure at one WAN MTU."""

    measure: Measure
    dataplane: str
    peer: str
    wan_mtu: int
    pairs: list[tuple[float, float]] = field(default_factory=list)

    @property
    def ratios(self) -> list[float]:
        return [ours / theirs for ours, theirs in self.pairs]

    @property
    def ratio_median(self) -> float:
        return statistics.median(self.ratios)

    @property
    def passes(self) -> bool:
        return self.measure.passes(self.ratio_median)

    def document(self) -> dict[str, Any]:
        return {
            "measure": self.measure.name,
            "unit": self.measure.unit,
            "dataplane": self.dataplane,
            "peer": self.peer,
            "wan_mtu": self.wan_mtu,
            "pairs": [[round(ours, 1), round(theirs, 1)] for ours, theirs in self.pairs],
            "ratio_median": round(self.ratio_median, 3),
        }


@contextmanager
def tunnel(sites: TwoSites, program: str, dataplane: str) -> Iterator[None]:
    """The two sites joined by two daemons of one program, and not joined any more afterwards."""
    profile = Profile(ciphers=("AES-256-GCM",), ping_seconds=10, restart_seconds=60)
    large = sites.wan_mtu > ETHERNET_MTU
    first: Any
    second: Any
    if program == "openvpn":
        # On a large path there is nothing to fit a segment into: its default would shrink them for nothing.
        extra = ("mssfix 0",) if large else ()
        first, second = openvpn_pair(sites.a, sites.b, profile, server_extra=extra, client_extra=extra)
    else:
        keys: dict[str, Any] = {"dataplane": dataplane, "wan_mtu": sites.wan_mtu - PATH_MARGIN}
        first, second = bridged_pair(sites.a, sites.b, profile, server_tunnel=keys, client_tunnel=keys)
    try:
        for host in (sites.a.host, sites.b.host):
            host.forget_neighbours()
        wait_for(lambda: sites.a.host.reaches(sites.b.host.ipv4), f"{program} to carry frames", 20)
        yield
    finally:
        second.stop()
        first.stop()
        if program == "openvpn":
            for site in sites.sites:
                site.namespace.ip("link", "del", "tap0")


def compare(
    chosen: argparse.Namespace, wan_mtu: int, measures: list[Measure], console: Console
) -> list[Result]:
    """All pairs at one WAN MTU."""
    label = "openvpn" if chosen.ours == "openvpn" else chosen.dataplane
    results = [Result(measure, label, chosen.peer, wan_mtu) for measure in measures]
    with Lab("bench") as lab:
        sites = TwoSites(lab, wan_mtu=wan_mtu)
        prepare(sites.a.host)
        if chosen.pin:
            for number, site in enumerate(sites.sites):
                site.namespace.cpus = site.host.namespace.cpus = str(number % (os.cpu_count() or 1))
        for number in range(1, chosen.pairs + 1):
            taken: list[list[float]] = []
            for program in (chosen.ours, chosen.peer):
                with tunnel(sites, program, chosen.dataplane):
                    taken.append([m.take(sites.a.host, sites.b.host, chosen.seconds) for m in measures])
            for result, ours, theirs in zip(results, *taken, strict=True):
                result.pairs.append((ours, theirs))
                console.print(
                    f"wan {wan_mtu}, pair {number}/{chosen.pairs}: {result.measure.name} "
                    f"{ours:,.0f} : {theirs:,.0f} {result.measure.unit}, ratio {ours / theirs:.2f}"
                )
    return results


def table_of(results: list[Result]) -> Table:
    table = Table(title=f"ours : theirs (OpenVPN {openvpn_version()}), {machine()}")
    for name in (
        "measure",
        "data plane",
        "peer",
        "WAN MTU",
        "ours",
        "theirs",
        "ratio of each pair",
        "median",
        "bar",
    ):
        table.add_column(name)
    for result in results:
        measure = result.measure
        sign = "≥" if measure.higher_is_better else "≤"
        ours = statistics.median(pair[0] for pair in result.pairs)
        theirs = statistics.median(pair[1] for pair in result.pairs)
        table.add_row(
            measure.name,
            result.dataplane,
            result.peer,
            str(result.wan_mtu),
            f"{ours:,.0f} {measure.unit}",
            f"{theirs:,.0f} {measure.unit}",
            " ".join(f"{ratio:.2f}" for ratio in result.ratios),
            f"{result.ratio_median:.2f}",
            f"{sign} {measure.bar} {'met' if result.passes else 'MISSED'}",
        )
    return table


def machine() -> str:
    """Processor, cores and kernel: without them a number says nothing."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown"
    )
    return f"{os.cpu_count()} × {model}, Linux {os.uname().release}"


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    names = [measure.name for measure in MEASURES]
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--wan-mtu", type=int, nargs="+", default=[1500, 9000], metavar="OCTETS")
    parser.add_argument("--dataplane", choices=["portable", "native"], default="portable")
    parser.add_argument(
        "--peer", choices=["openvpn", "bridged"], default="openvpn", help="what to compare with"
    )
    parser.add_argument(
        "--ours",
        choices=["bridged", "openvpn"],
        default="bridged",
        help="openvpn proves the bench itself: ratios near 1",
    )
    parser.add_argument("--measure", nargs="+", choices=names, default=names)
    parser.add_argument("--seconds", type=float, default=4.0, help="length of one measurement")
    parser.add_argument("--output", type=Path, default=Path("build/bench.json"))
    parser.add_argument(
        "--pin",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="each site and its host on a core of their own, as two machines would be (default)",
    )
    parser.add_argument("--enforce", action="store_true", help="exit 1 where a median misses its bar")
    return parser.parse_args(arguments)


def main() -> int:
    chosen = parse()
    console = Console(width=None if sys.stdout.isatty() else 160)
    measures = [measure for measure in MEASURES if measure.name in chosen.measure]
    begin = time.monotonic()
    results: list[Result] = []
    try:
        for wan_mtu in chosen.wan_mtu:
            results += compare(chosen, wan_mtu, measures, console)
    except Interrupted as error:
        console.print("bench: interrupted, nothing written")
        return error.status
    except LabError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    chosen.output.parent.mkdir(parents=True, exist_ok=True)
    chosen.output.write_text(json.dumps([result.document() for result in results], indent=1) + "\n")
    console.print(table_of(results))
    console.print(f"{chosen.output}: {len(results)} results, {time.monotonic() - begin:.0f} s")
    return exit_status(results, enforce=chosen.enforce)


def exit_status(results: list[Result], *, enforce: bool) -> int:
    """1 where a bar is missed and bars are enforced."""
    return 1 if enforce and not all(result.passes for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
