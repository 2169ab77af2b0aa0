"""The lab itself, proved with real OpenVPN at both ends: what it says of our daemon can be believed.

Also that it leaves nothing behind, whatever way it ends.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.lab import Hub, Interrupted, Lab, LabError, OpenVpn, Profile, TwoSites, openvpn_pair, wait_for
from tests.lab.frames import discovery_kit, missing_at
from tests.lab.namespace import lab_namespaces
from tests.lab.openvpn import CIPHERS
from tests.lab.relay import Relay

pytestmark = pytest.mark.root
REPOSITORY = Path(__file__).parents[2]
WRAPS = ("none", "tls-auth", "tls-crypt")
# What OpenVPN logs of the first handshake's wrapping.
SIGNS = {"tls-auth": "Control Channel Authentication: ", "tls-crypt": "Control Channel Encryption: "}

HOLD_A_LAB = """
import sys, time
sys.path.insert(0, sys.argv[1])
from tests.lab import Lab, TwoSites, openvpn_pair
with Lab("held") as lab:
    sites = TwoSites(lab)
    openvpn_pair(sites.a, sites.b)
    print("ready", lab.directory, flush=True)
    time.sleep(60)
"""


def held_lab() -> tuple[subprocess.Popen[str], Path]:
    """A lab of another program, standing; and the directory of its files."""
    program = subprocess.Popen(
        [sys.executable, "-c", HOLD_A_LAB, str(REPOSITORY)], stdout=subprocess.PIPE, text=True
    )
    assert program.stdout is not None
    line = program.stdout.readline().split()
    assert line[0] == "ready"
    return program, Path(line[1])


def namespaces_of(pid: int) -> list[str]:
    return [name for name in lab_namespaces() if f"-{pid}-" in name]


def test_the_discovery_kit_crosses_between_two_openvpn_ends_octet_for_octet() -> None:
    with Lab("kit") as lab:
        sites = TwoSites(lab)
        openvpn_pair(sites.a, sites.b)
        a, b = sites.a.host, sites.b.host
        a.ping(b.ipv4)
        assert missing_at(a, b, discovery_kit(a, b)) == {}
        assert missing_at(b, a, discovery_kit(b, a)) == {}


def test_a_frame_that_is_lost_repeated_or_changed_is_reported() -> None:
    with Lab("kitneg") as lab:
        sites = TwoSites(lab)
        a, b = sites.a.host, sites.b.host
        kit = {"arp": discovery_kit(a, b)["arp"]}
        assert missing_at(a, b, kit, seconds=0.3) == {"arp": "lost"}  # no tunnel at all
        lab.veth((sites.a.namespace, "x0"), (sites.b.namespace, "x1"))
        sites.a.attach("x0")
        sites.b.attach("x1")
        assert missing_at(a, b, kit) == {}
        assert missing_at(a, b, kit | {"again": kit["arp"]})["arp"] == "2 copies"


@pytest.mark.parametrize(("wrap", "cipher"), list(zip(WRAPS, CIPHERS, strict=True)))
def test_two_openvpn_ends_use_what_the_profile_says(wrap: str, cipher: str) -> None:
    with Lab("combo") as lab:
        sites = TwoSites(lab)
        profile = Profile(wrap=wrap, ciphers=(cipher,), tls_max="1.2")  # type: ignore[arg-type]
        server, client = openvpn_pair(sites.a, sites.b, profile)
        sites.a.host.ping(sites.b.host.ipv6)
        assert client.data_cipher() == cipher
        assert set(client.key_derivations()) == {"exporter"}
        assert "TLSv1.2" in server.log
        assert [mode for mode in WRAPS if mode in SIGNS and SIGNS[mode] in server.log] == (
            [] if wrap == "none" else [wrap]
        )


def test_clients_of_an_openvpn_hub_reach_each_other() -> None:
    with Lab("hub") as lab:
        hub = Hub(lab, 2)
        profile = Profile()
        issue = profile.authority.issue
        OpenVpn(hub.server, "server", profile, issue("server", "server"), extra=("client-to-client",)).start()
        for site in hub.clients:
            name = site.namespace.role
            vpn = OpenVpn(site, "client", profile, issue(name, "client"), remote=hub.server.wan_ipv4)
            vpn.start().wait_connected()
        hub.clients[0].host.ping(hub.clients[1].host.ipv4)
        hub.clients[1].host.ping(hub.server.host.ipv6)


def test_openvpn_refuses_a_server_whose_certificate_another_authority_signed() -> None:
    with Lab("refuse") as lab:
        sites = TwoSites(lab)
        theirs = Profile()
        mine = Profile(wrap_key=theirs.wrap_key)
        OpenVpn(sites.a, "server", theirs, theirs.authority.issue("server", "server")).start()
        remote = sites.a.wan_ipv4
        client = OpenVpn(sites.b, "client", mine, mine.authority.issue("client", "client"), remote=remote)
        client.start().started.wait_for_output("VERIFY ERROR", 15)
        with pytest.raises(LabError):
            client.wait_connected(1.0)


def test_the_relay_impairs_as_told_and_counts_it() -> None:
    with Lab("relay") as lab:
        sites = TwoSites(lab, wan="switch")
        relay = Relay(sites.wan_namespace, ("203.0.113.1", 1194), (sites.a.wan_ipv4, 1194))
        server, _ = openvpn_pair(sites.a, sites.b, remote="203.0.113.1")
        host, other = sites.a.host, sites.b.host
        host.ping(other.ipv4)
        assert relay.counters()["lost"] == 0
        relay.change(delay=0.02)
        assert host.ping(other.ipv4) >= 40
        before = relay.counters()
        relay.change(delay=0, loss=0.5)
        host.namespace.run("ping", "-c", "40", "-i", "0.01", "-W", "1", other.ipv4, check=False)
        lost, sent = (relay.counters()[name] - before[name] for name in ("lost", "sent"))
        assert 0.2 < lost / (lost + sent) < 0.8
        relay.change(loss=0)
        relay.rebind()
        wait_for(lambda: other.reaches(host.ipv4), "traffic through the new port")
        wait_for(lambda: "floated from" in server.log, "OpenVPN to see the new port")
        relay.change(blackhole=True)
        assert not host.reaches(other.ipv4)


def test_a_routed_wan_lets_a_site_move_to_another_address() -> None:
    with Lab("move") as lab:
        sites = TwoSites(lab, wan="router")
        openvpn_pair(sites.a, sites.b)
        sites.a.host.ping(sites.b.host.ipv4)
        sites.b.change_wan_ipv4("203.0.113.77")
        assert "203.0.113.77/24" in sites.b.namespace.ip("addr", "show", "dev", "wan0")
        sites.b.namespace.run("ping", "-c", "1", "-W", "2", sites.a.wan_ipv4)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_lab_that_gets_a_signal_leaves_nothing_behind(number: signal.Signals) -> None:
    program, directory = held_lab()
    assert namespaces_of(program.pid)
    program.send_signal(number)
    assert program.wait(30) != 0
    assert namespaces_of(program.pid) == []
    assert not directory.exists()


def test_what_a_killed_lab_left_is_removed_by_the_next_one() -> None:
    program, directory = held_lab()
    program.kill()
    program.wait(10)
    wait_for(lambda: not os.path.exists(f"/proc/{program.pid}"), "the program to be gone")
    assert namespaces_of(program.pid)
    with Lab("next"):
        assert namespaces_of(program.pid) == []
        assert not directory.exists()


def test_a_lab_that_fails_half_way_leaves_nothing_behind() -> None:
    with pytest.raises(RuntimeError, match="on purpose"), Lab("fails") as lab:
        sites = TwoSites(lab)
        background = "sleep 300 & sleep 300"
        sites.a.namespace.popen("sh", "-c", background)
        time.sleep(0.1)
        raise RuntimeError("on purpose")
    assert lab.leftovers() == []
    assert not lab.directory.exists()


def test_a_signal_during_the_lab_is_an_exception_with_the_exit_status() -> None:
    with pytest.raises(Interrupted) as caught, Lab("signal") as lab:
        lab.namespace("alone")
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
    assert caught.value.status == 143
    assert lab.leftovers() == []
