"""Two sites that a real Prometheus watches, with our rules in scaled time, and troubles that can be caused.

Site a is the server; site b's metrics are scraped across the WAN, over TLS with a password. Prometheus is in
the WAN's namespace, where the sites' addresses are reached whatever happens to the tunnel.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bridged.telemetry.metrics_table import METRICS
from scripts.monitoring.panels import PAGES, Query
from scripts.monitoring.rules import RULES, rules_text
from tests.lab import Bridged, Lab, Profile, TwoSites, wait_for
from tests.lab.bridged_daemon import TUNNEL, client, server
from tests.lab.pki import write_private
from tests.lab.prometheus import Prometheus
from tests.lab.relay import Relay
from tests.lab.waiting import NotInTime

HASH = "$2b$04$VEG8wUTl.cdFSf3fxDZmROiv61SmcP.p5WJ5rgj9PsowCFEXEZ9xi"
USER, PASSWORD = "prometheus", "correct-horse"
WatchedAlert = tuple[str, str]
"""The alert, and the instance as Prometheus calls it."""
SITE_A, SITE_B = "site-a", "site-b"
"""The instances, as Prometheus calls them."""
FDB_CAPACITY = 64
METRICS_PORT = 9743
RELAY = ("203.0.113.1", 1194)
_FILTERS = re.compile(r" (==|>=|<=|<|>) ")


@dataclass(slots=True)
class WatchedSites:
    """What the tests steer. `seconds`: how long an hour of the rules lasts."""

    sites: TwoSites
    profile: Profile
    a: Bridged
    b: Bridged
    relay: Relay
    prometheus: Prometheus
    scale: float

    @property
    def hour(self) -> float:
        return 3600 / self.scale

    def wait_firing(self, expected: Collection[WatchedAlert], seconds: float) -> None:
        """Until all these alerts fire, or have fired since the start."""
        query = 'max_over_time(ALERTS{alertstate="firing"}[1h])'
        seen: set[WatchedAlert] = set()

        def fires() -> bool:
            found = (series["metric"] for series in self.prometheus.query(query))
            seen.update((labels["alertname"], labels.get("instance", "")) for labels in found)
            return set(expected) <= seen

        try:
            wait_for(fires, "alerts to fire", seconds, 0.3)
        except NotInTime as error:
            raise AssertionError(f"never fired: {sorted(set(expected) - seen)}") from error

    def wait_ended(self, alerts: Collection[WatchedAlert], seconds: float) -> None:
        """Until none of them fires any more."""
        expected = set(alerts)
        try:
            wait_for(lambda: not expected & self.prometheus.firing(), "alerts to end", seconds, 0.3)
        except NotInTime as error:
            raise AssertionError(f"still firing: {sorted(expected & self.prometheus.firing())}") from error

    def panel_expression(self, query: Query) -> str:
        """A panel's query as Grafana would send it for all appliances, in this time."""
        text = query.expression
        for name in ("instance", "tunnel", "peer"):
            text = text.replace(f'"${name}"', '".+"')
        five, hour = f"[{round(300_000 / self.scale)}ms]", f"[{round(3_600_000 / self.scale)}ms]"
        return text.replace("[$__rate_interval]", five).replace("[1h]", hour)

    def metrics_without_producer(self) -> list[str]:
        """Families that never were anything but 0, of any daemon."""
        names = [row.full_name + ("_count" if row.type == "histogram" else "") for row in METRICS]
        return [name for name in names if not self.prometheus.query(f"max(max_over_time({name}[1h])) > 0")]

    def queries_without_data(self) -> list[str]:
        """Every query of every rule and panel that finds nothing; alerts are asked without their limits."""
        found = []
        for rule in self.prometheus.rules():
            if rule["health"] != "ok" or rule.get("lastError"):
                found.append(f"{rule['name']}: {rule.get('lastError') or rule['health']}")
            if not self.prometheus.query(_FILTERS.sub(r" \1 bool ", rule["query"])):
                found.append(f"{rule['name']}: no data for {rule['query']}")
        found += [
            f"{page.title}, {panel.title}: no data for {query.expression}"
            for page in PAGES
            for panel in page.panels
            for query in panel.queries
            if not self.prometheus.query(self.panel_expression(query))
        ]
        return found


@contextmanager
def watched_sites(scale: float, interval: str) -> Iterator[WatchedSites]:
    """Two joined sites, and a Prometheus that scrapes every `interval`, with rules `scale` times as fast."""
    with Lab("watched") as lab:
        sites = TwoSites(lab, wan="switch", bridges=False)
        profile = Profile(ping_seconds=1, restart_seconds=4)
        a = watched_server(sites, profile)
        b = watched_client(sites, profile)
        relay = Relay(sites.wan_namespace, RELAY, (sites.a.wan_ipv4, profile.port))
        prometheus = Prometheus(sites.wan_namespace, scraping(sites, interval))
        prometheus.file.with_name(RULES).write_text(rules_text(scale), encoding="utf-8")
        a.start()
        b.start().wait_connected()
        prometheus.start()
        yield WatchedSites(sites, profile, a, b, relay, prometheus, scale)


def watched_server(sites: TwoSites, profile: Profile) -> Bridged:
    identity = profile.authority.issue("server", "server")
    made = server(
        sites.a,
        profile,
        identity,
        tunnel={"peers": ["client"], "fdb_capacity": FDB_CAPACITY},
        top={"metrics": {"listen": f"{sites.a.wan_ipv4}:{METRICS_PORT}", "bearer_token_file": "token"}},
    )
    write_private(made.file.with_name("token"), PASSWORD)
    crl = made.file.with_name("crl.pem")
    crl.write_text(profile.authority.revocation_list(20))
    made.configuration["tunnels"][TUNNEL]["tls"]["crl"] = str(crl)
    made.write()
    return made


def watched_client(sites: TwoSites, profile: Profile) -> Bridged:
    web = guard_metrics(sites.b.namespace.directory, profile, sites.b.wan_ipv4)
    return client(
        sites.b,
        profile,
        profile.authority.issue("client", "client", days=3),
        f"{RELAY[0]}:{RELAY[1]}",
        top={"metrics": {"listen": f"{sites.b.wan_ipv4}:{METRICS_PORT}", "web_config_file": web}},
    )


def guard_metrics(folder: Path, profile: Profile, address: str, **tls: str) -> str:
    """Write what gives /metrics TLS and a password, with further keys of `tls_server_config`.

    Returns the name of the web configuration file. The CA is in `metrics-ca.pem`.
    """
    profile.authority.issue("metrics", "server", addresses=(address,)).write(folder)
    server_config = {"cert_file": "metrics.crt", "key_file": "metrics.key", "min_version": "TLS13", **tls}
    web = {"tls_server_config": server_config, "basic_auth_users": {USER: HASH}}
    (folder / "web.yml").write_text(yaml.safe_dump(web))
    (folder / "metrics-ca.pem").write_text(profile.authority.certificate)
    return "web.yml"


def scraping(sites: TwoSites, interval: str, others: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Prometheus' configuration: `others` (instance -> its socket) and site a with a token, b over TLS."""

    def targets(**named: str) -> list[dict[str, Any]]:
        return [{"targets": [where], "labels": {"instance": name}} for name, where in named.items()]

    first = {
        "job_name": "bridged",
        "authorization": {"credentials": PASSWORD},
        "static_configs": targets(**{SITE_A: f"{sites.a.wan_ipv4}:{METRICS_PORT}"}, **(others or {})),
    }
    second = {
        "job_name": "bridged-remote",
        "scheme": "https",
        "tls_config": {"ca_file": str(sites.b.namespace.directory / "metrics-ca.pem")},
        "basic_auth": {"username": USER, "password": PASSWORD},
        "static_configs": targets(**{SITE_B: f"{sites.b.wan_ipv4}:{METRICS_PORT}"}),
        "relabel_configs": [{"target_label": "job", "replacement": "bridged"}],
    }
    times = {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval}
    return {"global": times, "rule_files": [RULES], "scrape_configs": [first, second]}
