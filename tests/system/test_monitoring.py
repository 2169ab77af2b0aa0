"""The real Prometheus watches two daemons: every query finds data, alerts fire for their trouble and end."""

from __future__ import annotations

import os
import random

import pytest

from tests.lab import wait_for
from tests.lab.bridged_daemon import TUNNEL
from tests.lab.frames import send_frames
from tests.lab.topology import LAN_PORT
from tests.system.monitoring_lab import FDB_CAPACITY, SITE_A, SITE_B, WatchedSites, watched_sites

pytestmark = [pytest.mark.root, pytest.mark.native]

SCALE = float(os.environ.get("BRIDGED_MONITORING_SCALE", "240"))
"""`make test-monitoring` takes 60: a day of the rules would last 24 minutes."""
INTERVAL = f"{round(60_000 / SCALE)}ms"
"""Of scrapes: a minute in the time of the rules."""
SPARE, CABLE_END = "spare0", "spare1"
ALWAYS = {
    ("BridgedCertificateExpiringSoon", SITE_B),
    ("BridgedPeerCertificateExpiringSoon", SITE_A),
    ("BridgedCrlExpiring", SITE_A),
}
"""Certificates and the list end soon from the beginning."""


def test_real_trouble_fires_its_alert_in_the_real_prometheus_and_ends_it() -> None:
    with watched_sites(SCALE, INTERVAL) as watched:
        wait_for(lambda: len(watched.prometheus.query("up == 1")) == 2, "both targets to be up")
        troubles = [_reject_a_reload, _fill_the_fdb, _detach_a_port, _lose_packets, _send_forgeries]
        expected = {alert for trouble in troubles for alert in trouble(watched)}
        watched.wait_firing(ALWAYS | expected, 3 * watched.hour)
        assert watched.queries_without_data() == []
        _mend(watched)
        watched.wait_ended(ALWAYS | expected, 4 * watched.hour)
        for stop, daemon in ((_stop_the_peer, watched.b), (_stop_the_server, watched.a)):
            gone = stop(watched)
            watched.wait_firing(gone, watched.hour)
            daemon.start()
            watched.b.wait_connected()
            watched.wait_ended(gone, watched.hour)


def _reject_a_reload(watched: WatchedSites) -> set[tuple[str, str]]:
    """The new revocation list is no list."""
    crl = watched.a.file.with_name("crl.pem")
    crl.write_text("no list\n")
    watched.a.command("reload", "--config", str(watched.a.file), check=False)
    assert watched.a.status()["reload"]["outcome"] == "rejected"
    return {("BridgedReloadFailed", SITE_A), ("BridgedCrlRejected", SITE_A)}


def _fill_the_fdb(watched: WatchedSites) -> set[tuple[str, str]]:
    """Very many stations appear at both sites: one peer alone gets no more than its share."""
    draw = random.Random(1)
    sources = [b"\x02" + draw.randbytes(5) for _ in range(2 * FDB_CAPACITY)]
    frames = [b"\xff" * 6 + source + b"\x88\xb6" + bytes(50) for source in sources]

    def is_full() -> bool:
        send_frames(watched.sites.b.host, frames[:FDB_CAPACITY])
        send_frames(watched.sites.a.host, frames[FDB_CAPACITY:])
        found = watched.prometheus.query(f'bridged_fdb_entries{{instance="{SITE_A}"}}')
        return float(found[0]["value"][1]) >= 0.9 * FDB_CAPACITY

    wait_for(is_full, "a full FDB")
    return {("BridgedFdbNearlyFull", SITE_A)}


def _lose_packets(watched: WatchedSites) -> set[tuple[str, str]]:
    """The line loses every tenth packet, and one of site b's ports has no carrier."""
    watched.relay.change(loss=0.1, only="data")
    host, server = watched.sites.b.host.namespace, watched.sites.a.host
    host.popen("ping", "-f", "-i", "0.01", server.ipv4, log="flood")
    space = watched.sites.b.namespace
    space.ip("link", "add", SPARE, "type", "veth", "peer", "name", CABLE_END)
    watched.b.configuration["bridges"]["br0"]["ports"] = [LAN_PORT, SPARE]
    watched.b.reload()
    return {("BridgedPacketLoss", SITE_A), ("BridgedPortDown", SITE_B)}


def _detach_a_port(watched: WatchedSites) -> set[tuple[str, str]]:
    """Another program takes the port out of the bridge, again and again."""
    space = watched.sites.a.namespace
    for _ in range(6):
        space.ip("link", "set", LAN_PORT, "nomaster")
        wait_for(lambda: "master br0" in space.ip("link", "show", LAN_PORT), "the port to be put back")
    return {("BridgedLinksRepaired", SITE_A)}


def _send_forgeries(watched: WatchedSites) -> set[tuple[str, str]]:
    """Somebody forges packets of the tunnel's kind."""
    seconds = 2 * watched.hour
    watched.sites.wan_namespace.popen(
        "python3", "-c", FORGER, watched.sites.a.wan_ipv4, str(watched.profile.port), str(seconds)
    )
    return {("BridgedForgedTraffic", SITE_A)}


FORGER = """
import os, socket, sys, time
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
end = time.monotonic() + float(sys.argv[3])
while time.monotonic() < end:
    for _ in range(20):
        sock.sendto(bytes([9 << 3, 0, 0, 0]) + os.urandom(80), (sys.argv[1], int(sys.argv[2])))
    time.sleep(0.1)
"""


def _mend(watched: WatchedSites) -> None:
    authority = watched.profile.authority
    crl = watched.a.file.with_name("crl.pem")
    crl.write_text(authority.revocation_list())
    # The FDB's setting restarts the tunnel: an empty table.
    watched.a.configuration["tunnels"][TUNNEL]["fdb_capacity"] = 4 * FDB_CAPACITY
    watched.a.reload()
    good = authority.issue("client", "client")
    watched.b.configuration["tunnels"][TUNNEL]["tls"] |= {"certificate": good.certificate, "key": good.key}
    watched.b.reload()
    watched.relay.change(loss=0.0)
    watched.sites.b.namespace.ip("link", "set", CABLE_END, "up")
    # Peers see the new certificate with the next session.
    watched.a.command("kick", "client", "--config", str(watched.a.file))
    watched.b.wait_connected()


def _stop_the_server(watched: WatchedSites) -> set[tuple[str, str]]:
    assert watched.a.stop() == 0
    return {("BridgedDown", SITE_A), ("BridgedTunnelDown", SITE_B)}


def _stop_the_peer(watched: WatchedSites) -> set[tuple[str, str]]:
    assert watched.b.stop() == 0
    return {("BridgedDown", SITE_B), ("BridgedPeerDown", SITE_A)}
