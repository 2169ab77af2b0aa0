"""Settings of single clients at our server, with a real OpenVPN client: addresses, options, ends, bans."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.interop.interop_ends import openvpn, running, wait_for_event
from tests.lab import Bridged, Lab, OpenVpn, Profile, TwoSites, wait_for
from tests.lab.bridged_daemon import TUNNEL, server

pytestmark = pytest.mark.root

POOL = {"first": "10.8.0.50", "last": "10.8.0.60", "prefix": 24, "gateway": "10.8.0.1"}


@pytest.fixture(scope="module")
def sites() -> Iterator[TwoSites]:
    with Lab("single") as lab:
        yield TwoSites(lab, wan="switch")


@pytest.fixture(scope="module")
def profile() -> Profile:
    return Profile()


def serving(sites: TwoSites, profile: Profile, **keys: Any) -> Bridged:
    own = profile.authority.issue("server", "server")
    return server(sites.a, profile, own, tunnel={"address_pool": POOL, **keys})


def visit(sites: TwoSites, profile: Profile, name: str, *extra: str, release: str = "") -> Any:
    """A client that notes the pushed address, and sets up nothing."""
    own = profile.authority.issue(name, "client")
    lines = ("ifconfig-noexec", "route-noexec", *extra)
    return openvpn(*(sites.b, "client", profile, own), remote=sites.a.wan_ipv4, extra=lines, release=release)


def pushed(end: OpenVpn) -> str:
    end.wait_connected()
    return next(line for line in end.log.splitlines() if "PUSH_REPLY" in line)


@pytest.mark.parametrize("release", ["2.5", "2.7"])
def test_a_client_gets_an_address_and_options_of_its_own_and_keeps_it_over_a_restart(
    sites: TwoSites, profile: Profile, release: str
) -> None:
    clients = {"fixed": {"address": "10.8.0.7", "push": ["dhcp-option DNS 10.8.0.53"]}}
    daemon = serving(sites, profile, clients=clients)
    with running(daemon):
        with visit(sites, profile, "first", release=release) as end:
            assert "route-gateway 10.8.0.1,ifconfig 10.8.0.50 255.255.255.0" in pushed(end)
        with visit(sites, profile, "fixed", release=release) as end:
            line = pushed(end)
            assert "ifconfig 10.8.0.7 255.255.255.0" in line and "dhcp-option DNS 10.8.0.53" in line
    with running(daemon):
        with visit(sites, profile, "second", release=release) as end:
            assert "ifconfig 10.8.0.51" in pushed(end), "the first one's is kept for it"
        with visit(sites, profile, "first", release=release) as end:
            assert "ifconfig 10.8.0.50" in pushed(end)


def test_a_disabled_client_and_an_unknown_one_hear_why_and_a_reload_ends_nobody_elses_session(
    sites: TwoSites, profile: Profile
) -> None:
    clients: dict[str, Any] = {"good": {}, "off": {"enabled": False}, "late": {"until": "2020-01-31"}}
    daemon = serving(sites, profile, clients=clients, only_known_clients=True)
    with running(daemon):
        for name, text in (
            ("off", "this client is disabled"),
            ("late", "this client was allowed until 2020-01-31"),
            ("stranger", "this client is not known to the server"),
        ):
            with visit(sites, profile, name) as end:
                end.started.wait_for_output(f"AUTH_FAILED,{text}", 10)
        assert daemon.metric("bridged_handshakes_total", outcome="client_refused") == 3
        with visit(sites, profile, "good", "connect-retry 1 1") as end:
            pushed(end)
            section = daemon.configuration["tunnels"][TUNNEL]
            section["clients"] = {**clients, "off": {}, "good": {"push": ["ping-exit 600"]}}
            daemon.reload()
            assert [peer["name"] for peer in daemon.connected_peers()] == ["good"]
            section["clients"] = {**clients, "good": {"enabled": False}}
            daemon.reload()
            end.started.wait_for_output("AUTH_FAILED,this client is disabled", 10)
            wait_for(lambda: daemon.connected_peers() == [], "the end of its session", 5)


def test_a_banned_client_is_out_at_once_and_comes_back_when_the_ban_is_lifted(
    sites: TwoSites, profile: Profile
) -> None:
    daemon = serving(sites, profile)
    with running(daemon):
        with visit(sites, profile, "guest", "connect-retry 1 1") as end:
            pushed(end)
            said = daemon.command("ban", "guest", "--for", "1h", "--config", str(daemon.file))
            assert "1 session ended" in said
            end.started.wait_for_output("AUTH_FAILED,banned until", 15)
        wait_for_event(daemon, "handshake_failed", "client_refused", "banned")
        daemon.command("unban", "guest", "--config", str(daemon.file))
        with visit(sites, profile, "guest") as end:
            pushed(end)


def test_a_client_of_ours_takes_what_an_openvpn_bridge_server_pushes(
    sites: TwoSites, profile: Profile
) -> None:
    """It has no use for an address, and says nothing of it."""
    from tests.interop.interop_ends import joined

    extra = ("server-bridge 10.8.0.1 255.255.255.0 10.8.0.50 10.8.0.60",)
    with joined(sites, profile, "client", extra=extra) as ends:
        ends.ping_both_ways()
        assert "pushed_options_ignored" not in ends.ours.log
