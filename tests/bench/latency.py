"""How long small urgent frames take while bulk traffic fills the tunnel: `latency_under_load`.

Pings of 60 and of 128 bytes, marked EF, cross while iperf3 sends; the far kernel answers them, so that
hardly any program's turn on the processor is in the figure but the tunnel's own. Ours with `priority: dscp`,
ours with `priority: off` and OpenVPN take turns in one lab. In the scenes with a slow WAN a token bucket on
both WAN ports makes the queue, as an uplink does, and the processors are mostly idle; at full speed they are
the limit.
"""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass

from tests.bench.measures import Joined, Reading
from tests.bench.tunnels import pin, set_wan_offload, tunnel
from tests.lab.core import Lab
from tests.lab.host_settings import CONGESTION_WANTED, iperf3_client, iperf3_server
from tests.lab.topology import WAN_PORT, TwoSites
from tests.lab.waiting import LabError

SLOW_WAN_MBIT = 200
EF_TOS = "0xb8"
PING_PAYLOADS = (18, 86)  # Ethernet, IPv4 and ICMP headers around them: 60 and 128 bytes
PING_PAUSE_SECONDS = 0.005
RAMP_SECONDS = 1.0
PERCENTILES = {"p50": 0.5, "p99": 0.99, "p99_9": 0.999}
LEAST_ANSWERED = 0.2
"""Of the pings: fewer are no measurement."""


@dataclass(frozen=True, slots=True)
class Scene:
    """What loads the tunnel: options of iperf3, and whether the WAN is slow."""

    name: str
    load: tuple[str, ...]
    is_slow: bool


SCENES = (
    Scene("tcp_full_speed", ("-P", "4"), False),
    Scene("tcp_slow_wan", ("-P", "4"), True),
    Scene("udp_slow_wan", ("-u", "-l", "1400", "-b", f"{SLOW_WAN_MBIT * 3 // 2}M"), True),
)
ENDS = {"dscp": ("bridged", "dscp"), "off": ("bridged", "off"), "openvpn": ("openvpn", "off")}
"""By name: program and `priority`."""


def measure_latency(
    dataplane: str,
    wan_mtu: int,
    wan_offload: str,
    pairs: int,
    seconds: float,
    scenes: Sequence[Scene] = SCENES,
    congestion: str = CONGESTION_WANTED,
) -> dict[str, list[dict[str, Reading]]]:
    """For each scene, `pairs` times what each of ENDS took; the value is the 99.9th percentile, µs."""
    taken: dict[str, list[dict[str, Reading]]] = {scene.name: [] for scene in scenes}
    with Lab("latency") as lab:
        sites = TwoSites(lab, wan_mtu=wan_mtu)
        set_wan_offload(sites.sites, wan_offload)
        pin(sites.sites)
        for scene in scenes:
            _shape(sites, scene.is_slow)
            for _ in range(pairs):
                round_of_all = {}
                for name, (program, priority) in ENDS.items():
                    with tunnel(sites, program, dataplane, priority, congestion) as joined:
                        round_of_all[name] = urgent_round_trips(joined, scene.load, seconds)
                taken[scene.name].append(round_of_all)
    return taken


def urgent_round_trips(joined: Joined, load: Sequence[str], seconds: float) -> Reading:
    """Round trips of marked pings under a load: percentiles in microseconds, and the share that was lost."""
    sender, target = joined.sender.namespace, joined.receiver.ipv4
    count = max(1, int(seconds / PING_PAUSE_SECONDS))
    sink = joined.receiver.namespace.popen(*iperf3_server("-1"), log="iperf3")
    try:
        sink.wait_for_output("Server listening", 5)
        duration = str(seconds + 2 * RAMP_SECONDS)
        command = iperf3_client(target, "-t", duration, *load, congestion=joined.congestion)
        source = sender.popen(*command, log="load")
        try:
            time.sleep(RAMP_SECONDS)
            pings = [
                sender.popen(
                    *("ping", "-n", "-Q", EF_TOS, "-s", str(payload), "-i", str(PING_PAUSE_SECONDS)),
                    *("-c", str(count), "-W", "1", target),
                    log=f"ping-{payload}",
                )
                for payload in PING_PAYLOADS
            ]
            for ping in pings:
                ping.wait(seconds * 2 + 20)
            if not source.running and source.wait() != 0:
                raise LabError(f"the load ended at once: {source.tail()}")
        finally:
            source.stop(signal.SIGKILL)
    finally:
        sink.stop(signal.SIGKILL)
    texts = [text for ping in pings for text in re.findall(r"time=([0-9.]+) ms", ping.output())]
    return reading_of([float(text) * 1000 for text in texts], count * len(pings))


def reading_of(times: list[float], sent: int) -> Reading:
    """Of the round trips that were answered, of so many pings.

    Raises:
        LabError: too few were answered.
    """
    if len(times) < LEAST_ANSWERED * sent or not times:
        raise LabError(f"only {len(times)} of {sent} pings were answered")
    ordered = sorted(times)
    details = {
        name: ordered[min(len(ordered) - 1, int(share * len(ordered)))] for name, share in PERCENTILES.items()
    }
    lost = 1 - len(times) / sent
    return Reading(details["p99_9"], {**details, "longest": ordered[-1], "lost_ratio": lost})


def _shape(sites: TwoSites, is_slow: bool) -> None:
    for site in sites.sites:
        site.namespace.run("tc", "qdisc", "del", "dev", WAN_PORT, "root", check=False)
        if is_slow:
            rate = ("rate", f"{SLOW_WAN_MBIT}mbit", "burst", "70k", "limit", "8m")
            site.namespace.run("tc", "qdisc", "add", "dev", WAN_PORT, "root", "tbf", *rate)
