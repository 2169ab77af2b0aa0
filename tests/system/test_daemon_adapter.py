"""The daemon's TAP: which address it has, that nobody else may use it, and that full queues are counted."""

from __future__ import annotations

import resource
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from tests.lab import Bridged, Lab, Profile, TwoSites, bridged_daemon, bridged_pair, wait_for
from tests.lab.frames import send_frames
from tests.system.daemon_lab import own_kibioctets, pinging, stop_all

pytestmark = pytest.mark.root

STORM_FRAMES = 40_000
FIXED = "02:00:5e:10:77:01"


@pytest.fixture
def sites() -> Iterator[TwoSites]:
    with Lab("adapter") as lab:
        yield TwoSites(lab)


def _server(sites: TwoSites, tap: dict[str, Any], name: str = "bridged", **keys: Any) -> Bridged:
    profile = Profile()
    identity = profile.authority.issue("server", "server")
    tunnel = {"tap": {"name": "tap0", **tap}, **keys}
    return bridged_daemon.server(sites.a, profile, identity, tunnel=tunnel, name=name)


def _addresses(daemon: Bridged, runs: int) -> list[str]:
    """The TAP's address in each of some runs."""
    seen = []
    for _ in range(runs):
        daemon.start()
        mac = str(daemon.tunnel()["tap_mac"])
        assert mac in daemon.site.namespace.ip("link", "show", "tap0")
        seen.append(mac)
        stop_all(daemon)
    return seen


def test_random_address_is_kept_over_restarts_and_not_over_a_new_state_folder(sites: TwoSites) -> None:
    daemon = _server(sites, {"mac": "random"})
    first = _addresses(daemon, 2)
    assert first[0] == first[1] and _is_local_unicast(first[0])
    for file in daemon.state_directory.rglob("*"):
        if file.is_file():
            file.unlink()
    assert _addresses(daemon, 1) != first[:1]


def test_ephemeral_address_is_another_one_each_time(sites: TwoSites) -> None:
    seen = _addresses(_server(sites, {"mac": "ephemeral"}), 3)
    assert len(set(seen)) == 3 and all(map(_is_local_unicast, seen))


def test_stable_address_is_the_same_without_any_state(sites: TwoSites) -> None:
    seen = []
    for number in (1, 2):
        seen += _addresses(_server(sites, {"mac": "stable"}, name=f"daemon{number}"), 1)
    assert len(set(seen)) == 1 and _is_local_unicast(seen[0])


def test_fixed_address_is_used_as_it_is(sites: TwoSites) -> None:
    assert _addresses(_server(sites, {"mac": FIXED}), 1) == [FIXED]


def test_a_tap_that_vanishes_while_descriptors_are_exhausted_comes_back(sites: TwoSites) -> None:
    """Nothing can be opened for seconds: the duty is counted as undone, and done once that is over."""
    daemon = _server(sites, {}).start()
    daemon.wait_until(lambda status: status["bridges"][0]["ports"]["tap0"], "the TAP in its bridge")
    pid = int(daemon.status()["pid"])
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    # Any new descriptor would have a higher number, whatever is closed meanwhile.
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, before[1]))
    sites.a.namespace.ip("link", "delete", "tap0")
    wait_for(lambda: daemon.log.count("duty_failed") >= 1, "a failed attempt", 10.0)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
    status = daemon.wait_until(
        lambda status: status["bridges"][0]["ports"]["tap0"] and not status["duties"]["undone"],
        "the TAP back in its bridge",
        15.0,
    )
    assert status["duties"]["failures"]["tap"] >= 1
    assert "Too many open files" in daemon.log
    assert daemon.metric("bridged_duty_failures_total", duty="tap") >= 1
    stop_all(daemon)


def _is_local_unicast(text: str) -> bool:
    return int(text[:2], 16) & 0b11 == 0b10


def test_second_daemon_on_the_adapter_is_refused_and_told_who_holds_it(sites: TwoSites) -> None:
    first = _server(sites, {}).start()
    second = _server(sites, {}, name="second", listen="0.0.0.0:1195")
    second.configuration["metrics"] = {"listen": None}
    second.write()
    second.start(wait=False)
    assert second.started.wait(10.0) == 1
    pid = str(first.status()["pid"])
    assert pid in second.log and "bridged" in second.log and "tap0" in second.log
    assert "run --config" in second.log, "the holder's command is named"
    assert first.status()["bridges"][0]["ports"] == {"lan0": True, "tap0": True}
    first.stop(signal.SIGKILL)
    second.start()
    assert second.tunnel()["tap"] == "tap0"
    stop_all(second)


def test_second_daemon_on_the_bridge_is_refused_and_takes_nothing_from_the_first(sites: TwoSites) -> None:
    """Even with the same state folder, whose journal is the first one's, and with another MAC address."""
    first = _server(sites, {}).start()
    link = sites.a.namespace.ip("link", "show", "br0")
    for bridge in ("br0", "br1"):
        second = _server(sites, {"name": "tap1"}, name="second", listen="0.0.0.0:1195", bridge=bridge)
        second.configuration["metrics"] = {"listen": None}
        second.configuration["state_directory"] = str(first.state_directory)
        second.configuration["bridges"] = {bridge: {"mac": "02:00:5e:10:99:99"}}
        second.write()
        if bridge == "br0":
            second.start(wait=False)
            assert second.started.wait(10.0) == 1
            assert f"br0 is kept by process {first.status()['pid']}" in second.log
        else:
            stop_all(second.start())
        assert sites.a.namespace.ip("link", "show", "br0") == link
        assert first.status()["bridges"][0]["ports"] == {"lan0": True, "tap0": True}
    stop_all(first)


def test_storm_on_the_lan_overflows_a_counted_queue_and_nothing_else(sites: TwoSites) -> None:
    """More than the data plane can take, through a TAP queue of the smallest size."""
    server, client = bridged_pair(
        sites.a, sites.b, server_tunnel={"tap": {"name": "tap0", "queue_frames": 64}}
    )
    near, far = sites.a.host, sites.b.host
    near.ping(far.ipv4, count=2)
    before = own_kibioctets(server)
    source = bytes.fromhex(near.mac.replace(":", ""))
    frames = [b"\xff" * 6 + source + b"\x88\xb6" + bytes(1500)] * STORM_FRAMES
    send_frames(near, frames)
    with pinging(far, near.ipv4, 0.02) as pings:
        pings.wait_for_answers(50, 5.0)
    assert own_kibioctets(server) - before < 32 * 1024
    sent = server.metric("bridged_peer_frames_total", direction="transmit", kind="broadcast")
    overflown = server.metric("bridged_kernel_drops_total", where="tap_txqueue")
    assert overflown > 0
    assert sent + overflown + server.metric("bridged_drops_total", direction="transmit") >= len(frames)
    stop_all(client, server)
