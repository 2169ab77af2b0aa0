"""The farewells of a daemon that restarts, which real OpenVPN has to understand: RESTART,[PH] and EXIT,H."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.interop.interop_ends import openvpn
from tests.lab import Lab, Profile, TwoSites
from tests.lab.bridged_daemon import client, server
from tests.lab.service_manager import ServiceManager

pytestmark = [pytest.mark.root]


@pytest.fixture
def sites() -> Iterator[TwoSites]:
    with Lab("handing") as lab:
        yield TwoSites(lab)


@pytest.mark.parametrize(("release", "derivation"), [("2.6", "prf"), ("2.7", "auto")])
def test_an_openvpn_client_understands_the_farewell_of_a_server_that_restarts(
    sites: TwoSites, release: str, derivation: str
) -> None:
    """Ours says that its successor continues at once: a flag that OpenVPN does not know."""
    profile = Profile()
    issue = profile.authority.issue
    ours = server(sites.a, profile, issue("server", "server"), tunnel={"key_derivation": derivation})
    with ServiceManager(ours) as manager:
        manager.start()
        with openvpn(
            sites.b, "client", profile, issue("client", "client"), remote=sites.a.wan_ipv4, release=release
        ) as theirs:
            theirs.wait_connected()
            manager.restart()
            theirs.started.wait_for_output("Connection reset command was pushed by server ('[PH]')", 3)
            theirs.wait_up(2, 15)
            ours.wait_connected()
            sites.b.host.ping(sites.a.host.ipv4)
        assert manager.stop() == 0


@pytest.mark.parametrize(
    ("release", "derivation", "heard"),
    [
        ("2.6", "auto", ("CC-EEN exit message received", "Exit message received by peer")),
        ("2.7", "auto", ("CC-EEN exit message received", "Exit message received by peer")),
        ("2.6", "prf", ("OCC exit message received", "SIGUSR1[soft,remote-exit]")),
    ],
)
def test_an_openvpn_server_understands_the_farewell_of_a_client_that_restarts(
    sites: TwoSites, release: str, derivation: str, heard: tuple[str, ...]
) -> None:
    profile = Profile()
    issue = profile.authority.issue
    ours = client(
        sites.b,
        profile,
        issue("client", "client"),
        sites.a.wan_ipv4,
        tunnel={"key_derivation": derivation},
    )
    with (
        openvpn(sites.a, "server", profile, issue("server", "server"), release=release) as theirs,
        ServiceManager(ours) as manager,
    ):
        manager.start()
        ours.wait_connected()
        manager.restart()
        theirs.started.wait_for_output(heard, 3)
        ours.wait_connected()
        sites.b.host.ping(sites.a.host.ipv4)
        assert manager.stop() == 0
