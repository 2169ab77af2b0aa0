"""Two daemons of other architectures, each with a real adapter and bridge, and frames from LAN to LAN."""

from __future__ import annotations

import pytest

from tests.architectures.machines import MACHINES, ready
from tests.lab import Lab, Profile, TwoSites, bridged_daemon
from tests.lab.namespace import Namespace

pytestmark = pytest.mark.root
START_SECONDS = 180.0
CONNECT_SECONDS = 120.0


@pytest.mark.parametrize(("server_machine", "client_machine"), [("arm64", "armhf"), ("armhf", "arm64")])
def test_two_lans_are_joined_by_daemons_of_different_architectures(
    server_machine: str, client_machine: str
) -> None:
    programs = [str(ready(MACHINES[name]).bridged) for name in (server_machine, client_machine)]
    join_two_lans(*programs, dataplane="portable")


def join_two_lans(server_program: str, client_program: str, dataplane: str) -> None:
    """Frames cross, both daemons say so, and both end well."""
    with Lab("foreign") as lab:
        sites = TwoSites(lab, bridges=False)
        profile = Profile()
        identities = (profile.authority.issue("server", "server"), profile.authority.issue("c1", "client"))
        server = bridged_daemon.server(sites.a, profile, identities[0], tunnel={"dataplane": dataplane})
        client = bridged_daemon.client(
            sites.b, profile, identities[1], sites.a.wan_ipv4, tunnel={"dataplane": dataplane}
        )
        server.program, client.program = server_program, client_program
        for daemon in (server, client):
            daemon.start(wait=False)
        for daemon in (server, client):
            daemon.wait_until(lambda status: len(status["bridges"]) == 1, "its bridge", START_SECONDS)
        client.wait_connected(seconds=CONNECT_SECONDS)
        sites.a.host.ping(sites.b.host.ipv4, "-s", "1400")
        sites.b.host.ping(sites.a.host.ipv6)
        assert sites.a.host.neighbour(sites.b.host.ipv4) == sites.b.host.mac
        assert server.stations()[sites.b.host.mac] == "c1"
        for daemon in (server, client):
            assert daemon.status()["tunnels"][0]["dataplane"]["dataplane"] == dataplane
        (peer,) = server.connected_peers()
        assert peer["cipher"] == "AES-256-GCM"
        assert _is_tap(sites.a.namespace) and _is_tap(sites.b.namespace)
        assert server.stop(seconds=60) == 0 and client.stop(seconds=60) == 0


def _is_tap(namespace: Namespace) -> bool:
    """Whether an adapter is a port of the bridge, as the host's own `ip` sees it."""
    return "tap" in namespace.ip("-d", "link", "show", "master", "br0", "type", "tun")
