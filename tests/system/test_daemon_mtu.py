"""Full-size LAN frames over a WAN of the same size, and smaller: nothing is lost for being large."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bridged.dataplane import choose_dataplane
from tests.lab import WAN_PORT, Bridged, Host, Lab, TwoSites, bridged_pair
from tests.lab.bounds import at_most
from tests.lab.bridged_daemon import TUNNEL
from tests.lab.frames import missing_at
from tests.lab.iperf import iperf3
from tests.lab.large_packets import move
from tests.lab.topology import HOST_PORT
from tests.system.daemon_lab import stop_all

pytestmark = pytest.mark.root

LARGEST_PING = 1472


@pytest.fixture(scope="module")
def joined() -> Iterator[tuple[TwoSites, Bridged, Bridged]]:
    with Lab("mtu") as lab:
        sites = TwoSites(lab, wan_mtu=1500, lan_mtu=1500)
        server, client = bridged_pair(sites.a, sites.b)
        sites.a.host.ping(sites.b.host.ipv4, count=2)
        yield sites, server, client
        stop_all(client, server)


@pytest.fixture(params=["hosts that heed the MSS", "hosts that ignore it"])
def heeded(request: pytest.FixtureRequest, joined: tuple[TwoSites, Bridged, Bridged]) -> Iterator[bool]:
    """Hosts that ignore the MSS cannot be had here; to the tunnel it is the same to leave it alone."""
    is_heeded = request.param == "hosts that heed the MSS"
    if is_heeded:
        yield True
        return
    _, server, client = joined
    for mss in ("off", "auto"):
        for daemon in (server, client):
            daemon.configuration["tunnels"][TUNNEL]["mss"] = mss
            daemon.reload()
        for daemon in (server, client):
            daemon.wait_connected()
        if mss == "off":
            yield False


@pytest.mark.parametrize("direction", [0, 1])
def test_full_size_datagrams_that_may_not_be_fragmented_cross(
    joined: tuple[TwoSites, Bridged, Bridged], direction: int
) -> None:
    first, second = _ends(joined[0], direction)
    first.ping(second.ipv4, "-M", "do", "-s", str(LARGEST_PING), count=20, interval_seconds=0.01)


@pytest.mark.parametrize("direction", [0, 1])
@pytest.mark.parametrize("offloads", ["host with offloads", "host without"])
def test_tcp_needs_no_fragments_whether_hosts_heed_the_mss_or_not(
    joined: tuple[TwoSites, Bridged, Bridged], heeded: bool, offloads: str, direction: int
) -> None:
    sites, *daemons = joined
    first, second = _ends(sites, direction)
    is_native = choose_dataplane("auto").kind == "native"
    if not heeded and not is_native:
        return  # portable leaves it to the hosts: what they ignore goes in fragments
    before = [_fragments(sites, number) for number in (0, 1)]
    counted = [_counted(daemon) for daemon in daemons]
    wanted = "on" if offloads == "host with offloads" else "off"
    for feature in ("tso", "gso"):
        first.namespace.run("ethtool", "-K", HOST_PORT, feature, wanted)
    try:
        moved = move(first, second)
    finally:
        for feature in ("tso", "gso"):
            first.namespace.run("ethtool", "-K", HOST_PORT, feature, "on")
    assert [_fragments(sites, number) for number in (0, 1)] == before
    clamped, fitted = (
        sum(_counted(daemon)[at] - old[at] for daemon, old in zip(daemons, counted, strict=True))
        for at in (0, 1)
    )
    if heeded:
        assert 1200 <= moved.mss < 1400
        assert clamped >= 2 and fitted == 0, "SYN and SYN-ACK, and nothing is left to be cut"
    else:
        assert moved.mss == 1448, "the hosts know nothing of the tunnel"
        assert clamped == 0 and fitted > (moved.arrived / 1448 / 2 if wanted == "off" else 0)


@pytest.mark.measures
def test_large_udp_datagrams_cross_in_fragments_of_the_wan(joined: tuple[TwoSites, Bridged, Bridged]) -> None:
    sites, _, _ = joined
    first, second = _ends(sites, 0)
    before = _fragments(sites, 0)
    flow = ("-u", "-b", "4M", "-l", str(LARGEST_PING), "-k", "300")
    total = iperf3(first.namespace, second.namespace, second.ipv4, *flow)["end"]["sum"]
    assert total["packets"] >= 300, total
    at_most(total["lost_packets"], 0, "what is lost of a steady flow", "datagrams")
    assert _fragments(sites, 0) - before >= total["packets"]


@pytest.mark.parametrize("direction", [0, 1])
def test_tagged_frames_of_1518_octets_cross(
    joined: tuple[TwoSites, Bridged, Bridged], direction: int
) -> None:
    first, second = _ends(joined[0], direction)
    addresses = bytes.fromhex((second.mac + first.mac).replace(":", ""))
    kit = {
        f"tagged {number}": addresses + b"\x81\x00\x00\x2a\x88\xb6" + bytes([number]) * 1500
        for number in range(20)
    }
    assert {len(frame) for frame in kit.values()} == {1518}
    assert missing_at(first, second, kit) == {}


def test_smaller_wan_carries_full_size_frames_too() -> None:
    with Lab("smallwan") as lab:
        sites = TwoSites(lab, wan_mtu=1280)
        server, client = bridged_pair(sites.a, sites.b)
        first, second = sites.a.host, sites.b.host
        first.ping(second.ipv4, count=2)
        first.ping(second.ipv4, "-M", "do", "-s", str(LARGEST_PING), count=10, interval_seconds=0.01)
        assert "1280" in sites.a.namespace.ip("link", "show", WAN_PORT)
        stop_all(client, server)


def _ends(sites: TwoSites, direction: int) -> tuple[Host, Host]:
    ends = sites.a.host, sites.b.host
    return ends if direction == 0 else ends[::-1]


def _counted(daemon: Bridged) -> tuple[float, float]:
    """(SYN segments lowered, segments cut) so far."""
    lowered, cut = (
        daemon.metric("bridged_mtu_events_total", event=event) for event in ("mss_clamped", "mss_fitted")
    )
    return lowered, cut


def _fragments(sites: TwoSites, number: int) -> int:
    """IPv4 fragments that a site has made so far."""
    lines = sites.sites[number].namespace.run("cat", "/proc/net/snmp").splitlines()
    names, values = (line.split() for line in lines if line.startswith("Ip:"))
    return int(values[names.index("FragCreates")])
