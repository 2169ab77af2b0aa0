"""Whatever the order in which port, bridge, WAN, name server and server appear, the LANs are joined after it.

And each of them may go and come back while the daemons run.
"""

from __future__ import annotations

import itertools
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.lab import (
    HOST_PORT,
    LAN_PORT,
    WAN_PORT,
    Lab,
    Process,
    Profile,
    TwoSites,
    bridged_daemon,
    wait_for,
)
from tests.lab.bounds import takes_at_most
from tests.lab.waiting import NotInTime
from tests.system.daemon_lab import is_silent, links_of, quick_neighbours, stop_all, wait_reach

pytestmark = [pytest.mark.root, pytest.mark.measures]

SERVER_NAME = "hub.example"
WITHIN_SECONDS = 2.0
ASKED_AGAIN_SECONDS = 3.0
"""Nothing tells a client when a silent server hears again: it asks every second, and so does ARP."""
LABS_AT_ONCE = 4
_making = threading.Lock()


class Joined:
    """Two sites whose client finds its server by name; everything the tunnel needs can go and come.

    The client's daemon runs all the time; `missing` names what is away.
    """

    PARTS = ("port", "bridge", "wan", "dns", "server")

    def __init__(self, lab: Lab) -> None:
        self.sites = TwoSites(lab, wan="switch", bridges=False)
        self.resolver = Path("/etc/netns") / self.sites.b.namespace.name / "resolv.conf"
        self.resolver.parent.mkdir(parents=True)
        lab.callback(shutil.rmtree, self.resolver.parent)
        self.resolver.write_text("nameserver 203.0.113.1\n")
        for site in self.sites.sites:
            quick_neighbours(site.host)
        profile = Profile()
        issue = profile.authority.issue
        keepalive = {"keepalive": {"ping_seconds": 1, "restart_seconds": 4}}
        self.server = bridged_daemon.server(
            self.sites.a, profile, issue("server", "server"), tunnel=keepalive
        )
        self.client = bridged_daemon.client(
            self.sites.b, profile, issue("client", "client"), SERVER_NAME, tunnel=keepalive
        )
        self.dnsmasq: Process | None = None
        self.sites.a.make_bridge(LAN_PORT)
        self.sites.b.make_bridge()
        self.add_dns()
        self.server.start()
        self.client.start()
        wait_reach(self.sites.b.host, self.sites.a.host.ipv4, 10.0)

    def remove_port(self) -> None:
        self.sites.b.namespace.ip("link", "del", LAN_PORT)

    def add_port(self) -> None:
        site, host = self.sites.b, self.sites.b.host
        self.sites.lab.veth((host.namespace, HOST_PORT), (site.namespace, LAN_PORT))
        host.namespace.ip("link", "set", HOST_PORT, "address", host.mac)
        host.namespace.ip("addr", "add", f"{host.ipv4}/24", "dev", HOST_PORT)
        quick_neighbours(host)

    def remove_bridge(self) -> None:
        self.sites.b.namespace.ip("link", "del", "br0", check=False)

    def add_bridge(self) -> None:
        """Its owner makes it, whether or not the daemon has made one meanwhile."""
        self.sites.b.namespace.ip("link", "del", "br0", check=False)
        self.sites.b.namespace.ip("link", "add", "br0", "type", "bridge", "forward_delay", "0", check=False)
        self.sites.b.namespace.ip("link", "set", "br0", "up")

    def remove_tap(self) -> None:
        self.sites.b.namespace.ip("link", "del", "tap0")

    def remove_wan(self) -> None:
        self.sites.b.namespace.ip("link", "del", WAN_PORT)

    def add_wan(self) -> None:
        site, wan = self.sites.b, self.sites.wan_namespace
        self.sites.lab.veth((wan, "to2"), (site.namespace, WAN_PORT))
        wan.ip("link", "set", "to2", "master", "br0")
        site.namespace.ip("addr", "add", f"{site.wan_ipv4}/24", "dev", WAN_PORT)

    def remove_dns(self) -> None:
        assert self.dnsmasq is not None
        self.dnsmasq.stop()

    def add_dns(self) -> None:
        self.dnsmasq = self.sites.wan_namespace.popen(
            *("dnsmasq", "--keep-in-foreground", "--no-resolv", "--no-hosts", "--conf-file=/dev/null"),
            *("--listen-address=203.0.113.1", "--bind-interfaces", "--pid-file="),
            f"--host-record={SERVER_NAME},{self.sites.a.wan_ipv4}",
        )

    def remove_server(self) -> None:
        stop_all(self.server)

    def add_server(self) -> None:
        self.server.start()

    def remove(self, part: str) -> None:
        step: Callable[[], None] = getattr(self, f"remove_{part}")
        step()

    def add(self, part: str) -> None:
        step: Callable[[], None] = getattr(self, f"add_{part}")
        step()

    def appear_in(self, order: tuple[str, ...]) -> None:
        """Take everything away, and bring it back in this order; then the LANs are joined in time."""
        # The server first: it says farewell, so that no keepalive time is part of what is measured.
        for part in reversed(self.PARTS):
            self.remove(part)
        for part in order:
            self.add(part)
        self.wait_reach()

    def start_client_that_remembers_nothing(self) -> None:
        """Without the addresses at which it has found its server before."""
        stop_all(self.client)
        shutil.rmtree(self.client.state_directory / "remotes")
        self.client.start()

    def wait_reach(self, most: float = WITHIN_SECONDS) -> None:
        wait_reach(self.sites.b.host, self.sites.a.host.ipv4, most)

    def is_silent(self, seconds: float = 1.0) -> bool:
        return is_silent(self.sites.b.host, self.sites.a.host.ipv4, seconds)


@contextmanager
def joined(tag: str) -> Iterator[Joined]:
    lab = Lab(tag)
    with _making:
        lab.__enter__()
    try:
        made = Joined(lab)
        yield made
        stop_all(made.client, made.server)
    except Exception as error:
        error.add_note(lab.logs()[-8000:])
        raise
    finally:
        lab.close()
        lab.__exit__(None, None, None)


def _orders() -> list[tuple[str, ...]]:
    """So many orders of all parts that each order of any four of them is in one."""
    chosen: list[tuple[str, ...]] = []
    missing = set(itertools.permutations(Joined.PARTS, 4))
    orders = list(itertools.permutations(Joined.PARTS))
    while missing:
        best = max(orders, key=lambda order: len(missing & set(itertools.combinations(order, 4))))
        missing -= set(itertools.combinations(best, 4))
        chosen.append(best)
    return chosen


def _try_orders(number: int, orders: list[tuple[str, ...]]) -> None:
    with joined(f"order{number}") as lab:
        for order in orders:
            try:
                lab.appear_in(order)
            except NotInTime as error:
                raise NotInTime(f"{order}: {error}\n{lab.client.started.tail(25)}") from None


def test_whatever_appears_first_the_lans_are_joined_within_two_seconds() -> None:
    orders = _orders()
    assert len(orders) < 40
    with ThreadPoolExecutor(LABS_AT_ONCE) as pool:
        parts = [orders[number::LABS_AT_ONCE] for number in range(LABS_AT_ONCE)]
        list(pool.map(_try_orders, range(LABS_AT_ONCE), parts))


@pytest.fixture(scope="module")
def running() -> Iterator[Joined]:
    with joined("returns") as made:
        yield made


@pytest.mark.parametrize("part", [*Joined.PARTS, "tap"])
def test_what_goes_and_comes_back_while_running_is_used_again_within_two_seconds(
    running: Joined, part: str
) -> None:
    running.wait_reach()
    for _ in range(2):
        running.remove(part)
        if part in ("port", "wan", "server"):
            assert running.is_silent()
        if part != "tap":
            running.add(part)
        running.wait_reach()
    assert {"br0", "tap0", LAN_PORT, WAN_PORT} <= links_of(running.sites.b)


def test_wan_that_goes_down_and_up_costs_two_seconds_at_most(running: Joined) -> None:
    site = running.sites.b
    running.wait_reach()
    site.namespace.ip("link", "set", WAN_PORT, "down")
    assert running.is_silent()
    site.namespace.ip("link", "set", WAN_PORT, "up")
    running.wait_reach()


@contextmanager
def _silent_names(running: Joined) -> Iterator[None]:
    """The name server's questions are lost on their way."""
    wan = running.sites.wan_namespace
    wan.run("nft", "add table inet silence; add chain inet silence in { type filter hook input priority 0; }")
    wan.run("nft", "add rule inet silence in udp dport 53 drop")
    try:
        yield
    finally:
        wan.run("nft", "delete table inet silence")


def test_a_silent_name_server_keeps_nobody_from_a_server_that_was_there_before(running: Joined) -> None:
    with _silent_names(running):
        stop_all(running.server)
        running.server.start()
        running.wait_reach()


def test_name_server_is_asked_again_when_its_silence_ends(running: Joined) -> None:
    """Questions are lost without an answer: worse than a refusal, the resolver waits five seconds."""
    with _silent_names(running):
        running.start_client_that_remembers_nothing()
        assert running.is_silent(3.0)
        assert running.client.tunnel()["state"] in ("resolving", "waiting")
    running.wait_reach(ASKED_AGAIN_SECONDS)


def test_name_server_that_is_silent_does_not_delay_the_end(running: Joined) -> None:
    with _silent_names(running):
        running.start_client_that_remembers_nothing()
        wait_for(lambda: running.client.tunnel()["state"] == "resolving", "the client to ask", 5.0)
        with takes_at_most(3.0, "the end of the daemon"):
            assert running.client.stop() == 0
    running.client.start()
    running.wait_reach()


def test_server_on_one_address_serves_it_as_soon_as_it_appears() -> None:
    with Lab("lateaddr") as lab:
        sites = TwoSites(lab, bridges=False)
        profile = Profile()
        issue = profile.authority.issue
        sites.a.namespace.ip("addr", "del", f"{sites.a.wan_ipv4}/24", "dev", WAN_PORT)
        server = bridged_daemon.server(
            sites.a, profile, issue("server", "server"), listen=f"{sites.a.wan_ipv4}:1194"
        ).start()
        client = bridged_daemon.client(sites.b, profile, issue("client", "client"), sites.a.wan_ipv4).start()
        assert is_silent(sites.b.host, sites.a.host.ipv4, 1.0)
        sites.a.namespace.ip("addr", "add", f"{sites.a.wan_ipv4}/24", "dev", WAN_PORT)
        wait_reach(sites.b.host, sites.a.host.ipv4, ASKED_AGAIN_SECONDS)
        stop_all(client, server)
