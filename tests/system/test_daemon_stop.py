"""The end of a daemon: asked or killed, what it made goes and what it adopted is as before.

And what can be seen of it from outside while it runs.
"""

from __future__ import annotations

import itertools
import json
import re
import signal
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from bridged.dataplane import choose_dataplane
from tests.lab import (
    LAN_PORT,
    Bridged,
    Host,
    Lab,
    Profile,
    Site,
    TwoSites,
    bridged_daemon,
    bridged_pair,
    status_of,
    wait_for,
)
from tests.lab.bounds import takes_at_most
from tests.lab.frames import capturing, received_frames, send_frames
from tests.lab.host_links import assert_same_host, photograph
from tests.lab.relay import Relay
from tests.system.daemon_lab import pinging, stop_all, wait_reach

pytestmark = [pytest.mark.root, pytest.mark.measures]

STOP_SECONDS = 3.0
SILENT_SECONDS = 2.0 + STOP_SECONDS
"""A farewell waits two seconds for its answer."""
MORE_TUNNELS = 8
RELAY = ("203.0.113.1", 1195)
ONCE = ("tap_opened", "daemon_started", "peer_connected", "peer_disconnected", "daemon_stopped")


@pytest.fixture(params=["made bridge", "adopted bridge"])
def sites(request: pytest.FixtureRequest) -> Iterator[TwoSites]:
    with Lab("stop") as lab:
        made = TwoSites(lab, bridges=False)
        if request.param == "adopted bridge":
            for site in made.sites:
                site.make_bridge()
        yield made


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_leaves_the_host_as_it_was_within_three_seconds(sites: TwoSites, number: signal.Signals) -> None:
    before = [_photograph(site) for site in sites.sites]
    server, client = bridged_pair(sites.a, sites.b)
    sites.a.host.ping(sites.b.host.ipv4, count=2)
    for daemon in (client, server):
        with takes_at_most(STOP_SECONDS, "the end of a daemon"):
            assert daemon.stop(number) == 0, daemon.started.tail()
        assert daemon.log.count("daemon_stopped") == 1
        assert not daemon.socket.exists()
    for site, photo in zip(sites.sites, before, strict=True):
        assert_same_host(_photograph(site), photo)


@pytest.mark.parametrize("way", ["stop", "reload"])
def test_tunnels_that_end_together_wait_once_for_peers_that_do_not_answer(way: str) -> None:
    """One after another, eight farewells took 10 s; systemd kills what takes 30 s to stop."""
    with Lab("silent") as lab:
        sites = TwoSites(lab, bridges=False)
        profile = Profile()
        issue = profile.authority.issue
        server = bridged_daemon.server(sites.a, profile, issue("server", "server")).start()
        client = bridged_daemon.client(sites.b, profile, issue("client", "client"), sites.a.wan_ipv4)
        one = dict(client.configuration)
        client.configuration |= _with_more_tunnels(one, profile)
        client.write()
        client.start().wait_until(_is_connected, "all tunnels to be connected", 20)
        server.started.send_signal(signal.SIGSTOP)
        with takes_at_most(SILENT_SECONDS, f"the {way} while the server is silent"):
            if way == "stop":
                assert client.stop() == 0, client.started.tail()
            else:
                client.configuration = one
                assert client.reload() == "applied"
        server.started.send_signal(signal.SIGCONT)
        stop_all(client, server)


def test_a_loop_of_two_tunnels_stays_blocked_until_they_have_ended() -> None:
    """Both tunnels of site b lead to one server: opened, the loop would send a frame round without end."""
    with Lab("ring") as lab:
        sites = TwoSites(lab, wan="switch", bridges=False)
        profile = Profile()
        # Control packets take longer than frames: the third tunnel's end waits for its answer meanwhile.
        relay = Relay(
            sites.wan_namespace, RELAY, (sites.a.wan_ipv4, profile.port), delay=0.15, only="control"
        )
        issue = profile.authority.issue
        server = bridged_daemon.server(sites.a, profile, issue("server", "server")).start()
        remote = f"{RELAY[0]}:{RELAY[1]}"
        client = bridged_daemon.client(sites.b, profile, issue("client", "client"), remote)
        client.configuration |= _with_more_tunnels(client.configuration, profile, 2)
        client.configuration["tunnels"]["more0"]["bridge"] = "br0"
        client.write()
        client.start().wait_until(lambda status: "tunnel_loop" in status["warnings"], "the loop to be found")
        is_over = threading.Event()
        heard: Counter[bytes] = Counter()
        with capturing(sites.a.host) as (ear,), ThreadPoolExecutor(1) as talker:
            talking = talker.submit(_talk, sites.b.host, is_over)
            wait_for(
                lambda: heard.update(received_frames(ear)) or len(_talk_of(heard)) > 20, "frames to cross"
            )
            stop_all(client)
            is_over.set()
            talking.result()
            heard.update(received_frames(ear))
        copies = Counter(_talk_of(heard).values())
        assert set(copies) == {1}, copies
        stop_all(server)
        relay.process.stop()


TALK = b"\xff" * 6 + b"\x02\xbb\0\0\0\1" + b"\x88\xb6"


def _talk(host: Host, is_over: threading.Event) -> None:
    """Broadcasts, all different, a millisecond apart."""
    numbers = itertools.count()
    while not is_over.is_set():
        frames = [TALK + struct.pack("!Q42x", next(numbers)) for _ in range(20)]
        send_frames(host, frames, gap_seconds=0.001)


def _talk_of(heard: Counter[bytes]) -> dict[bytes, int]:
    return {frame: copies for frame, copies in heard.items() if frame.startswith(TALK)}


def _with_more_tunnels(one: dict[str, Any], profile: Profile, more: int = MORE_TUNNELS) -> dict[str, Any]:
    """So many beside the tunnel of `one`, each in a bridge of its own."""
    tunnels, bridges = dict(one["tunnels"]), dict(one["bridges"])
    for number in range(more):
        identity = profile.authority.issue(f"more{number}", "client")
        own = {"certificate": identity.certificate, "key": identity.key}
        like = tunnels[bridged_daemon.TUNNEL]
        tunnels[f"more{number}"] = like | {
            "bridge": f"more{number}",
            "tap": {},
            "tls": like["tls"] | own,
        }
        bridges[f"more{number}"] = {}
    return {"tunnels": tunnels, "bridges": bridges}


def _is_connected(status: dict[str, Any]) -> bool:
    tunnels = status["tunnels"]
    return len(tunnels) == MORE_TUNNELS + 1 and all(tunnel["state"] == "connected" for tunnel in tunnels)


def test_killed_daemon_starts_again_at_once_and_then_leaves_nothing(sites: TwoSites) -> None:
    before = [_photograph(site) for site in sites.sites]
    server, client = bridged_pair(sites.a, sites.b)
    macs = [daemon.tunnel()["tap_mac"] for daemon in (server, client)]
    for daemon in (server, client):
        daemon.stop(signal.SIGKILL)
        assert daemon.socket.exists()
    for daemon in (server, client):
        daemon.start()
    client.wait_connected()
    wait_reach(sites.a.host, sites.b.host.ipv4, 5.0)
    assert [daemon.tunnel()["tap_mac"] for daemon in (server, client)] == macs
    stop_all(client, server)
    for site, photo in zip(sites.sites, before, strict=True):
        assert_same_host(_photograph(site), photo)


def test_a_bridge_and_a_port_that_left_the_configuration_after_a_kill_are_given_back_at_the_start() -> None:
    with Lab("leftovers") as lab:
        site = TwoSites(lab, bridges=False).a
        site.namespace.ip("link", "add", "eth7", "type", "veth", "peer", "name", "eth7x")
        site.namespace.ip("link", "add", "eth8", "type", "veth", "peer", "name", "eth8x")
        before = _photograph(site)
        profile = Profile()
        daemon = bridged_daemon.server(site, profile, profile.authority.issue("server", "server"))
        kept, more = dict(daemon.configuration["bridges"]), {"ports": ["eth7"], "addresses": ["192.0.2.9/24"]}
        daemon.configuration["bridges"] = {"br0": {"ports": [LAN_PORT, "eth8"]}, "br1": more}
        daemon.write()
        daemon.start().stop(signal.SIGKILL)
        assert "192.0.2.9" in site.namespace.ip("addr", "show", "dev", "br1")
        daemon.configuration["bridges"] = kept
        daemon.write()
        status = daemon.start().status()
        assert [bridge["name"] for bridge in status["bridges"]] == ["br0"]
        links = site.namespace.ip("-o", "link", "show")
        assert "br1" not in links and "eth8x" in links
        assert "master" not in site.namespace.ip("-o", "link", "show", "dev", "eth8")
        assert daemon.log.count("bridge_leftovers_given_back") == 2
        stop_all(daemon)
        assert_same_host(_photograph(site), before)


def test_kill_during_a_hand_over_of_addresses_is_mended_by_the_next_run() -> None:
    """The bridge with the host's addresses is left behind; the next run takes it over and gives it back."""
    with Lab("killed") as lab:
        sites = TwoSites(lab, bridges=False)
        sites.b.namespace.ip("addr", "add", "10.99.0.200/24", "dev", LAN_PORT)
        before = _photograph(sites.b)
        profile = Profile()
        identity = profile.authority.issue("client", "client")
        client = bridged_daemon.client(sites.b, profile, identity, sites.a.wan_ipv4).start()
        assert "10.99.0.200" in sites.b.namespace.ip("addr", "show", "dev", "br0")
        client.stop(signal.SIGKILL)
        client.start()
        sites.b.host.ping("10.99.0.200", count=2)
        stop_all(client)
        assert_same_host(_photograph(sites.b), before)


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[TwoSites, Bridged, Bridged]]:
    with Lab("seen") as lab:
        made = TwoSites(lab, bridges=False)
        server, client = bridged_pair(made.a, made.b)
        made.a.host.ping(made.b.host.ipv4, count=2)
        yield made, server, client
        stop_all(client, server)


def test_scrapes_during_traffic_cost_no_ping(running: tuple[TwoSites, Bridged, Bridged]) -> None:
    sites, server, _ = running
    with pinging(sites.a.host, sites.b.host.ipv4) as pings:
        pings.wait_for_answers(10)
        frames = [server.metric("bridged_peer_frames_total", peer="client") for _ in range(10)]
        pings.wait_for_answers(10)
        pings.stop()
    assert pings.lost() == 0
    assert frames == sorted(frames) and frames[-1] > frames[0]
    text = server.metrics()
    for name in (
        "bridged_build_info",
        "bridged_tunnel_peers",
        "bridged_fdb_entries",
        "bridged_handshakes_total",
    ):
        assert re.search(rf"^{name}(\{{| )", text, re.MULTILINE), name


def test_status_as_text_and_as_json_say_the_same(running: tuple[TwoSites, Bridged, Bridged]) -> None:
    _, server, client = running
    for daemon, peer in ((server, "client"), (client, "server")):
        text = daemon.command("status", "--config", str(daemon.file))
        document = daemon.site.namespace.call(status_of, daemon.file)
        (tunnel,) = document["tunnels"]
        (seen,) = [item for item in tunnel["peers"] if item["connected"]]
        assert seen["name"] == peer
        assert seen["key_group"] == "X25519MLKEM768" and seen["tls_version"] == "TLSv1.3"
        build = choose_dataplane("auto").kind
        for word in (tunnel["role"], peer, seen["endpoint"], seen["cipher"], seen["key_group"], build):
            assert word in text, text
        assert document["pid"] == daemon.status()["pid"]


def test_tap_list_names_adapter_and_holder(running: tuple[TwoSites, Bridged, Bridged]) -> None:
    _, server, _ = running
    listed = server.command("tap", "list")
    assert "tap0" in listed and str(server.status()["pid"]) in listed
    shown = server.command("tap", "show", "tap0")
    assert server.tunnel()["tap_mac"] in shown


def test_log_has_one_line_for_an_event_and_no_secrets() -> None:
    with Lab("logs") as lab:
        sites = TwoSites(lab)
        server, client = _daemons_with_json_logs(sites)
        sites.a.host.ping(sites.b.host.ipv4, count=3)
        stop_all(client, server)
        for daemon in (server, client):
            lines = [json.loads(line) for line in daemon.log.splitlines()]
            names = [line["event"] for line in lines]
            for name in (
                "tap_opened",
                "daemon_started",
                "peer_connected",
                "peer_disconnected",
                "daemon_stopped",
            ):
                assert names.count(name) == 1, (name, names)
            assert len(lines) < 20
            for secret in _secrets(daemon):
                assert secret not in daemon.log
            assert "BEGIN" not in daemon.log


def _daemons_with_json_logs(sites: TwoSites) -> tuple[Bridged, Bridged]:
    profile = Profile()
    issue = profile.authority.issue
    top = {"log": {"format": "json", "level": "debug"}}
    server = bridged_daemon.server(sites.a, profile, issue("server", "server"), top=top).start()
    client = bridged_daemon.client(
        sites.b, profile, issue("client", "client"), sites.a.wan_ipv4, top=top
    ).start()
    client.wait_connected()
    server.wait_connected()
    return server, client


def _secrets(daemon: Bridged) -> list[str]:
    """Lines of the daemon's private keys."""
    tunnel: dict[str, Any] = daemon.configuration["tunnels"]["lab"]
    text = tunnel["tls"]["key"] + tunnel["wrap"]["key"]
    return [line for line in text.splitlines() if len(line) >= 16 and not line.startswith("-")]


def _photograph(site: Site) -> dict[str, Any]:
    return site.namespace.call(photograph)
