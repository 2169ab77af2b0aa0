"""OpenVPN's `--mtu-test` against our end in both roles: it asks for load, sends some, and compares sizes.

It takes OpenVPN three minutes, so all ends run at once.
"""

from __future__ import annotations

import re
from contextlib import ExitStack

import pytest

from tests.interop.interop_ends import Ends, Role, joined, openvpn, running
from tests.lab import Lab, Profile, TwoSites, wait_for
from tests.lab.bridged_daemon import server

pytestmark = [pytest.mark.root, pytest.mark.timeout(900)]
SECONDS = 280.0
RESULT = re.compile(
    r"MTU test completed \[Tried,Actual\] local->remote=\[(\d+),(\d+)\] remote->local=\[(\d+),(\d+)\]"
)
CELLS: list[tuple[Role, bool, str, str]] = [
    ("server", False, "auto", "AES-256-GCM"),
    ("client", True, "auto", "AES-256-GCM"),
    ("server", True, "auto", "AES-256-CBC"),
    ("server", False, "portable", "AES-128-GCM"),
]
"""Our role, whether point to point, our build, the cipher. OpenVPN's servers of many clients do not test."""


def test_openvpn_finds_that_all_sizes_cross_both_ways() -> None:
    with ExitStack() as stack:
        ends = [_pair(stack, number, *cell) for number, cell in enumerate(CELLS)]
        for pair, (*_, cipher) in zip(ends, CELLS, strict=True):
            result = wait_for(
                lambda pair=pair: RESULT.search(pair.theirs.log), "the end of the test", SECONDS
            )
            to_us, reached_us, from_us, reached_them = map(int, result.groups())
            print(cipher, result.group())
            # It tries packets of the size that a whole frame makes.
            assert to_us == reached_us >= 1500
            assert from_us == reached_them >= 1500
            assert "unable to accommodate" not in pair.theirs.log
            assert pair.unwanted_drops() == {}
            pair.ping_both_ways()


def _pair(
    stack: ExitStack, number: int, ours_as: Role, point_to_point: bool, build: str, cipher: str
) -> Ends:
    sites = TwoSites(stack.enter_context(Lab(f"mtutest{number}")))
    profile = Profile(point_to_point=point_to_point, ciphers=(cipher,))
    extra = ("mtu-test",)
    if build == "auto":
        return stack.enter_context(joined(sites, profile, ours_as, extra=extra, release="2.6"))
    issue = profile.authority.issue
    own = issue("server", "server")
    ours = stack.enter_context(running(server(sites.a, profile, own, tunnel={"dataplane": build})))
    client = openvpn(
        *(sites.b, "client", profile, issue("client", "client")),
        remote=sites.a.wan_ipv4,
        extra=extra,
        release="2.6",
    )
    theirs = stack.enter_context(client)
    ours.wait_connected()
    return Ends(ours, theirs, sites.a, sites.b, ours.drops())
