"""Real clients of /metrics across a network, over TLS with a password: curl, and Prometheus at a start."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.lab import Bridged, Lab, Profile, TwoSites, wait_for
from tests.lab.bounds import at_most
from tests.lab.bridged_daemon import server
from tests.lab.processes import CommandError
from tests.lab.prometheus import Prometheus
from tests.lab.waiting import NotInTime
from tests.system.monitoring_lab import METRICS_PORT, PASSWORD, USER, guard_metrics

pytestmark = pytest.mark.root

PAGES = ("/metrics", "/metrics/openvpn", "/-/healthy", "/-/ready")
SCRAPE_SECONDS = 1.0
CERTIFICATE_UNKNOWN = 60
"""Exit status of curl."""


@dataclass(frozen=True, slots=True)
class Watched:
    sites: TwoSites
    daemon: Bridged
    folder: Path

    @property
    def ca(self) -> tuple[str, str]:
        return "--cacert", str(self.folder / "metrics-ca.pem")

    def curl(self, path: str, *options: str, scheme: str = "https") -> str:
        """The status and the body, asked for from the WAN.

        Raises:
            CommandError: curl got no answer.
        """
        url = f"{scheme}://{self.sites.a.wan_ipv4}:{METRICS_PORT}{path}"
        said = ("--silent", "--show-error", "--max-time", "20", "--write-out", "%{http_code}")
        return self.sites.wan_namespace.run("curl", *said, *options, url)


@contextmanager
def one_site(name: str) -> Iterator[Watched]:
    with Lab(name) as lab:
        sites, profile = TwoSites(lab, wan="switch", bridges=False), Profile()
        folder = sites.a.namespace.directory
        web = guard_metrics(folder, profile, sites.a.wan_ipv4)
        listen = f"{sites.a.wan_ipv4}:{METRICS_PORT}"
        identity = profile.authority.issue("server", "server")
        daemon = server(
            sites.a, profile, identity, top={"metrics": {"listen": listen, "web_config_file": web}}
        )
        yield Watched(sites, daemon.start(), folder)
        assert daemon.stop() == 0


@pytest.fixture(scope="module")
def watched() -> Iterator[Watched]:
    with one_site("curl") as found:
        yield found


@pytest.mark.parametrize("path", PAGES)
def test_curl_reads_every_page_with_the_ca_and_the_password(watched: Watched, path: str) -> None:
    answer = watched.curl(path, *watched.ca, "--user", f"{USER}:{PASSWORD}")
    assert answer.endswith("200")
    if path == "/metrics":
        assert 'bridged_tunnel_up{tunnel="lab"} 1\n' in answer


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize("user", [(), ("--user", f"{USER}:wrong"), ("--user", f"nobody:{PASSWORD}")])
def test_without_the_password_curl_gets_401_and_nothing_else(
    watched: Watched, path: str, user: tuple[str, ...]
) -> None:
    answer = watched.curl(path, *watched.ca, *user)
    assert answer.endswith("401") and "bridged_" not in answer


@pytest.mark.parametrize("path", PAGES)
def test_an_unknown_ca_and_plain_http_get_no_answer(watched: Watched, path: str) -> None:
    with pytest.raises(CommandError) as unknown:
        watched.curl(path, "--user", f"{USER}:{PASSWORD}")
    assert unknown.value.status == CERTIFICATE_UNKNOWN
    with pytest.raises(CommandError):
        watched.curl(path, "--user", f"{USER}:{PASSWORD}", scheme="http")


def test_a_client_certificate_is_asked_for_where_the_file_says_so(watched: Watched) -> None:
    profile, daemon = Profile(), watched.daemon
    required = {"client_auth_type": "RequireAndVerifyClientCert", "client_ca_file": "metrics-ca.pem"}
    guard_metrics(watched.folder, profile, watched.sites.a.wan_ipv4, **required)
    certificate, key = profile.authority.issue("scraper", "client").write(watched.folder)
    user = ("--user", f"{USER}:{PASSWORD}")
    try:
        shown = ("--cert", str(certificate), "--key", str(key))
        wait_for(lambda: _is_answered(watched, *watched.ca, *user, *shown), "the new file to be in use", 20)
        with pytest.raises(CommandError):
            watched.curl("/-/healthy", *watched.ca, *user)
    finally:
        guard_metrics(watched.folder, Profile(), watched.sites.a.wan_ipv4)
    wait_for(lambda: _is_answered(watched, *watched.ca, *user), "the former file to be in use", 20)
    assert daemon.started.running


@pytest.mark.measures
def test_a_remote_prometheus_sees_up_within_one_scrape_of_the_start() -> None:
    with one_site("upsoon") as watched:
        daemon = watched.daemon
        assert daemon.stop() == 0
        prometheus = Prometheus(watched.sites.wan_namespace, _scraping(watched)).start()
        wait_for(lambda: prometheus.query("up == 0"), "a scrape of the stopped daemon")
        began = time.time()
        daemon.start()
        ready = time.time()

        def samples(name: str = "up") -> dict[float, float]:
            (series,) = prometheus.query(f"{name}[5m]")
            found = {float(moment): float(value) for moment, value in series["values"]}
            return {moment: value for moment, value in found.items() if moment > began}

        wait_for(
            lambda: max(samples(), default=0.0) > ready + SCRAPE_SECONDS, "two scrapes of the ready daemon"
        )
        seen, took = samples(), samples("scrape_duration_seconds")
        first = min((moment for moment, is_up in seen.items() if is_up), default=ready)
        missed = {moment for moment, is_up in seen.items() if moment >= min(first, ready) and not is_up}
        if missed and all(took.get(moment, 0.0) >= SCRAPE_SECONDS for moment in missed):
            raise NotInTime(f"scrapes took too long: {took}")
        assert not missed, (seen, took)
        at_most(first - ready, SCRAPE_SECONDS, "up after the daemon was ready")


def _scraping(watched: Watched) -> dict[str, Any]:
    interval = f"{round(SCRAPE_SECONDS * 1000)}ms"
    job = {
        "job_name": "bridged",
        "scheme": "https",
        "tls_config": {"ca_file": str(watched.folder / "metrics-ca.pem")},
        "basic_auth": {"username": USER, "password": PASSWORD},
        "static_configs": [{"targets": [f"{watched.sites.a.wan_ipv4}:{METRICS_PORT}"]}],
    }
    times = {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval}
    return {"global": times, "scrape_configs": [job]}


def _is_answered(watched: Watched, *options: str) -> bool:
    try:
        return watched.curl("/-/healthy", *options).endswith("200")
    except CommandError:
        return False
