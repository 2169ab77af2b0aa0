"""A running daemon reads its configuration anew: what stays the same goes on without losing a frame."""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.lab import HOST_PORT, Authority, Bridged, CommandError, Host, Lab, Profile, TwoSites, wait_for
from tests.lab.bridged_daemon import client, server
from tests.lab.namespace import Namespace
from tests.lab.processes import Process
from tests.system.daemon_lab import stop_all

pytestmark = pytest.mark.root
PING_SECONDS = 0.005
SPARE_PORT = "lan1"
HOLD_PORT = """
import socket, time
holder = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
holder.bind(("0.0.0.0", {port}))
print("holds", flush=True)
time.sleep(60)
"""
HOLD_ADAPTER = """
import time
from bridged_tap.lock import lock_adapter
lock = lock_adapter("tap1")
print("holds", flush=True)
time.sleep(60)
"""
HOLD_NOTHING = "print('holds', flush=True)"


@dataclass
class Running:
    """Two sites joined by our daemons; tests change the configuration of the first, and it is set back."""

    sites: TwoSites
    first: Bridged
    second: Bridged
    profile: Profile
    machine: Host
    """Behind the spare port of the first site."""
    before: dict[str, Any] = field(default_factory=dict)

    def reload(self, change: Callable[[dict[str, Any]], None] = lambda configuration: None) -> str:
        """Change the file and reload; the outcome in words."""
        change(self.first.configuration)
        return self.first.reload()

    def refused(self, change: Callable[[dict[str, Any]], None]) -> str:
        """So, where the daemon says no: its reason. The file is as before afterwards."""
        before = deepcopy(self.first.configuration)
        with pytest.raises(CommandError, match="rejected: ") as refusal:
            self.reload(change)
        self.first.configuration = before
        self.first.write()
        return str(refusal.value)


@pytest.fixture(scope="module")
def started() -> Iterator[Running]:
    with Lab("reload") as lab:
        sites = TwoSites(lab, bridges=False)
        space = lab.namespace("machine")
        lab.veth((space, HOST_PORT), (sites.a.namespace, SPARE_PORT))
        machine = Host(space, "02:00:5e:10:00:31", "10.99.0.31", "fd99::31")
        space.ip("link", "set", HOST_PORT, "address", machine.mac)
        space.ip("addr", "add", f"{machine.ipv4}/24", "dev", HOST_PORT)
        profile = Profile()
        issue = profile.authority.issue
        keys = {"renegotiate": {"seconds": 3}}
        first = server(sites.a, profile, issue("server", "server"), tunnel=keys)
        second = client(sites.b, profile, issue("client", "client"), sites.a.wan_ipv4)
        for daemon in (first, second):
            daemon.start()
        for daemon in (first, second):
            daemon.wait_connected()
        yield Running(sites, first, second, profile, machine)
        stop_all(second, first)
        assert sites.a.namespace.ip("link", "show", "type", "bridge") == ""


@pytest.fixture
def site(started: Running) -> Iterator[Running]:
    before = deepcopy(started.first.configuration)
    yield started
    started.first.configuration = before
    started.reload()
    for daemon in (started.first, started.second):
        daemon.wait_connected()


class NothingLost:
    """Pings every 5 ms from one LAN to the other; at the end every single one was answered."""

    def __init__(self, site: Running) -> None:
        source, target = site.sites.b.host, site.sites.a.host
        source.ping(target.ipv4)
        self._process = source.namespace.popen(
            "ping", "-n", "-i", str(PING_SECONDS), "-W", "2", target.ipv4, log="reload-ping"
        )
        self._process.wait_for_output("icmp_seq=5 ")

    def __enter__(self) -> NothingLost:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.send_signal(signal.SIGINT)
        self._process.wait(10)
        if error[0] is None:
            answered = {int(number) for number in re.findall(r"icmp_seq=(\d+) ttl", self._process.output())}
            # The last ones may have been on their way when it was told to end.
            assert set(range(1, max(answered))) <= answered, self._process.tail()


def test_what_can_change_while_it_runs_does_so_without_a_lost_ping(site: Running) -> None:
    def change(configuration: dict[str, Any]) -> None:
        tunnel = configuration["tunnels"]["lab"]
        tunnel |= {"peers_max": 7, "handshake_seconds": 20, "push": ["route-delay 1"], "peers": ["depot"]}
        configuration["metrics"] = {**configuration.get("metrics", {}), "max_peers": 3}

    with NothingLost(site):
        assert site.reload(change) == "applied"
        assert site.first.tunnel()["peers_limit"] == 7
        assert {peer["name"] for peer in site.first.tunnel()["peers"]} == {"client", "depot"}
    assert site.first.metric("bridged_config_reloads_total", outcome="applied") >= 1
    assert site.first.metric("bridged_config_last_reload_successful") == 1


def test_a_hundred_reloads_by_signal_lose_no_ping(site: Running) -> None:
    def handled() -> float:
        return site.first.metric("bridged_config_reloads_total", outcome="applied")

    begun, connections = handled(), site.first.tunnel()["peers"][0]["connections"]
    with NothingLost(site):
        for number in range(100):
            site.first.configuration["tunnels"]["lab"]["peers_max"] = 10 + number
            site.first.write()
            site.first.started.send_signal(signal.SIGHUP)
        wait_for(lambda: site.first.tunnel()["peers_limit"] == 109, "the last reload", 30)
    assert handled() > begun
    assert site.first.tunnel()["peers"][0]["connections"] == connections


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda configuration: configuration["tunnels"]["lab"].update(peers_max="many"), "peers_max"),
        (lambda configuration: configuration.update(state_directory="/elsewhere"), "restart it"),
        (lambda configuration: configuration["tunnels"]["lab"]["tls"].update(ca="/no/such/file"), "tls.ca"),
        (lambda configuration: configuration["bridges"]["br0"]["ports"].append("wan0"), "carries the tunnel"),
    ],
)
def test_what_cannot_be_is_refused_and_all_goes_on(
    site: Running, change: Callable[[dict[str, Any]], None], reason: str
) -> None:
    def rejected() -> float:
        return site.first.metric("bridged_config_reloads_total", outcome="rejected")

    begun, read = rejected(), len(site.first.log)
    with NothingLost(site):
        if reason == "peers_max":
            # The command itself sees that the file is wrong; the daemon is told by the signal.
            change(site.first.configuration)
            site.first.write()
            site.first.started.send_signal(signal.SIGHUP)
            wait_for(lambda: rejected() > begun, "a refusal", 5)
            assert any(
                "reload_rejected" in line and reason in line for line in site.first.log[read:].splitlines()
            )
        else:
            assert reason in site.refused(change)
    assert rejected() == begun + 1
    assert site.first.metric("bridged_config_last_reload_successful") == 0


def test_a_port_and_a_second_tunnel_come_and_go_beside_one_that_loses_nothing(site: Running) -> None:
    def come(configuration: dict[str, Any]) -> None:
        other = deepcopy(configuration["tunnels"]["lab"])
        other |= {"listen": "0.0.0.0:1195", "bridge": "br1", "tap": {"name": "tap1"}}
        configuration["tunnels"]["other"] = other
        configuration["bridges"]["br1"] = {}

    def port(configuration: dict[str, Any]) -> None:
        configuration["bridges"]["br0"]["ports"] = [*configuration["bridges"]["br0"]["ports"], SPARE_PORT]

    with NothingLost(site):
        assert site.reload(come) == "applied"
        assert site.first.tunnel("other")["state"] == "listening"
        assert "tap1" in site.sites.a.namespace.ip("link", "show", "master", "br1")
        assert site.reload(port) == "applied"
        wait_for(lambda: site.machine.reaches(site.sites.b.host.ipv4), "the machine at the new port", 10)
        del site.first.configuration["tunnels"]["other"], site.first.configuration["bridges"]["br1"]
        assert site.reload() == "applied"
        links = site.sites.a.namespace.ip("link", "show")
        assert "tap1" not in links and "br1" not in links


def test_a_reload_ends_the_sessions_of_those_whom_it_lets_in_no_more_and_nobody_else_s(site: Running) -> None:
    ca = site.profile.authority.certificate
    other = Authority("Other CA").certificate

    def trust(text: str) -> Callable[[dict[str, Any]], None]:
        def change(configuration: dict[str, Any]) -> None:
            configuration["tunnels"]["lab"]["tls"]["ca"] = text

        return change

    def established() -> int:
        outcomes = site.first.tunnel()["renegotiations"].values()
        return sum(counts.get("established", 0) for counts in outcomes)

    def expired() -> float:
        return site.first.metric("bridged_peer_disconnects_total", reason="auth_expired")

    ended = expired()
    with NothingLost(site):
        assert site.reload(trust(ca + other)) == "applied"
        before = established()
        wait_for(lambda: established() > before, "a renegotiation under the new rules", 10)
    assert site.reload(trust(other)) == "applied"
    assert site.first.connected_peers() == []
    assert expired() == ended + 1
    site.second.wait_until(
        lambda status: status["tunnels"][0]["state"] != "connected", "the client to hear of it", 3
    )


def test_a_persistent_adapter_leaves_a_bridge_with_its_tunnel(site: Running) -> None:
    def tunnel(configuration: dict[str, Any], bridge: str) -> None:
        other = deepcopy(configuration["tunnels"]["lab"])
        other |= {"listen": "0.0.0.0:1195", "bridge": bridge, "tap": {"name": "tap1", "persistent": True}}
        configuration["tunnels"]["other"] = other
        configuration["bridges"] |= {"br1": {}, "br2": {}}

    def holder() -> str:
        return site.sites.a.namespace.ip("-o", "link", "show", "tap1")

    try:
        with NothingLost(site):
            assert site.reload(lambda configuration: tunnel(configuration, "br1")) == "applied"
            assert "master br1" in holder()
            moved = site.reload(lambda configuration: tunnel(configuration, "br2"))
            assert moved == "applied; restarted: tunnels.other, bridges.br1"
            assert "master br2" in holder()
            del site.first.configuration["tunnels"]["other"]
            assert site.reload() == "applied; restarted: bridges.br2"
            assert "master" not in holder()
    finally:
        site.sites.a.namespace.ip("link", "del", "tap1", check=False)


def test_a_port_that_goes_is_given_back(site: Running) -> None:
    ports = site.first.configuration["bridges"]["br0"]["ports"]
    site.first.configuration["bridges"]["br0"]["ports"] = [*ports, SPARE_PORT]
    assert site.reload() == "applied"
    site.first.configuration["bridges"]["br0"]["ports"] = ports
    assert site.reload() == "applied; restarted: bridges.br0"
    assert "master" not in site.sites.a.namespace.ip("link", "show", SPARE_PORT)
    site.sites.b.host.ping(site.sites.a.host.ipv4)


def test_one_tunnel_starts_anew_alone_where_it_must(site: Running) -> None:
    def change(configuration: dict[str, Any]) -> None:
        configuration["tunnels"]["lab"]["replay_window"] = 1024

    pid = site.first.started.pid
    assert site.reload(change) == "applied; restarted: tunnels.lab"
    wait_for(lambda: site.sites.b.host.reaches(site.sites.a.host.ipv4), "the client to be back", 20)
    assert site.first.started.pid == pid and site.first.started.running


def add_tunnel(configuration: dict[str, Any], **keys: Any) -> None:
    """A port of the first bridge, which could be had at once, and a second tunnel."""
    other = deepcopy(configuration["tunnels"]["lab"])
    configuration["tunnels"]["other"] = other | {"tap": {"name": "tap1"}, "listen": "0.0.0.0:1195"} | keys
    bridge = configuration["bridges"]["br0"]
    bridge["ports"] = [*bridge["ports"], SPARE_PORT]


def mark(space: Namespace, monitor: Process, size: int) -> None:
    """Until the monitor shows a change of `lo`: what came before has been seen, too."""
    sizes = iter(range(size, size + 500))

    def seen() -> bool:
        space.ip("link", "set", "lo", "mtu", str(next(sizes)))
        return re.search(rf": lo: .* mtu {size // 1000}\d\d\d ", monitor.output()) is not None

    wait_for(seen, "the monitor of links", 10)


def add_bridge(configuration: dict[str, Any]) -> None:
    add_tunnel(configuration, bridge="wan0")
    configuration["bridges"]["wan0"] = {}


@pytest.mark.parametrize(
    ("program", "change", "reason"),
    [
        (HOLD_PORT.format(port=1195), add_tunnel, "another program has the UDP address 0.0.0.0:1195"),
        (HOLD_ADAPTER, add_tunnel, "adapter tap1 is held by process"),
        (HOLD_NOTHING, add_bridge, "a link wan0 that is not a bridge"),
    ],
)
def test_a_reload_that_is_rejected_has_touched_nothing(
    site: Running, program: str, change: Callable[[dict[str, Any]], None], reason: str
) -> None:
    space = site.sites.a.namespace
    holder = space.popen(sys.executable, "-c", program, log="holder")
    holder.wait_for_output("holds")
    links = space.popen("ip", "monitor", "link", log="links")
    mark(space, links, 60000)
    try:
        with NothingLost(site):
            message = site.refused(change)
            assert re.search(reason, message) and "nothing was changed" in message
        mark(space, links, 61000)
        assert not re.search(rf"\b({SPARE_PORT}|tap1|br1|wan0)\b", links.output()), links.output()
    finally:
        links.stop()
        holder.stop()
