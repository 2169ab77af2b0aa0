"""`fragment` with real OpenVPN of three generations, both roles, on a path that loses IP fragments."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import get_args

import pytest

from tests.interop.interop_ends import Ends, Role, iperf, joined, log_events
from tests.lab import Lab, Profile, TwoSites
from tests.lab.openvpn import RELEASES

pytestmark = pytest.mark.root
WHOLE_LAN = ("-M", "do", "-s", "1472")


@pytest.fixture(scope="module")
def sites() -> Iterator[TwoSites]:
    with Lab("fragment") as lab:
        sites = TwoSites(lab)
        for site in (sites.a, sites.b):
            # 1,300 bytes of UDP payload are 1,328 of IPv4. Larger ones are cut by the kernel, and lost.
            site.namespace.ip("link", "set", "wan0", "mtu", "1328")
            site.namespace.run("nft", "add table netdev wan")
            chain = '{ type filter hook ingress device "wan0" priority 0; }'
            site.namespace.run("nft", f"add chain netdev wan in {chain}")
            site.namespace.run("nft", "add rule netdev wan in ip frag-off & 0x3fff != 0 drop")
        yield sites


def check(ends: Ends) -> None:
    ours, theirs = ends.our_site.host, ends.their_site.host
    ends.ping_both_ways(count=1)
    for source, target in ((ours, theirs), (theirs, ours)):
        source.ping(target.ipv4, *WHOLE_LAN, count=5, interval_seconds=0.02)
    assert ends.changed_frames() == {}
    assert ends.unwanted_drops() == {}
    assert log_events(ends.ours, "options_differ") == []
    assert "is used inconsistently" not in ends.theirs.log.replace("'tun-mtu' is used inconsistently", "")


@pytest.mark.parametrize(("release", "ours_as"), list(product(RELEASES, get_args(Role))))
def test_frames_of_a_whole_lan_cross_where_ip_fragments_do_not(
    sites: TwoSites, release: str, ours_as: Role
) -> None:
    with joined(
        sites,
        Profile(),
        ours_as,
        tunnel={"fragment": 1300},
        extra=("fragment 1300", "mssfix 1300"),
        release=release,
    ) as ends:
        check(ends)
        for source, target in (
            (ends.our_site.host, ends.their_site.host),
            (ends.their_site.host, ends.our_site.host),
        ):
            stream = iperf(source, target, 1)
            assert stream.wait(20) == 0, stream.output()
        assert ends.unwanted_drops() == {}


@pytest.mark.parametrize("ours_as", get_args(Role))
def test_sizes_may_differ_and_compression_framing_stands_inside(sites: TwoSites, ours_as: Role) -> None:
    tunnel = {"fragment": 700, "compression_framing": "comp-lzo"}
    extra = ("fragment 1200", "comp-lzo no")
    with joined(sites, Profile(), ours_as, tunnel=tunnel, extra=extra) as ends:
        check(ends)
        assert ends.peer()["framing"] == "comp-lzo"
