"""Hosts that send packets too large for a path, and a WAN that drops them without a word."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass

from tests.lab.iperf import iperf3
from tests.lab.topology import HOST_PORT, WAN_PORT, Host, Site

ECHO = """
import socket, sys
far = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
far.bind(("0.0.0.0", 9999))
while True:
    text, source = far.recvfrom(2000)
    far.sendto(str(len(text)).encode(), source)
"""
# IP_MTU_DISCOVER is 10 (2: always DF; 1: cut what is known to be too large; 0: never DF), IP_MTU 14.
ASK = """
import errno, json, socket, sys
near = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
near.connect((sys.argv[1], 9999))
near.settimeout(0.2)

def ask(size):
    try:
        near.send(bytes(size))
        return near.recv(100).decode()
    except TimeoutError:
        return "nothing"
    except OSError as error:
        return errno.errorcode[error.errno]

def until(wanted, size):
    for _ in range(int(sys.argv[2])):
        if ask(size) == wanted:
            return True
    return False

said = {"small": until("100", 100)}
near.setsockopt(socket.IPPROTO_IP, 10, 0)
said["may be cut"] = until("1472", 1472)
near.setsockopt(socket.IPPROTO_IP, 10, 2)
said["refused"] = until("EMSGSIZE", 1472)
said["mtu"] = near.getsockopt(socket.IPPROTO_IP, 14)
near.setsockopt(socket.IPPROTO_IP, 10, 1)
said["in pieces"] = until("1472", 1472)
print(json.dumps(said))
"""


class BlackHole:
    """Drops IP fragments, and packets of more than so many bytes, on their way in to a site."""

    def __init__(self, site: Site, bears: int) -> None:
        self._run = site.namespace.run
        # Else datagrams that leave together would be looked at as one.
        self._run("ethtool", "-K", WAN_PORT, "tx-udp-segmentation", "off", "gso", "off", "gro", "off")
        self._run("nft", "add table netdev wan")
        chain = f'{{ type filter hook ingress device "{WAN_PORT}" priority 0; }}'
        self._run("nft", f"add chain netdev wan in {chain}")
        self.narrow(bears)

    def narrow(self, bears: int) -> None:
        self._run("nft", "flush chain netdev wan in")
        for rule in (
            "ip frag-off & 0x3fff != 0",
            f"ip length > {bears}",
            "exthdr frag exists",
            f"ip6 length > {bears - 40}",
        ):
            self._run("nft", f"add rule netdev wan in {rule} counter drop")


def df_ping(host: Host, target: str, size: int) -> str:
    # The host remembers what it was told before.
    ping = f"ip route flush cache; ping -n -M do -c 3 -i 0.1 -W 1 -s {size} {target} 2>&1; true"
    return host.namespace.run("sh", "-c", ping)


def expect_mtu(host: Host, mtu: int) -> None:
    """Tell a host what its LAN bears, as an administrator would; it forgets what it was told by others."""
    routes = host.namespace.ip("-4", "route", "show", "dev", HOST_PORT).splitlines()
    assert routes, "the host has a route into its LAN"
    for route in routes:
        words = route.split()
        if "mtu" in words:
            del words[words.index("mtu") : words.index("mtu") + 2]
        host.namespace.ip("route", "change", *words, "dev", HOST_PORT, "mtu", str(mtu))
    host.namespace.ip("route", "flush", "cache")


def ask(host: Host, target: str, tries: int) -> dict[str, int]:
    document: dict[str, int] = json.loads(
        host.namespace.run(sys.executable, "-c", ASK, target, str(tries), seconds=40)
    )
    return document


@dataclass(frozen=True, slots=True)
class Moved:
    """What one TCP stream did: its largest segment, what arrived, both in bytes, and its rate in Mbit/s."""

    mss: int
    arrived: int
    megabits: float


def move(source: Host, target: Host, octets: int = 4_000_000) -> Moved:
    """One TCP stream of so many bytes, however long they take a slow machine.

    With these buffers less than 1 MB is on its way when the sender ends: what passes nothing large fails.

    Raises:
        LabError: it failed, or did not end within 30 seconds.
    """
    load = ("-w", "128K", "-n", str(octets))
    document = iperf3(source.namespace, target.namespace, target.ipv4, *load)
    end = document["end"]["sum_received"]
    moved = Moved(document["start"]["tcp_mss_default"], end["bytes"], end["bits_per_second"] / 1e6)
    assert moved.arrived > octets - 1_000_000, moved
    return moved
