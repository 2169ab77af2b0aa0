"""Four watched daemons with everything amiss that a configuration or a host can have from the beginning.

Site a and site b are joined, and have more tunnels for each kind of trouble. `odd` runs on a machine with a
wrong clock. `attacked` is a server without a wrap, whom strangers trouble.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from scripts.monitoring.rules import RULES, rules_text
from tests.lab import Bridged, Lab, Profile, Site, TwoSites, wait_for
from tests.lab.bridged_daemon import TUNNEL
from tests.lab.odd_machine import odd_machine
from tests.lab.pki import Authority, Identity, write_private
from tests.lab.prometheus import Prometheus
from tests.lab.relay import Relay
from tests.lab.topology import LAN_PORT
from tests.system.monitoring_lab import (
    PASSWORD,
    RELAY,
    SITE_A,
    SITE_B,
    WatchedSites,
    scraping,
    watched_client,
    watched_server,
)

ODD, ATTACKED = "odd", "attacked"
ODD_METRICS, ATTACKED_METRICS = 9744, 9745
RING, TWINS, TRUST, JUMBO, UNWRAPPED = 1196, 1197, 1198, 1199, 1200
"""Ports of site a's further tunnels, and of the attacked server."""
UNPLUGGED, CABLE_END, TAKEN, THIEF = "spare0", "spare1", "taken0", "br9"
"""Ports of site b: one without a cable, and one that another bridge has."""
JUMBO_MTU = 65_521
STATUS_FOLDER = "status"


@dataclass(slots=True)
class Papers:
    """Who signs what. `renew` gives everybody good certificates."""

    good: Authority
    foreign: Authority = field(default_factory=lambda: Authority("Another CA"))
    ending: Authority = field(default_factory=lambda: Authority("Ending CA", days=20))
    ending_soon: Authority = field(default_factory=lambda: Authority("Ending soon CA", days=3))

    def renew(self) -> None:
        self.foreign = self.ending = self.ending_soon = self.good

    def issue(self, authority: Authority, name: str, usage: Any) -> Identity:
        """No longer valid than its CA."""
        days = {id(self.ending): 20, id(self.ending_soon): 3}.get(id(authority), 90)
        return authority.issue(name, usage, days=90 if authority is self.good else days)


@dataclass(slots=True)
class TroubledDaemons(WatchedSites):
    """`papers`: whose certificates the further tunnels have."""

    papers: Papers
    odd: Bridged
    attacked: Bridged

    def configure(self) -> None:
        """Write the configurations of sites a and b from `papers`."""
        _further_tunnels_of_a(self)
        _further_tunnels_of_b(self)
        for daemon in (self.a, self.b):
            daemon.write()

    @property
    def is_mended(self) -> bool:
        return self.papers.foreign is self.papers.good


STANDING: Final = {
    ("BridgedCertificateExpiring", SITE_A): "ring's server",
    ("BridgedCaExpiring", SITE_A): "ring's CA",
    ("BridgedPeerCertificateExpiring", SITE_A): "ring's clients",
    ("BridgedCrlExpiringSoon", SITE_A): "ring's list",
    ("BridgedCertificateExpiringSoon", SITE_A): "the twins' server",
    ("BridgedCaExpiringSoon", SITE_B): "the twins' CA",
    ("BridgedCertificateExpiringSoon", SITE_B): "site b",
    ("BridgedPeerCertificateExpiringSoon", SITE_A): "site b, as site a sees it",
    ("BridgedCrlExpiring", SITE_A): "site a's list",
    ("BridgedPeersNearLimit", SITE_A): "ring has room for two",
    ("BridgedTunnelLoop", SITE_B): "ring1 and ring2 of one bridge reach one server",
    ("BridgedCertificateShared", SITE_A): "twin1 and twin2 have one certificate",
    ("BridgedHandshakesFailing", SITE_A): "clients of a foreign CA",
    ("BridgedHandshakesFailing", SITE_B): "the same, as the clients see it",
    ("BridgedPeersFolded", SITE_B): "series for one peer only",
    ("BridgedSlowPath", SITE_B): "a kernel without UDP_SEGMENT",
    ("BridgedOffloadFallback", SITE_B): "the same, found before the first scrape",
    ("BridgedWanOffloads", SITE_B): "a veth has GRO off",
    ("BridgedPortDown", SITE_B): "a port without a cable",
    ("BridgedClockWrong", ODD): "its clock stands in 2020",
    ("BridgedHostWarning", ODD): "which is before the program was made",
}
"""(alert, instance) -> what is amiss from the beginning."""


@contextmanager
def troubled_daemons(scale: float, haste: float, interval: str) -> Iterator[TroubledDaemons]:
    """All daemons at work, and a Prometheus that has seen them before trouble came."""
    with Lab("watched") as lab:
        sites = TwoSites(lab, wan="switch", bridges=False)
        profile = Profile(ping_seconds=1, restart_seconds=4)
        _prepare(sites.b)
        a, b = watched_server(sites, profile), watched_client(sites, profile)
        relay = Relay(sites.wan_namespace, RELAY, (sites.a.wan_ipv4, profile.port))
        others = {
            ODD: f"{sites.b.wan_ipv4}:{ODD_METRICS}",
            ATTACKED: f"{sites.a.wan_ipv4}:{ATTACKED_METRICS}",
        }
        prometheus = Prometheus(sites.wan_namespace, scraping(sites, interval, others))
        prometheus.file.with_name(RULES).write_text(rules_text(scale, haste=haste), encoding="utf-8")
        papers = Papers(profile.authority)
        odd, attacked = _odd(sites, profile), _attacked(sites, profile)
        made = TroubledDaemons(sites, profile, a, b, relay, prometheus, scale, papers, odd, attacked)
        made.configure()
        odd.environment = odd_machine(lab.directory, release="6.1.0", today=datetime(2020, 2, 2, tzinfo=UTC))
        b.refusals = ("udp_segment",)
        (b.site.namespace.directory / STATUS_FOLDER).mkdir()
        for daemon in (a, odd, attacked):
            daemon.start(wait=False)
        prometheus.start()
        # Counters that rise before the first scrape are no increase.
        wait_for(lambda: len(prometheus.query("up == 1")) == 3, "a scrape of all but site b", 40)
        b.start(seconds=40).wait_connected(seconds=40)
        yield made


def _prepare(site: Site) -> None:
    space = site.namespace
    for port, end in ((UNPLUGGED, CABLE_END), (TAKEN, "taken1")):
        space.ip("link", "add", port, "type", "veth", "peer", "name", end)
    space.ip("link", "set", "taken1", "up")
    space.ip("link", "add", THIEF, "type", "bridge")


def _further_tunnels_of_a(made: TroubledDaemons) -> None:
    papers, daemon = made.papers, made.a

    def server(port: int, bridge: str, authority: Authority, **more: Any) -> dict[str, Any]:
        own = papers.issue(authority, f"server-{bridge}", "server")
        listen = f"{daemon.site.wan_ipv4}:{port}"
        return _tunnel(made.profile, "server", bridge, authority, own) | {"listen": listen, **more}

    ring = server(RING, "ring", papers.ending, peers_max=64 if made.is_mended else 2)
    ring["mtu"] = "auto"
    ring["tls"]["crl"] = papers.ending.revocation_list(90 if made.is_mended else 3)
    daemon.configuration["tunnels"] |= {
        "ring": ring,
        "twins": server(TWINS, "twins", papers.ending_soon, ciphers=["AES-256-CBC"]),
        "trust": server(TRUST, "trust", papers.good),
        "jumbo": server(
            JUMBO, "jumbo", papers.good, mtu=JUMBO_MTU, ciphers=["AES-256-GCM"], renegotiate={"seconds": 5}
        ),
    }
    daemon.configuration["bridges"] |= {name: {} for name in ("ring", "twins", "trust", "jumbo")}


def _further_tunnels_of_b(made: TroubledDaemons) -> None:
    papers, daemon = made.papers, made.b

    def client(
        port: int, bridge: str, authority: Authority, name: str, ca: Authority | None = None, **more: Any
    ) -> dict[str, Any]:
        own = papers.issue(authority, name, "client")
        remotes = [f"{made.sites.a.wan_ipv4}:{port}"]
        return _tunnel(made.profile, "client", bridge, ca or authority, own) | {"remotes": remotes, **more}

    tunnels: dict[str, Any] = {
        "ring1": client(RING, "ring", papers.ending, "ring1"),
        "ring2": client(RING, "lost" if made.is_mended else "ring", papers.ending, "ring2"),
        "twin1": client(TWINS, "lost", papers.ending_soon, "twin", ciphers=["AES-256-CBC"]),
        "foreign1": client(TRUST, "lost", papers.foreign, "foreign1", ca=papers.good),
        "foreign2": client(TRUST, "trust", papers.foreign, "foreign2", ca=papers.good),
        "jumbo": client(JUMBO, "jumbo", papers.good, "jumbo", mtu=JUMBO_MTU),
    }
    if not made.is_mended:
        tunnels["twin2"] = tunnels["twin1"]
    kept = daemon.configuration["tunnels"][TUNNEL]
    if made.is_mended:
        good = papers.good.issue("client", "client")
        kept["tls"] |= {"certificate": good.certificate, "key": good.key}
    kept["status"] = {"file": f"{STATUS_FOLDER}/openvpn.log", "interval_seconds": 1}
    daemon.configuration["tunnels"] = {TUNNEL: kept, **tunnels}
    bridges: dict[str, Any] = {name: {} for name in ("ring", "lost", "trust", "jumbo")}
    daemon.configuration["bridges"] = {"br0": {"ports": [LAN_PORT, UNPLUGGED, TAKEN]}, **bridges}
    daemon.configuration["metrics"]["max_peers"] = 200 if made.is_mended else 1


def _tunnel(profile: Profile, role: str, bridge: str, authority: Authority, own: Identity) -> dict[str, Any]:
    return {
        "role": role,
        "bridge": bridge,
        "tls": {"ca": authority.certificate, "certificate": own.certificate, "key": own.key},
        "wrap": {"mode": profile.wrap, "key": profile.wrap_key},
        "keepalive": {"ping_seconds": 1, "restart_seconds": 4},
    }


def _odd(sites: TwoSites, profile: Profile) -> Bridged:
    own = profile.authority.issue("odd", "client")
    tunnel = _tunnel(profile, "client", "br7", profile.authority, own)
    tunnel["remotes"] = [f"{sites.a.wan_ipv4}:{TRUST}"]
    return _lone(sites.b, ODD, "br7", tunnel, ODD_METRICS)


def _attacked(sites: TwoSites, profile: Profile) -> Bridged:
    own = profile.authority.issue("attacked", "server")
    tunnel = _tunnel(profile, "server", "br8", profile.authority, own)
    tunnel |= {"listen": f"{sites.a.wan_ipv4}:{UNWRAPPED}", "wrap": {"mode": "none"}}
    return _lone(sites.a, ATTACKED, "br8", tunnel, ATTACKED_METRICS)


def _lone(site: Site, name: str, bridge: str, tunnel: dict[str, Any], port: int) -> Bridged:
    """A daemon beside the site's first one."""
    metrics = {"listen": f"{site.wan_ipv4}:{port}", "bearer_token_file": "token"}
    write_private(site.namespace.directory / "token", PASSWORD)
    document = {"bridges": {bridge: {}}, "tunnels": {name: tunnel}, "metrics": metrics}
    return Bridged(site, document, name=name)
