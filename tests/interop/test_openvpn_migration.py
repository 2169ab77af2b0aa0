"""A running OpenVPN TAP server is replaced as docs/guides/replace-openvpn.md says, its client untouched."""

from __future__ import annotations

import signal

import pytest

from tests.lab import Lab, OpenVpn, Profile, TwoSites, wait_for
from tests.lab.machine import Machine
from tests.lab.openvpn import COMPLETED
from tests.lab.pki import static_key
from tests.unit.documents.guides import guide

pytestmark = pytest.mark.root

SERVER_FILE = """\
port 1194
proto udp
dev tap0
ca ca.crt
cert server.crt
key server.key
dh none
server-bridge
client-to-client
keepalive 10 60
tls-crypt ta.key
cipher AES-256-GCM
data-ciphers AES-256-GCM:AES-128-GCM
persist-key
persist-tun
status /var/log/openvpn-status.log
verb 3
explicit-exit-notify 1
"""


def openvpn_server(machine: Machine, profile: Profile) -> None:
    """The files of the server, and a bridge with its adapter, as OpenVPN's scripts make them."""
    identity = profile.authority.issue("server", "server")
    folder = "/etc/openvpn/server"
    machine.write(f"{folder}/server.conf", SERVER_FILE)
    machine.write(f"{folder}/ca.crt", profile.authority.certificate)
    machine.write(f"{folder}/server.crt", identity.certificate)
    machine.write(f"{folder}/server.key", identity.key)
    machine.write(f"{folder}/ta.key", profile.wrap_key)
    machine.run("openvpn --mktun --dev tap0 && ip link add br0 type bridge forward_delay 0 stp_state 0")
    machine.run("ip link set eth1 master br0 up && ip link set tap0 master br0 up && ip link set br0 up")


def test_the_migration_page_replaces_a_running_server_under_an_untouched_client() -> None:
    prepare, stop, take, look, undo, start = guide("replace-openvpn")
    assert stop.commands == ["systemctl disable --now openvpn-server@server"]
    assert start.commands == ["systemctl enable --now openvpn-server@server"]
    serve = "openvpn --cd /etc/openvpn/server --config server.conf"
    digest = "cd /etc/openvpn && find . -type f | sort | xargs sha256sum"
    with Lab("migrate") as lab:
        sites = TwoSites(lab, bridges=False)
        machine, profile = Machine(sites.a), Profile(wrap_key=static_key())
        openvpn_server(machine, profile)
        server = machine.popen(serve, "openvpn-server")
        server.wait_for_output(COMPLETED, 15)
        sites.b.make_bridge("lan0")
        identity = profile.authority.issue("branch", "client")
        client = OpenVpn(sites.b, "client", profile, identity, remote=sites.a.wan_ipv4)
        client.start().wait_connected()
        sites.b.host.ping(sites.a.host.ipv4, count=1)
        files, daemon = machine.run(digest), machine.install()

        assert [machine.run(command) for command in prepare.commands][-1].startswith("OK\n")
        sites.b.host.ping(sites.a.host.ipv4, count=1)
        # What systemctl does.
        assert server.stop(signal.SIGTERM) == 0
        for command in take.commands:
            machine.run(command)
        client.wait_connected(times=2, seconds=60)
        wait_for(lambda: sites.b.host.reaches(sites.a.host.ipv4), "the way through bridged", 30)
        assert "branch" in machine.run(*look.commands)
        # The bridge and the adapter are those of before, and so is every file of OpenVPN.
        assert "tap0" in machine.run("ip link show master br0")
        assert machine.run(digest) == files

        for command in undo.commands:
            machine.run(command)
        machine.popen(serve, "openvpn-again").wait_for_output(COMPLETED, 15)
        client.wait_connected(times=3, seconds=60)
        wait_for(lambda: sites.b.host.reaches(sites.a.host.ipv4), "the way through OpenVPN", 30)
        assert daemon.stop() == 0 and client.started.running
