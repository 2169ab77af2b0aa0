"""Two portable data planes with static keys against two OpenVPN processes, in turn, in one lab.

For tuning the data plane without the control plane around it; `make bench` measures the whole daemon.
Needs root. Run as `python -m tests.bench.dataplane_pair --help`.
"""

from __future__ import annotations

import argparse
import cProfile
import os
import pstats
import re
import signal
import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bridged.addresses import Endpoint
from bridged.catalogue.settings import COALESCE_KINDS
from bridged.dataplane import create_dataplane
from bridged.dataplane.contract import DataplaneSettings, PeerSettings, TapPort
from bridged.protocol.keys.cipher import Cipher
from bridged.protocol.keys.key_derivation import slice_keys
from bridged.protocol.role import Role
from bridged.units import KeyId, Octets, PeerHandle, Seconds, WirePeerId
from bridged_tap import Offload, open_tap
from tests.lab import Lab, TwoSites
from tests.lab.iperf import iperf3
from tests.lab.openvpn import OpenVpn, Profile
from tests.lab.processes import Process
from tests.lab.topology import Site
from tests.lab.waiting import wait_for

PORT = 11940
READY = "data plane runs"
TSO = Offload.CSUM | Offload.TSO4 | Offload.TSO6


def run_end(arguments: argparse.Namespace) -> None:
    """One end, inside its namespace, until SIGTERM."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    offloads = TSO if arguments.tso else Offload.NONE
    with open_tap("tap0", virtio_header=True, offloads=offloads, lock=False) as tap:
        names = frozenset(str(flag.name).lower() for flag in Offload if flag & tap.offloads)
        port = TapPort(tap.fds, tap.name, tap.mac, Octets(tap.mtu), tap.virtio_header_size, names)
        settings = DataplaneSettings(
            "bench",
            port,
            Endpoint("0.0.0.0", PORT) if arguments.role == "server" else None,
            mss_limit=arguments.mss,
            coalesce=frozenset() if arguments.plain else COALESCE_KINDS,
        )
        plane = create_dataplane("portable", settings)
        role = Role.SERVER if arguments.role == "server" else Role.CLIENT
        plane.start()
        peer = PeerSettings(
            PeerHandle(1),
            "bench",
            Endpoint(arguments.peer, PORT),
            WirePeerId(7),
            WirePeerId(7),
            Seconds(10.0),
        )
        plane.add_peer(peer)
        plane.install_key(PeerHandle(1), slice_keys(bytes(range(256)), role, Cipher.AES_256_GCM, KeyId(0)))
        plane.use_key(PeerHandle(1), KeyId(0))
        print(READY, flush=True)
        while not stop.wait(1.0):
            pass
        snapshot = plane.snapshot()
        plane.stop()
        for field in (
            "drops",
            "offload_fallbacks",
            "histograms",
            "thread_cpu",
            "counts",
        ):
            print(field, dict(getattr(snapshot, field)))
        print(snapshot.peers[0].counters)


def run_end_profiled(arguments: argparse.Namespace) -> None:
    """As `run_end`, with a profile of the loop's thread at the end."""
    from bridged.dataplane.portable import loop

    profile = cProfile.Profile(time.thread_time)
    original = loop.Loop._run
    loop.Loop._run = lambda self: profile.runcall(original, self)  # type: ignore[method-assign]
    run_end(arguments)
    pstats.Stats(profile).sort_stats("tottime").print_stats(25)


class Ours:
    """Both ends of ours."""

    def __init__(self, lab: TwoSites, arguments: argparse.Namespace) -> None:
        self.ends: list[Process] = []
        ends = ((lab.a, lab.b, "server"), (lab.b, lab.a, "client"))
        for site, other, role in ends:
            command = [
                sys.executable,
                "-m",
                "tests.bench.dataplane_pair",
                "--end",
                role,
                "--peer",
                other.wan_ipv4,
            ]
            command += ["--mss", str(arguments.mss)]
            command += [f"--{name}" for name in ("tso", "profile", "plain") if getattr(arguments, name)]
            self.ends.append(site.namespace.popen(*command, log=f"ours-{role}"))
        for end in self.ends:
            end.wait_for_output(READY)

    def stop(self) -> None:
        for end in self.ends:
            end.stop()


class Theirs:
    """OpenVPN as server and client, on the same TAPs."""

    def __init__(self, lab: TwoSites, profile: Profile) -> None:
        authority = profile.authority
        server = OpenVpn(lab.a, "server", profile, authority.issue("server", "server"), make_tap=False)
        client = OpenVpn(
            lab.b,
            "client",
            profile,
            authority.issue("client", "client"),
            remote=lab.a.wan_ipv4,
            make_tap=False,
        )
        self.ends = [server.start(), client.start()]
        client.wait_connected()

    def stop(self) -> None:
        for end in self.ends:
            end.stop()


def tcp_megabits(lab: TwoSites, seconds: float) -> float:
    load = ("-t", str(seconds), "-O", "1")
    return float(_iperf(lab, seconds, *load)["sum_received"]["bits_per_second"]) / 1e6


def udp_packets(lab: TwoSites, seconds: float) -> float:
    """64-byte datagrams received a second, sent as fast as one iperf3 can."""
    load = ("-u", "-b", "0", "-l", "64", "-t", str(seconds))
    end = _iperf(lab, seconds, *load)["sum_received"]
    return float(end["packets"] - end["lost_packets"]) / float(end["seconds"] or seconds)


def flood_ping_microseconds(lab: TwoSites, seconds: float) -> float:
    output = lab.b.host.namespace.run("ping", "-q", "-f", "-c", str(int(5000 * seconds)), lab.a.host.ipv4)
    found = re.search(r"= [\d.]+/([\d.]+)/", output)
    if found is None:
        raise RuntimeError(output)
    return float(found.group(1)) * 1000


MEASURES: dict[str, Callable[[TwoSites, float], float]] = {
    "tcp": tcp_megabits,
    "udp": udp_packets,
    "ping": flood_ping_microseconds,
}


def processor_seconds(site: Site) -> float:
    """Of all processes in the site's namespace, ended ones excluded."""
    total = 0.0
    for pid in site.namespace.pids():
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def _iperf(lab: TwoSites, seconds: float, *load: str) -> dict[str, Any]:
    far = lab.a.host
    end: dict[str, Any]
    end = iperf3(lab.b.host.namespace, far.namespace, far.ipv4, *load, seconds=seconds + 20)["end"]
    return end


def measure(arguments: argparse.Namespace) -> None:
    """A B A B; prints every pair and the median of the ratios."""
    profile = Profile()
    pairs: dict[str, list[tuple[float, float]]] = {name: [] for name in arguments.measures}
    with Lab("pair", keep_files=arguments.profile) as lab:
        sites = TwoSites(lab, wan_mtu=arguments.wan)
        for site in sites.sites:
            site.make_tap()
        for _ in range(arguments.pairs):
            results: dict[str, list[float]] = {name: [] for name in arguments.measures}
            for build in ("ours", "theirs"):
                if build == "theirs" and arguments.alone:
                    for name in arguments.measures:
                        results[name].append(float("nan"))
                    continue
                ends: Ours | Theirs = Ours(sites, arguments) if build == "ours" else Theirs(sites, profile)
                wait_for(lambda: sites.b.host.reaches(sites.a.host.ipv4), "the far host")
                for name in arguments.measures:
                    before = [processor_seconds(site) for site in sites.sites]
                    results[name].append(MEASURES[name](sites, arguments.seconds))
                    used = [processor_seconds(s) - b for s, b in zip(sites.sites, before, strict=True)]
                    figures = f"{results[name][-1]:10.1f}  cpu server {used[0]:.2f} client {used[1]:.2f}"
                    print(f"  {build:7}{name:5}{figures}", flush=True)
                ends.stop()
                if arguments.profile or arguments.verbose:
                    for end in ends.ends:
                        print(end.output() if isinstance(end, Process) else "")
            for name, (ours, theirs) in results.items():
                pairs[name].append((ours, theirs))
    for name, measured in pairs.items():
        ratios = [ours / theirs for ours, theirs in measured]
        print(
            f"{name}: ratio {statistics.median(ratios):.2f}  "
            + "  ".join(f"{a:.0f}/{b:.0f}" for a, b in measured)
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--end", dest="role", choices=("server", "client"), help="internal: be one end")
    parser.add_argument("--peer", default="", help="internal: the other end's address")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--wan", type=int, default=9000, help="WAN MTU")
    parser.add_argument("--mss", type=int, default=0, help="mss_limit (1368 for a WAN MTU of 1500)")
    parser.add_argument("--measures", nargs="+", default=list(MEASURES), choices=list(MEASURES))
    parser.add_argument("--tso", action="store_true", help="super-frames from the TAP, segmented in Python")
    parser.add_argument("--plain", action="store_true", help="no coalescing")
    parser.add_argument("--profile", action="store_true", help="print a profile of each end")
    parser.add_argument("--verbose", action="store_true", help="print the counters of each end")
    parser.add_argument("--alone", action="store_true", help="leave OpenVPN out")
    arguments = parser.parse_args()
    if not arguments.role:
        measure(arguments)
    elif arguments.profile:
        run_end_profiled(arguments)
    else:
        run_end(arguments)


if __name__ == "__main__":
    main()
