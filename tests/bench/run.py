"""`make bench`: our two daemons against OpenVPN's two, in turn A B A B, in one run in one lab.

All use the same sites, the same kernel bridges and the same cables; only the programs in between change.
Prints a table and writes build/bench.json: a list of
{"measure", "unit", "dataplane", "peer", "wan_mtu", "pairs": [[ours, theirs], …], "ratio_median",
"wan_offload", …}; "bar" and "met" where there is a bar, "details" with further figures of each pair.
A ratio is ours / theirs of one pair; `--enforce` fails where a median misses its bar.

With `--dataplane native` all measures and peers are taken, with the WAN passing super-frames and again
packet by packet, and three more scenes: one end plain OpenVPN (mixed.py), a hub (hub.py), and the latency of
urgent frames under load (latency.py).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from rich.console import Console

from tests.bench.hub import measure_hub
from tests.bench.latency import SCENES, measure_latency
from tests.bench.lossy import LINES, USUAL_LINES, Line, build_line, measure_lossy
from tests.bench.measures import MEASURES, MORE_MEASURES, Joined, Measure, Reading, prepare
from tests.bench.mixed import DIRECTIONS, OURS_MOST, THEIRS_LEAST, measure_mixed
from tests.bench.mixed import passes as mixed_passes
from tests.bench.over_tcp import measure_half_over_tcp
from tests.bench.results import Result, exit_status, notes_on, table_of
from tests.bench.stalled import LONG_STALL_SECONDS, measure_stalled
from tests.bench.tunnels import (
    CONGESTION_CONTROLS,
    PEERS,
    WAN_OFFLOADS,
    missing_program,
    pin,
    set_wan_offload,
    tunnel,
)
from tests.lab.core import Interrupted, Lab
from tests.lab.host_settings import CONGESTION_ALWAYS, CONGESTION_WANTED, usable_congestion
from tests.lab.topology import TwoSites
from tests.lab.waiting import LabError

PAIRED = (*MEASURES, *MORE_MEASURES)
MIXED, HUB, LATENCY, LOSSY = "one_end_openvpn", "hub_all_to_all", "latency_under_load", "lossy_lines"
OVER_TCP, HALF_OVER_TCP = "tcp_stream_over_tcp", "one_end_openvpn_over_tcp"
STALLED = "stalled_peer_over_tcp"
NATIVE_PEERS = ("openvpn", "fastd", "vxlan")
# What a further peer is there for; OpenVPN is compared in everything.
MEASURES_OF_OTHERS = ("tcp_stream", "tcp_4_streams_both_ways", "udp_64_byte_packets", "flood_ping")


def _unused(joined: Joined, seconds: float) -> Reading:
    raise LabError("this scene has a lab of its own")


HUB_MEASURE = Measure(HUB, "Mbit/s", _unused, None, True, {"openvpn": 5.0})


def compare(
    chosen: argparse.Namespace, wan_mtu: int, wan_offload: str, measures: list[Measure], console: Console
) -> list[Result]:
    """All pairs at one WAN MTU: ours, then each peer, and again."""
    label = "openvpn" if chosen.ours == "openvpn" else chosen.dataplane
    results = [
        Result(measure, label, peer, wan_mtu, wan_offload=wan_offload, extra=tcp_of(chosen))
        for peer in chosen.peer
        for measure in measures
        if _is_taken(measure, peer)
    ]
    with Lab("bench") as lab:
        sites = TwoSites(lab, wan_mtu=wan_mtu)
        set_wan_offload(sites.sites, wan_offload)
        prepare(sites.a.host)
        if chosen.pin:
            pin(sites.sites)
        for number in range(1, chosen.pairs + 1):
            ours = _take(chosen, sites, chosen.ours, measures)
            for peer in chosen.peer:
                theirs = _take(chosen, sites, peer, [m for m in measures if _is_taken(m, peer)])
                for result in (result for result in results if result.peer == peer):
                    name = result.measure.name
                    result.add(ours[name], theirs[name])
                    _say(console, result, number, chosen.pairs)
    return results


def tcp_of(chosen: argparse.Namespace) -> dict[str, str]:
    """For each result: the hosts' congestion control, and what was asked for where that is another one."""
    used = usable_congestion(chosen.congestion)
    return {"tcp": used} | ({} if used == chosen.congestion else {"tcp_wanted": chosen.congestion})


def _is_taken(measure: Measure, peer: str) -> bool:
    return peer not in ("fastd", "vxlan") or measure.name in MEASURES_OF_OTHERS


def _take(
    chosen: argparse.Namespace, sites: TwoSites, program: str, measures: list[Measure]
) -> dict[str, Reading]:
    with tunnel(sites, program, chosen.dataplane, congestion=chosen.congestion) as joined:
        return {measure.name: measure.take(joined, chosen.seconds) for measure in measures}


def _say(console: Console, result: Result, number: int, pairs: int) -> None:
    (ours, theirs), measure = result.pairs[-1], result.measure
    console.print(
        f"wan {result.wan_mtu}{'' if result.wan_offload == 'on' else f' ({result.wan_offload})'}, "
        f"pair {number}/{pairs}: {measure.name} {ours:,.{measure.digits}f} : {theirs:,.{measure.digits}f} "
        f"{measure.unit}{'' if result.peer == 'openvpn' else f' ({result.peer})'}, "
        f"ratio {result.ratios[-1]:.2f}"
    )


def compare_mixed(
    chosen: argparse.Namespace, wan_mtu: int, wan_offload: str, console: Console
) -> list[Result]:
    """One end plain OpenVPN; the pairs are (our end's, OpenVPN's end's) share of a processor."""
    taken = measure_mixed(
        chosen.dataplane, wan_mtu, wan_offload, chosen.pairs, chosen.seconds, chosen.congestion
    )
    results = []
    for direction in DIRECTIONS:
        measure = Measure(f"{MIXED}_{direction.split('_')[-1]}", "% of a core", _unused, None, False)
        result = Result(measure, chosen.dataplane, "openvpn", wan_mtu, wan_offload=wan_offload)
        result.extra = tcp_of(chosen)
        if chosen.dataplane == "native":
            result.judge = mixed_passes
            result.judged_by = f"ours < {OURS_MOST:.0f} %, OpenVPN ≥ {THEIRS_LEAST:.0f} %"
        for number, (ours, theirs) in enumerate(taken[direction], start=1):
            result.add(ours, theirs)
            _say(console, result, number, chosen.pairs)
        results.append(result)
    return results


def compare_hub(chosen: argparse.Namespace, wan_mtu: int, wan_offload: str, console: Console) -> list[Result]:
    """Our hub and OpenVPN's with the same clients."""
    result = Result(HUB_MEASURE, chosen.dataplane, "openvpn", wan_mtu, wan_offload=wan_offload)
    result.extra = {"hub_peers": chosen.hub_peers}
    pairs = measure_hub(
        chosen.dataplane, chosen.hub_peers, wan_mtu, wan_offload, chosen.pairs, chosen.seconds
    )
    for number, (ours, theirs) in enumerate(pairs, start=1):
        result.add(ours, theirs)
        _say(console, result, number, chosen.pairs)
    return [result]


def compare_over_tcp(
    chosen: argparse.Namespace, wan_mtu: int, wan_offload: str, console: Console
) -> list[Result]:
    """One TCP stream through tunnels over TCP: our two daemons, and OpenVPN's two."""
    (stream,) = [measure for measure in MEASURES if measure.name == "tcp_stream"]
    bar = 5.0 if chosen.dataplane == "native" else None
    measure = Measure(OVER_TCP, "Mbit/s", _unused, None, True, {} if bar is None else {"openvpn": bar})
    result = Result(measure, chosen.dataplane, "openvpn", wan_mtu, wan_offload=wan_offload)
    result.extra = tcp_of(chosen)
    with Lab("bench") as lab:
        sites = TwoSites(lab, wan_mtu=wan_mtu)
        set_wan_offload(sites.sites, wan_offload)
        prepare(sites.a.host)
        for number in range(1, chosen.pairs + 1):
            readings = []
            for program in ("bridged", "openvpn"):
                made = tunnel(sites, program, chosen.dataplane, congestion=chosen.congestion, transport="tcp")
                with made as joined:
                    readings.append(stream.take(joined, chosen.seconds))
            result.add(*readings)
            _say(console, result, number, chosen.pairs)
    return [result]


def compare_half_over_tcp(
    chosen: argparse.Namespace, wan_mtu: int, wan_offload: str, console: Console
) -> list[Result]:
    """One TCP stream through a tunnel over TCP with one end of ours, and with none."""
    taken = measure_half_over_tcp(
        chosen.dataplane, wan_mtu, wan_offload, chosen.pairs, chosen.seconds, chosen.congestion
    )
    results = []
    for name, pairs in taken.items():
        measure = Measure(f"tcp_{name}", "Mbit/s", _unused, 1.0, True, {"openvpn": 1.0})
        result = Result(measure, chosen.dataplane, "openvpn", wan_mtu, wan_offload=wan_offload)
        result.extra = tcp_of(chosen)
        for number, (ours, theirs) in enumerate(pairs, start=1):
            result.add(ours, theirs)
            _say(console, result, number, chosen.pairs)
        results.append(result)
    return results


def compare_latency(
    chosen: argparse.Namespace, wan_mtu: int, wan_offload: str, console: Console
) -> list[Result]:
    """Urgent frames under load: ours with `priority: dscp` against OpenVPN, and against ours without."""
    scenes = [scene for scene in SCENES if scene.name in chosen.scene]
    taken = measure_latency(
        chosen.dataplane, wan_mtu, wan_offload, chosen.pairs, chosen.seconds, scenes, chosen.congestion
    )
    results = []
    for scene in scenes:
        measure = Measure(f"{LATENCY}_{scene.name}_p99.9", "µs", _unused, None, False)
        for peer, end in (("openvpn", "openvpn"), ("bridged, priority: off", "off")):
            result = Result(measure, chosen.dataplane, peer, wan_mtu, wan_offload=wan_offload)
            result.extra = tcp_of(chosen)
            for number, readings in enumerate(taken[scene.name], start=1):
                result.add(readings["dscp"], readings[end])
                _say(console, result, number, chosen.pairs)
            results.append(result)
    return results


def compare_stalled(chosen: argparse.Namespace, console: Console) -> list[Result]:
    """What two clients get beside one that does not read, and without it: (beside, without)."""
    found = measure_stalled(chosen.dataplane, chosen.pairs, chosen.seconds, LONG_STALL_SECONDS)
    console.print(
        f"stalled peer: {found.dropped:,} frames dropped, {found.waiting_octets / 1e6:.1f} MB in the kernel, "
        f"{found.grown_octets / 1e6:.1f} MB more in the program, {found.ended_sessions} sessions ended"
    )
    results = []
    for name, beside in found.beside.items():
        unit = "Mbit/s" if "full" in name else "packets/s"
        measure = Measure(f"{STALLED}_{name}", unit, _unused, 0.95, True, {"itself": 0.95})
        result = Result(measure, chosen.dataplane, "itself", 1500)
        for number, pair in enumerate(zip(beside, found.without[name], strict=True), start=1):
            result.add(*map(Reading, pair))
            _say(console, result, number, chosen.pairs)
        results.append(result)
    return results


def compare_lossy(chosen: argparse.Namespace, console: Console) -> list[Result]:
    """Our daemons and OpenVPN on long and lossy lines; the WAN's MTU is 1500."""
    build_line()
    results = []
    for scene in chosen.line:
        rounds = measure_lossy(
            ("bridged", "openvpn"), chosen.dataplane, chosen.pairs, chosen.seconds, scene, chosen.congestion
        )
        measure = Measure(scene.name, "Mbit/s", _unused, 1.0, True, {"openvpn": 1.0}, digits=1)
        result = Result(measure, chosen.dataplane, "openvpn", 1500)
        result.extra = tcp_of(chosen)
        for number, readings in enumerate(rounds, start=1):
            result.add(readings["bridged"], readings["openvpn"])
            _say(console, result, number, chosen.pairs)
        results.append(result)
    return results


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    others = (MIXED, HUB, OVER_TCP, HALF_OVER_TCP, STALLED, LATENCY, LOSSY)
    names = [*(measure.name for measure in PAIRED), *others]
    option = parser.add_argument
    option("--pairs", type=int, default=5)
    option("--wan-mtu", type=int, nargs="+", default=[1500, 9000], metavar="OCTETS")
    option(
        *("--wan-offload",),
        nargs="+",
        choices=WAN_OFFLOADS,
        help="on: the WAN passes super-frames; off: packet by packet; card: so, and joined again on arrival\n"
        "(default: on; with native on and off)",
    )
    option("--dataplane", choices=["portable", "native"], default="portable")
    option("--peer", nargs="+", choices=PEERS, help="what to compare with (default: openvpn; with native "
           "openvpn, fastd\nwhere it is installed, vxlan: the kernel's, not encrypted)")  # fmt: skip
    option(
        *("--ours",),
        choices=["bridged", "openvpn"],
        default="bridged",
        help="openvpn proves the bench itself: ratios near 1",
    )
    option("--measure", nargs="+", choices=names, metavar="NAME", help=", ".join(names))
    option(
        *("--congestion",),
        choices=CONGESTION_CONTROLS,
        default=CONGESTION_WANTED,
        help=f"of the hosts' TCP, whatever this machine is set to (default: {CONGESTION_WANTED};\n"
        f"{CONGESTION_ALWAYS} where the kernel does not have it)",
    )
    option("--hub-peers", type=int, default=50, help=f"clients of {HUB}")
    loads = [scene.name for scene in SCENES]
    option("--scene", nargs="+", choices=loads, default=loads, metavar="NAME", help=f"of {LATENCY}")
    option(
        *("--line",),
        nargs="+",
        type=Line.parse,
        default=list(USUAL_LINES),
        metavar="MS/PERCENT/STREAMS",
        help=f"of {LOSSY}: round trip, loss each way and TCP connections (default: "
        f"{' '.join(map(str, USUAL_LINES))}; all: {len(LINES)})",
    )
    option("--all-lines", action="store_const", dest="line", const=list(LINES), help=f"of {LOSSY}")
    option("--seconds", type=float, default=4.0, help="length of one measurement")
    option("--output", type=Path, default=Path("build/bench.json"))
    option(
        *("--pin",),
        action=argparse.BooleanOptionalAction,
        default=True,
        help="each site and its host on a core of their own, as two machines would be (default)",
    )
    option("--enforce", action="store_true", help="exit 1 where a median misses its bar")
    return _filled_in(parser.parse_args(arguments), names)


def _filled_in(chosen: argparse.Namespace, names: list[str]) -> argparse.Namespace:
    """What was not given depends on the data plane; `names` of all measures."""
    native = chosen.dataplane == "native"
    if chosen.measure is None:
        chosen.measure = names if native else [measure.name for measure in MEASURES]
    chosen.wan_offload = chosen.wan_offload or (["on", "off"] if native else ["on"])
    if chosen.peer is None:
        installed = [peer for peer in NATIVE_PEERS if not missing_program(peer)]
        chosen.peer = installed if native else ["openvpn"]
    return chosen


def main() -> int:
    chosen = parse()
    console = Console(width=None if sys.stdout.isatty() else 160)
    begin = time.monotonic()
    results: list[Result] = []
    try:
        for wan_offload in chosen.wan_offload:
            for wan_mtu in chosen.wan_mtu:
                results += _scenes(chosen, wan_mtu, wan_offload, console)
        if STALLED in chosen.measure:
            results += compare_stalled(chosen, console)
        if LOSSY in chosen.measure:
            results += compare_lossy(chosen, console)
    except Interrupted as error:
        console.print("bench: interrupted, nothing written")
        return error.status
    except LabError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    chosen.output.parent.mkdir(parents=True, exist_ok=True)
    documents = [result.document() for result in results]
    chosen.output.write_text(json.dumps(documents, indent=1, ensure_ascii=False) + "\n")
    console.print(table_of(results))
    for note in notes_on(results):
        console.print(f"note: {note}")
    console.print(f"{chosen.output}: {len(results)} results, {time.monotonic() - begin:.0f} s")
    return exit_status(results, enforce=chosen.enforce)


def _scenes(chosen: argparse.Namespace, wan_mtu: int, wan_offload: str, console: Console) -> list[Result]:
    """Everything asked for, at one WAN MTU and one kind of WAN."""
    results: list[Result] = []
    measures = [measure for measure in PAIRED if measure.name in chosen.measure]
    if measures:
        results += compare(chosen, wan_mtu, wan_offload, measures, console)
    if MIXED in chosen.measure:
        results += compare_mixed(chosen, wan_mtu, wan_offload, console)
    if HUB in chosen.measure:
        results += compare_hub(chosen, wan_mtu, wan_offload, console)
    if OVER_TCP in chosen.measure:
        results += compare_over_tcp(chosen, wan_mtu, wan_offload, console)
    if HALF_OVER_TCP in chosen.measure:
        results += compare_half_over_tcp(chosen, wan_mtu, wan_offload, console)
    if LATENCY in chosen.measure:
        results += compare_latency(chosen, wan_mtu, wan_offload, console)
    return results


if __name__ == "__main__":
    sys.exit(main())
