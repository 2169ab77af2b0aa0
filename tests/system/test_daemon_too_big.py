"""`answer_too_big` on a WAN that drops IP fragments: what hangs without it, and works with it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

import pytest

from tests.lab import WAN_PORT, Bridged, Host, Lab, TwoSites, bridged_pair
from tests.lab.bridged_daemon import TUNNEL
from tests.lab.host_settings import iperf3_client, iperf3_server
from tests.system.daemon_lab import stop_all

pytestmark = pytest.mark.root

AROUND = 28 + 28 + 14
"""Outer IPv4 and UDP, header, id and tag of the epoch format, Ethernet."""
ECHO = """
import socket, sys
far = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
far.bind(("0.0.0.0", 9999))
while True:
    text, source = far.recvfrom(2000)
    far.sendto(str(len(text)).encode(), source)
"""
# IP_MTU_DISCOVER is 10 (2: always DF; 1: cut what is known to be too large), IP_MTU 14.
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
near.setsockopt(socket.IPPROTO_IP, 10, 2)
said["refused"] = until("EMSGSIZE", 1472)
said["mtu"] = near.getsockopt(socket.IPPROTO_IP, 14)
near.setsockopt(socket.IPPROTO_IP, 10, 1)
said["in pieces"] = until("1472", 1472)
print(json.dumps(said))
"""


@pytest.fixture(params=[(1420, "native"), (1280, "native"), (1420, "portable")], ids=str)
def joined(request: pytest.FixtureRequest) -> Iterator[tuple[int, TwoSites, list[Bridged]]]:
    wan_mtu, build = request.param
    with Lab("toobig") as lab:
        sites = TwoSites(lab, wan_mtu=wan_mtu, lan_mtu=1500)
        for site in (sites.a, sites.b):
            site.namespace.run("nft", "add table netdev wan")
            chain = f'{{ type filter hook ingress device "{WAN_PORT}" priority 0; }}'
            site.namespace.run("nft", f"add chain netdev wan in {chain}")
            site.namespace.run("nft", "add rule netdev wan in ip frag-off & 0x3fff != 0 drop")
        keys = {"wan_mtu": wan_mtu, "dataplane": build}
        daemons = list(bridged_pair(sites.a, sites.b, server_tunnel=keys, client_tunnel=keys))
        far = sites.b.host.namespace
        far.popen(*iperf3_server(), log="iperf3")
        far.popen(sys.executable, "-c", ECHO, log="echo")
        sites.a.host.ping(sites.b.host.ipv4, count=2)
        yield wan_mtu, sites, daemons
        stop_all(*reversed(daemons))


def _df_ping(host: Host, target: str, size: int) -> str:
    ping = f"ping -n -M do -c 3 -i 0.1 -W 1 -s {size} {target} 2>&1; true"
    return host.namespace.run("sh", "-c", ping)


def _ask(host: Host, target: str, tries: int) -> dict[str, int]:
    document: dict[str, int] = json.loads(
        host.namespace.run(sys.executable, "-c", ASK, target, str(tries), seconds=40)
    )
    return document


def test_large_packets_hang_and_with_answers_they_work(joined: tuple[int, TwoSites, list[Bridged]]) -> None:
    wan_mtu, sites, daemons = joined
    first, second = sites.a.host, sites.b.host
    fits = wan_mtu - AROUND

    lost = _df_ping(first, second.ipv4, 1400)
    assert "100% packet loss" in lost
    assert "mtu" not in lost
    assert _ask(first, second.ipv4, 5) == {"small": True, "refused": False, "mtu": 1500, "in pieces": False}

    for daemon in daemons:
        daemon.configuration["tunnels"][TUNNEL]["answer_too_big"] = True
        daemon.reload()
    for daemon in daemons:
        daemon.wait_connected()
    first.ping(second.ipv4, count=2)

    assert f"mtu = {fits}" in _df_ping(first, second.ipv4, 1400).replace("mtu=", "mtu = ")
    asked = _ask(first, second.ipv4, 50)
    assert asked == {"small": True, "refused": True, "mtu": fits, "in pieces": True}
    first.ping(second.ipv4, "-M", "do", "-s", str(fits - 28), count=3, interval_seconds=0.02)
    if fits >= 1280:
        assert f"mtu = {fits}" in _df_ping(first, second.ipv6, 1400).replace("mtu=", "mtu = ")
    moved = json.loads(first.namespace.run(*iperf3_client(second.ipv4, "-J", "-t", "1"), seconds=30))
    assert moved["end"]["sum_received"]["bytes"] > 1_000_000
    assert daemons[0].metric("bridged_mtu_events_total", event="too_big_answered") >= 1
    assert daemons[0].drops()["transmit too_big"] >= 1
