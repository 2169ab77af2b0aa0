"""Two LANs joined by two programs, whatever they are: what the tests of daemons here share."""

from __future__ import annotations

from tests.lab import Lab, Profile, TwoSites, bridged_daemon
from tests.lab.namespace import Namespace

START_SECONDS = 180.0
CONNECT_SECONDS = 120.0


def join_two_lans(server_program: str, client_program: str, dataplane: str) -> None:
    """Frames cross, both daemons say so, and both end well."""
    with Lab("foreign", programs=("ip", "ping", "setpriv", "sysctl")) as lab:
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
