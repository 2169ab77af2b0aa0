"""Our client at real OpenVPN servers that ask for a user name and password."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.interop.interop_ends import joined, openvpn, running, wait_for_event
from tests.lab import Lab, Profile, TwoSites, wait_for
from tests.lab.bridged_daemon import client
from tests.lab.openvpn import RELEASES
from tests.lab.password_server import PASSWORD, TOTP_SECRET, USER, PasswordScript
from tests.lab.pki import write_private

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def sites() -> Iterator[TwoSites]:
    with Lab("passwd") as lab:
        yield TwoSites(lab, wan="switch")


def password_file(folder: Path, text: str = PASSWORD) -> str:
    file = folder / "password.txt"
    write_private(file, text + "\n")
    return str(file)


def renegotiations(ends: Any) -> int:
    found = ends.ours.tunnel()["renegotiations"]
    return sum(outcomes.get("established", 0) for outcomes in found.values())


@pytest.mark.parametrize("release", RELEASES)
def test_a_password_is_asked_once_and_the_token_serves_renegotiations(
    sites: TwoSites, tmp_path: Path, release: str
) -> None:
    script = PasswordScript(tmp_path)
    keys = {
        "login": {"username": USER, "password": password_file(tmp_path)},
        "renegotiate": {"seconds": 1},
    }
    extra = (*script.lines(), "auth-gen-token 0", "verify-client-cert none", "username-as-common-name")
    profile = Profile(reneg_seconds=3600)
    with joined(sites, profile, "client", tunnel=keys, extra=extra, release=release) as ends:
        wait_for(lambda: renegotiations(ends) >= 3, "renegotiations with the token", 20)
        ends.ping_both_ways()
        assert script.calls() == ["right -"], "the password is not asked again"
        assert ends.peer()["connections"] == 1
        assert ends.ours.tunnel()["renegotiations"]["time"].keys() == {"established"}
        assert PASSWORD not in ends.ours.log and "SESS_ID" not in ends.ours.log
        secret = str(ends.ours.status())
        assert PASSWORD not in secret and "SESS_ID" not in secret


def test_without_a_token_each_renegotiation_sends_the_password(sites: TwoSites, tmp_path: Path) -> None:
    script = PasswordScript(tmp_path)
    keys = {
        "login": {"username": USER, "password": f"{PASSWORD}\n"},
        "renegotiate": {"seconds": 1},
    }
    with joined(sites, Profile(), "client", tunnel=keys, extra=script.lines()) as ends:
        wait_for(lambda: renegotiations(ends) >= 2, "renegotiations with the password", 20)
        assert set(script.calls()) == {"right -"} and len(script.calls()) >= 3


def test_a_wrong_password_is_not_tried_again_until_a_reload_brings_the_right_one(
    sites: TwoSites, tmp_path: Path
) -> None:
    script = PasswordScript(tmp_path)
    profile = Profile()
    issue = profile.authority.issue
    keys: dict[str, Any] = {"login": {"username": USER, "password": password_file(tmp_path, "wrong-one")}}
    daemon = client(sites.b, profile, issue("client", "client"), sites.a.wan_ipv4, tunnel=keys)
    theirs = openvpn(sites.a, "server", profile, issue("server", "server"), extra=script.lines())
    with theirs, running(daemon):
        wait_for_event(daemon, "handshake_failed", "auth_failed", "user name or password may be wrong")
        assert daemon.status()["tunnels"][0]["last_error"].startswith("auth_failed")
        password_file(tmp_path)
        daemon.reload()
        daemon.wait_connected(seconds=5)
        assert script.calls() == ["wrong -", "right -"], "one attempt with each"
        assert "wrong-one" not in daemon.log


def test_a_client_without_certificate_and_with_a_one_time_code_gets_in(
    sites: TwoSites, tmp_path: Path
) -> None:
    script = PasswordScript(tmp_path, wants_code=True)
    profile = Profile()
    secret = tmp_path / "totp.txt"
    write_private(secret, TOTP_SECRET)
    keys = {
        "tls": {"ca": profile.authority.certificate},
        "login": {
            "username": USER,
            "password": password_file(tmp_path),
            "challenge": "scrv1",
            "totp_secret": str(secret),
        },
    }
    extra = (*script.lines(), "verify-client-cert none", "username-as-common-name")
    with joined(sites, profile, "client", tunnel=keys, extra=extra) as ends:
        ends.ping_both_ways()
        assert script.calls() == ["right code"]


def test_a_server_that_has_lost_its_token_key_is_given_the_password_again(
    sites: TwoSites, tmp_path: Path
) -> None:
    """A restarted server refuses the tokens of its predecessor."""
    script = PasswordScript(tmp_path)
    profile = Profile(restart_seconds=4, ping_seconds=1, reneg_seconds=3600)
    issue = profile.authority.issue
    keys: dict[str, Any] = {"login": {"username": USER, "password": password_file(tmp_path)}}
    extra = (*script.lines(), "auth-gen-token 0")
    server = issue("server", "server")
    daemon = client(sites.b, profile, issue("client", "client"), sites.a.wan_ipv4, tunnel=keys)
    with running(daemon):
        with openvpn(sites.a, "server", profile, server, extra=extra):
            daemon.wait_connected()
        with openvpn(sites.a, "server", profile, server, extra=extra):
            wait_for(lambda: script.calls() == ["right -", "right -"], "the password again", 20)
            daemon.wait_connected()
            assert "wrong" not in str(script.calls())
