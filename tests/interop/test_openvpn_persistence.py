"""What an OpenVPN server tells our client to do next, and what ours does: RESTART, HALT, AUTH_FAILED."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import pytest

from tests.interop.interop_ends import log_events, running, wait_for_event
from tests.lab import Lab, OpenVpn, Profile, TwoSites, wait_for
from tests.lab.bounds import at_most
from tests.lab.bridged_daemon import Bridged, client
from tests.lab.openvpn_management import Management
from tests.lab.topology import WAN_PORT
from tests.lab.waiting import NotInTime

pytestmark = [pytest.mark.root, pytest.mark.measures]
AT_ONCE_SECONDS = 5.0
ASKED_SECONDS = 4
Transport = Literal["udp", "tcp"]


@pytest.fixture(scope="module")
def sites() -> Iterator[TwoSites]:
    with Lab("persist") as lab:
        yield TwoSites(lab, wan="switch")


@dataclass(slots=True)
class Hub:
    """One OpenVPN server with its management interface."""

    server: OpenVpn
    management: Management
    port: int


@contextmanager
def hubs(
    sites: TwoSites,
    profile: Profile,
    *,
    count: int = 2,
    judges: bool = False,
    is_ipv6: bool = False,
    release: str = "2.6",
) -> Iterator[list[Hub]]:
    """Servers at site a, each with a port of its own."""
    made: list[Hub] = []
    directory = sites.a.namespace.directory
    try:
        for number in range(count):
            management = Management(directory / f"management-{number}.sock")
            at = replace(profile, port=profile.port + number)
            server = OpenVpn(
                *(sites.a, "server", at, profile.authority.issue(f"hub-{number}", "server")),
                tap=f"ovpn{number}",
                remote=":" if is_ipv6 else "",
                extra=("duplicate-cn", *management.lines(judges=judges)),
                release=release,
            )
            made.append(Hub(server, management, at.port))
            server.start()
            management.open()
        yield made
    finally:
        for hub in made:
            hub.management.close()
            if hub.server.process is not None:
                hub.server.stop(signal.SIGKILL)
            sites.a.namespace.ip("link", "del", hub.server.tap)


def caller(sites: TwoSites, profile: Profile, remotes: list[str]) -> Bridged:
    identity = profile.authority.issue("site-b", "client")
    return client(sites.b, profile, identity, "unused", tunnel={"remotes": remotes})


def at_ports(sites: TwoSites, made: list[Hub], transport: Transport, *, is_ipv6: bool = False) -> list[str]:
    host = f"[{sites.a.wan_ipv6}]" if is_ipv6 else sites.a.wan_ipv4
    return [f"{host}:{hub.port}/{transport}" for hub in made]


def connected_port(ours: Bridged) -> int:
    (peer,) = ours.connected_peers()
    return int(peer["endpoint"].removesuffix("/tcp").rpartition(":")[2])


def wait_reconnected(ours: Bridged, times: int, seconds: float) -> None:
    wait_for(lambda: len(log_events(ours, "peer_connected")) >= times, "another connection", seconds)
    ours.wait_connected()


@pytest.mark.parametrize(
    ("release", "transport", "is_ipv6"),
    [("2.6", "udp", False), ("2.7", "tcp", True)],
)
def test_restart_brings_us_back_and_with_flag_n_to_the_next_server(
    sites: TwoSites, release: str, transport: Transport, is_ipv6: bool
) -> None:
    profile = Profile(transport=transport)
    with hubs(sites, profile, is_ipv6=is_ipv6, release=release) as made:
        remotes = at_ports(sites, made, transport, is_ipv6=is_ipv6)
        with running(caller(sites, profile, remotes)) as ours:
            expected = made[0].port
            for times, text in enumerate(("", "RESTART,[N]moved", "RESTART,[N]and back"), 2):
                ours.wait_connected()
                assert connected_port(ours) == expected
                hub = next(hub for hub in made if hub.port == expected)
                began = time.monotonic()
                hub.management.kill(text)
                wait_reconnected(ours, times, AT_ONCE_SECONDS)
                at_most(time.monotonic() - began, AT_ONCE_SECONDS, "coming back")
                if "[N]" in text:
                    expected = next(hub.port for hub in made if hub.port != expected)
            assert connected_port(ours) == expected
            assert "the server restarts: moved" in ours.log


def test_a_server_that_ends_and_sends_its_clients_to_the_next_one_loses_us_to_it(sites: TwoSites) -> None:
    profile = Profile()
    with hubs(sites, profile) as made:
        made[0].server.stop(signal.SIGKILL)
        made[0].server.extra += ("explicit-exit-notify 2",)
        made[0].server.start()
        with running(caller(sites, profile, at_ports(sites, made, "udp"))) as ours:
            ours.wait_connected()
            assert connected_port(ours) == made[0].port
            made[0].server.started.send_signal(signal.SIGTERM)
            began = time.monotonic()
            wait_reconnected(ours, 2, AT_ONCE_SECONDS)
            at_most(time.monotonic() - began, AT_ONCE_SECONDS, "coming to the next server")
            assert connected_port(ours) == made[1].port
            assert "SENT CONTROL [site-b]: 'RESTART,[N]'" in made[0].server.log


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_halt_is_obeyed_also_when_the_network_changes(sites: TwoSites, transport: Transport) -> None:
    """An OpenVPN client would end; ours comes back after a minute."""
    profile = Profile(transport=transport)
    with (
        hubs(sites, profile, count=1, release="2.7") as made,
        running(caller(sites, profile, at_ports(sites, made, transport))) as ours,
    ):
        ours.wait_connected()
        made[0].management.kill("HALT,[P]maintenance")
        wait_for_event(ours, "peer_disconnected", "kicked", "maintenance")
        sites.b.namespace.ip("addr", "add", "203.0.113.77/24", "dev", WAN_PORT)
        sites.b.namespace.ip("addr", "del", "203.0.113.77/24", "dev", WAN_PORT)
        with pytest.raises(NotInTime):
            ours.wait_connected(seconds=1)
        tunnel = ours.tunnel()
        assert tunnel["state"] == "waiting" and "maintenance" in tunnel["last_error"]
        assert made[0].server.log.count("Peer Connection Initiated") == 1


@pytest.mark.parametrize("transport", ["udp", "tcp"])
@pytest.mark.parametrize("advance", ["no", "remote"])
def test_a_temporary_refusal_says_how_long_to_wait_and_whom_to_call_next(
    sites: TwoSites, advance: str, transport: Transport
) -> None:
    profile = Profile(transport=transport)
    with hubs(sites, profile, judges=True) as made:
        first, second = (hub.management for hub in made)
        with running(caller(sites, profile, at_ports(sites, made, transport))) as ours:
            login = first.next_login()
            refused_at = time.monotonic()
            first.deny(login, f"TEMP[backoff {ASKED_SECONDS},advance {advance}]:busy")
            wait_for(lambda: "busy" in str(ours.tunnel()["last_error"]), "the refusal to be heard")
            if advance == "remote":
                elsewhere = second.next_login()
                assert elsewhere.at - refused_at >= ASKED_SECONDS
                at_most(elsewhere.at - refused_at, ASKED_SECONDS * 1.1 + 1.5, "the next server")
                second.admit(elsewhere)
                ours.wait_connected()
                assert connected_port(ours) == made[1].port
            else:
                again = first.next_login()
                assert again.at - refused_at >= ASKED_SECONDS
                at_most(again.at - refused_at, ASKED_SECONDS * 1.1 + 1.5, "coming again")
                first.admit(again)
                ours.wait_connected()
                assert connected_port(ours) == made[0].port
                assert "VERIFY OK" in made[0].server.log and "VERIFY OK" not in made[1].server.log


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_a_temporary_refusal_can_name_the_next_address_of_the_name(
    sites: TwoSites, transport: Transport
) -> None:
    profile = Profile(transport=transport)
    # `ip netns exec` puts these over those of the machine.
    private = Path("/etc/netns") / sites.b.namespace.name
    private.mkdir(parents=True)
    try:
        names = f"127.0.0.1 localhost\n{sites.a.wan_ipv4} hub.example\n{sites.a.wan_ipv6} hub.example\n"
        (private / "hosts").write_text(names)
        with hubs(sites, profile, judges=True, is_ipv6=True) as made:
            remotes = [f"hub.example:{hub.port}/{transport}" for hub in made]
            first, other = (hub.management for hub in made)
            with running(caller(sites, profile, remotes)) as ours:
                login = first.next_login()
                refused_at = time.monotonic()
                first.deny(login, f"TEMP[backoff {ASKED_SECONDS},advance addr]:busy")
                again = first.next_login()
                assert again.at - refused_at >= ASKED_SECONDS
                at_most(again.at - refused_at, ASKED_SECONDS * 1.1 + 1.5, "coming again")
                # A server for both families writes IPv4 addresses as ::ffff:203.0.113.2.
                families = {"." in one.address for one in (login, again)}
                assert len(families) == 2, (login, again)
                first.deny(again, "TEMP[advance addr]:busy, too")
                other.admit(other.next_login())
                ours.wait_connected()
                assert connected_port(ours) == made[1].port
    finally:
        shutil.rmtree(private)


def test_a_tcp_server_that_takes_no_connection_costs_three_seconds(sites: TwoSites) -> None:
    profile = Profile(transport="tcp")
    with hubs(sites, profile) as made:
        sites.a.namespace.run("nft", "add table inet dead")
        rule = "add chain inet dead in { type filter hook input priority 0; }"
        sites.a.namespace.run("nft", rule)
        sites.a.namespace.run("nft", f"add rule inet dead in tcp dport {made[0].port} drop")
        try:
            with running(caller(sites, profile, at_ports(sites, made, "tcp"))) as ours:
                began = time.monotonic()
                ours.wait_connected()
                at_most(time.monotonic() - began, 3.0 + AT_ONCE_SECONDS, "the next server")
                assert connected_port(ours) == made[1].port
        finally:
            sites.a.namespace.run("nft", "delete table inet dead")
