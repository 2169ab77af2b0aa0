"""A status file of our daemon beside one of the real OpenVPN: the same lines, and real tools read ours."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.lab import Bridged, Lab, OpenVpn, Profile, TwoSites, wait_for
from tests.lab.bridged_daemon import TUNNEL, client, server
from tests.lab.openvpn_tools import read_by_openvpn_monitor, read_by_openvpn_status
from tests.lab.prometheus import fetch

pytestmark = pytest.mark.root


def headers(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("HEADER")]


def test_status_files_are_as_openvpn_s_and_the_real_tools_read_them() -> None:
    with Lab("status") as lab:
        sites = TwoSites(lab, bridges=False)
        profile = Profile()
        theirs, ours = lab.directory / "openvpn.status", lab.directory / "bridged.status"
        a = server(sites.a, profile, profile.authority.issue("server", "server"), tunnel=_status(ours, 3))
        b = client(sites.b, profile, profile.authority.issue("client", "client"), sites.a.wan_ipv4)
        a.start()
        b.start().wait_connected()
        sites.b.host.ping(sites.a.host.ipv4)
        mac = sites.b.host.mac
        wait_for(lambda: ours.is_file() and mac in ours.read_text(), "the station in the status file")
        assert ours.stat().st_mode & 0o777 == 0o640
        third = ours.read_text()
        (session,) = read_by_openvpn_monitor(third).values()
        assert str(session["remote_ip"]) == sites.b.wan_ipv4
        assert session["username"] == "client" and session["bytes_recv"] > 0 and session["last_seen"]
        a.configuration["tunnels"][TUNNEL] |= _status(ours, 1)
        a.reload()
        assert a.status()["reload"]["outcome"] == "applied"
        wait_for(lambda: ours.read_text().startswith("OpenVPN CLIENT LIST"), "version 1")
        wait_for(lambda: mac in ours.read_text(), "the station in version 1")
        read = read_by_openvpn_status(ours.read_text())
        assert [each.common_name for each in read.client_list.values()] == ["client"]
        assert "client" in {each.common_name for each in read.routing_table.values()}
        assert 'common_name="client"' in _fetched(a, "/metrics/openvpn")
        assert _fetched(a, "/-/healthy") == _fetched(a, "/-/ready") == "OK\n"
        a.stop()
        sites.a.make_bridge("lan0")
        identity = profile.authority.issue("server", "server")
        extra = (f"status {theirs} 1", "status-version 3")
        OpenVpn(sites.a, "server", profile, identity, extra=extra).start()

        def written() -> str:
            """It writes over the old text, line by line: between two lines there is something of both."""
            text = theirs.read_text() if theirs.is_file() else ""
            time.sleep(0.1)
            return text if "CLIENT_LIST\tclient" in text and theirs.read_text() == text else ""

        assert headers(third) == headers(wait_for(written, "OpenVPN's own file", 30))


def _status(path: Path, version: int) -> dict[str, object]:
    return {"status": {"file": str(path), "interval_seconds": 1, "version": version}}


def _fetched(daemon: Bridged, path: str) -> str:
    return daemon.site.namespace.call(fetch, f"http://127.0.0.1:9743{path}").decode()
