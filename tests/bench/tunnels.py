"""What can join the two sites of the bench: our daemons, OpenVPN, fastd, the kernel's VXLAN.

All of them bridge whole Ethernet frames over UDP between the same two sites; VXLAN does not encrypt, it is
the ceiling. Each context manager joins, waits until frames cross, and takes everything away again.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from tests.bench.measures import Joined
from tests.lab.bridged_daemon import bridged_pair
from tests.lab.host_settings import CONGESTION_ALWAYS, CONGESTION_WANTED, usable_congestion
from tests.lab.openvpn import Profile, openvpn_pair
from tests.lab.pki import write_private
from tests.lab.processes import Process, run
from tests.lab.topology import WAN_PORT, Site, TwoSites
from tests.lab.waiting import LabError, wait_for

ETHERNET_MTU = 1500
# Outer IPv4 and UDP headers leave less; the daemons aim at a packet below the path's MTU.
PATH_MARGIN = 8
FASTD_PORT = 10000
FASTD_METHOD = "salsa2012+umac"  # its own recommendation, and the fastest with encryption
VXLAN_PORT = 4789

PEERS = ("openvpn", "bridged", "portable", "fastd", "vxlan")
WAN_OFFLOADS = ("on", "off", "card")
CARD_FEATURES = ("generic-receive-offload", "on", "tcp-segmentation-offload", "off")
"""With these a veth joins what it receives as a card's driver does: it leaves that out where the other end of
the cable may send super-frames of any kind, TCP's included."""
CONGESTION_CONTROLS = (CONGESTION_WANTED, "bbr", CONGESTION_ALWAYS)
"""Of the hosts' TCP. Most machines use the first, the kernel's default; BBR paces, and then its pace is
measured."""


def missing_program(peer: str) -> str:
    """The program that a peer needs and that is not installed; empty where nothing is missing."""
    return peer if peer == "fastd" and shutil.which("fastd") is None else ""


def set_wan_offload(sites: Iterable[Site], offload: str) -> None:
    """How the WAN's cables pass what the tunnels send.

    `on`: super-frames whole, as a veth does by itself. `off`: every packet alone, cut by the kernel as for
    a network card without offloads for UDP. `card`: so, and the receiving kernel joins packets again (GRO),
    as it does for most network cards.
    """
    if offload == "on":
        return
    names = ["tx-udp-segmentation", "tx-udp_tnl-segmentation", "tx-udp_tnl-csum-segmentation"]
    changes = [word for name in names for word in (name, "off")]
    if offload == "card":
        changes += CARD_FEATURES
    for site in sites:
        site.namespace.run("ethtool", "-K", WAN_PORT, *changes)


def pin(sites: Iterable[Site]) -> None:
    """Give each site a processor for its programs and its host's; they share if there are fewer."""
    for number, site in enumerate(sites):
        site.namespace.cpus = site.host.namespace.cpus = str(number % (os.cpu_count() or 1))


def keep_apart(sites: Sequence[Site]) -> None:
    """As `pin`; what arrives at a site's kernel is dealt with by its processor, too.

    Otherwise a veth lets the sender's processor do the receiver's TCP, and ends that are two machines
    elsewhere are charged for each other.
    """
    pin(sites)
    queue = f"/sys/class/net/{WAN_PORT}/queues/rx-0/rps_cpus"
    for site in sites:
        site.namespace.run("sh", "-c", f"echo {1 << int(site.namespace.cpus):x} > {queue}")


@contextmanager
def tunnel(
    sites: TwoSites,
    program: str,
    dataplane: str,
    priority: str = "off",
    congestion: str = CONGESTION_WANTED,
    remote: str = "",
    transport: Literal["udp", "tcp"] = "udp",
) -> Iterator[Joined]:
    """The two sites joined by two daemons of one program, and not joined any more afterwards.

    `dataplane` and `priority` are for our daemons; program `portable` is our daemons with that data plane.
    `remote`: the server as the client sees it, for our daemons and OpenVPN (default: its WAN address).
    `transport`: likewise, by what they carry the packets.
    """
    made: dict[str, Callable[[], Any]] = {
        "openvpn": lambda: openvpn_ends(sites, remote, transport),
        "bridged": lambda: bridged_ends(sites, dataplane, priority, remote, transport),
        "portable": lambda: bridged_ends(sites, "portable", priority, remote, transport),
        "fastd": lambda: fastd_ends(sites),
        "vxlan": lambda: vxlan_ends(sites),
    }
    with made[program]() as programs:
        for host in (sites.a.host, sites.b.host):
            host.forget_neighbours()
        wait_for(lambda: sites.a.host.reaches(sites.b.host.ipv4), f"{program} to carry frames", 20)
        yield Joined(sites.a.host, sites.b.host, programs, usable_congestion(congestion))


def profile(transport: Literal["udp", "tcp"] = "udp") -> Profile:
    return Profile(ciphers=("AES-256-GCM",), ping_seconds=10, restart_seconds=60, transport=transport)


def openvpn_options(wan_mtu: int) -> tuple[str, ...]:
    """On a large path there is nothing to fit a segment into: its default would shrink them for nothing."""
    return ("mssfix 0",) if wan_mtu > ETHERNET_MTU else ()


def bridged_keys(dataplane: str, wan_mtu: int) -> dict[str, Any]:
    return {"dataplane": dataplane, "wan_mtu": wan_mtu - PATH_MARGIN}


@contextmanager
def openvpn_ends(
    sites: TwoSites, remote: str = "", transport: Literal["udp", "tcp"] = "udp"
) -> Iterator[tuple[int, ...]]:
    extra = openvpn_options(sites.wan_mtu)
    first, second = openvpn_pair(
        sites.a, sites.b, profile(transport), server_extra=extra, client_extra=extra, remote=remote
    )
    try:
        yield (first.started.pid, second.started.pid)
    finally:
        second.stop()
        first.stop()
        for site in sites.sites:
            site.namespace.ip("link", "del", "tap0")


@contextmanager
def bridged_ends(
    sites: TwoSites,
    dataplane: str,
    priority: str = "off",
    remote: str = "",
    transport: Literal["udp", "tcp"] = "udp",
) -> Iterator[tuple[int, ...]]:
    keys = bridged_keys(dataplane, sites.wan_mtu) | {"priority": priority}
    first, second = bridged_pair(
        sites.a, sites.b, profile(transport), server_tunnel=keys, client_tunnel=keys, remote=remote
    )
    try:
        yield (first.started.pid, second.started.pid)
    finally:
        second.stop()
        first.stop()


@contextmanager
def fastd_ends(sites: TwoSites) -> Iterator[tuple[int, ...]]:
    if missing_program("fastd"):
        raise LabError("fastd is not installed: apt-get install fastd, or leave it out of --peer")
    keys = [_fastd_key() for _ in sites.sites]
    ends: list[Process] = []
    try:
        for number, site in enumerate(sites.sites):
            site.make_tap("tap0")
            ends.append(_fastd(site, sites.sites[1 - number], keys[number][0], keys[1 - number][1]))
        yield tuple(end.pid for end in ends)
    finally:
        for end in ends:
            end.stop()
        for site in sites.sites:
            site.namespace.ip("link", "del", "tap0", check=False)


def _fastd_key() -> tuple[str, str]:
    """(secret, public), as fastd prints them."""
    words = run("fastd", "--machine-readable", "--generate-key").split()
    public = run(
        "fastd", "--machine-readable", "--show-key", "--config", "-", stdin=f'secret "{words[0]}";\n'
    )
    return words[0], public.strip()


def _fastd(site: Site, other: Site, secret: str, other_public: str) -> Process:
    lines = [
        "mode tap;",
        'interface "tap0";',
        f'method "{FASTD_METHOD}";',
        f"mtu {ETHERNET_MTU};",
        f"bind {site.wan_ipv4}:{FASTD_PORT};",
        f'secret "{secret}";',
        f'peer "other" {{ key "{other_public}"; remote {other.wan_ipv4}:{FASTD_PORT}; }}',
    ]
    file = site.namespace.directory / f"{site.namespace.role}-fastd.conf"
    write_private(file, "\n".join(lines) + "\n")
    return site.namespace.popen("fastd", "--config", str(file), log="fastd")


@contextmanager
def vxlan_ends(sites: TwoSites) -> Iterator[tuple[int, ...]]:
    """The kernel's own, not encrypted; no program runs."""
    try:
        for site, other in ((sites.a, sites.b), (sites.b, sites.a)):
            site.namespace.ip(
                *("link", "add", "vx0", "mtu", str(ETHERNET_MTU), "type", "vxlan", "id", "42"),
                *("dstport", str(VXLAN_PORT), "local", site.wan_ipv4, "remote", other.wan_ipv4),
            )
            site.namespace.sysctl("net.ipv6.conf.vx0.disable_ipv6", 1)
            site.attach("vx0")
        yield ()
    finally:
        for site in sites.sites:
            site.namespace.ip("link", "del", "vx0", check=False)
