"""Real OpenVPN clients at a server of ours that asks for a user name and password."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bridged.protocol.keys.one_time_code import parse_one_time_secret
from bridged.runtime.server.password_file import hash_password
from tests.interop.interop_ends import joined, log_events, openvpn, running, wait_for_event
from tests.lab import Bridged, Lab, Profile, TwoSites, wait_for
from tests.lab.bridged_daemon import client, server
from tests.lab.openvpn import RELEASES
from tests.lab.password_server import PASSWORD, TOTP_SECRET, USER
from tests.lab.pki import write_private

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def sites() -> Iterator[TwoSites]:
    with Lab("asks") as lab:
        yield TwoSites(lab, wan="switch")


@pytest.fixture
def users(tmp_path: Path) -> Path:
    file = tmp_path / "passwords"
    write_private(file, f"# users\n{USER}:{hash_password(PASSWORD)}\n")
    return file


def login_file(folder: Path, password: str = PASSWORD) -> str:
    file = folder / "login.txt"
    write_private(file, f"{USER}\n{password}\n")
    return f"auth-user-pass {file}"


def keys(users: Path, **more: Any) -> dict[str, Any]:
    return {"authentication": {"password_file": str(users), **more}, "renegotiate": {"seconds": 3600}}


def accepted(daemon: Bridged, method: str) -> float:
    return daemon.metric("bridged_authentications_total", method=method, outcome="accepted")


@pytest.mark.parametrize("release", RELEASES)
def test_a_client_is_asked_once_and_its_token_serves_renegotiations(
    sites: TwoSites, tmp_path: Path, users: Path, release: str
) -> None:
    profile = Profile(reneg_seconds=3600)
    # OpenVPN 2.7 renegotiates no sooner than it likes: our end begins.
    tunnel = keys(users, name_from="username") | {"renegotiate": {"seconds": 2}}
    extra = (login_file(tmp_path), "auth-nocache")
    with joined(sites, profile, "server", tunnel=tunnel, extra=extra, release=release) as ends:
        wait_for(lambda: accepted(ends.ours, "token") >= 2, "renegotiations with the token", 20)
        ends.ping_both_ways()
        assert accepted(ends.ours, "password") == 1
        assert ends.peer()["name"] == USER and ends.peer()["connections"] == 1
        assert ends.peer()["remarks"] == []
        told = ends.ours.log + str(ends.ours.status())
        assert PASSWORD not in told and "SESS_ID" not in told


@pytest.mark.parametrize("shown", ["password", "token"])
def test_a_user_who_is_removed_hears_it_at_the_next_renegotiation_and_is_gone(
    sites: TwoSites, tmp_path: Path, users: Path, shown: str
) -> None:
    tunnel = keys(users, token_seconds=0 if shown == "password" else 3600) | {"renegotiate": {"seconds": 3}}
    extra = (login_file(tmp_path),)
    with joined(sites, Profile(reneg_seconds=3600), "server", tunnel=tunnel, extra=extra) as ends:
        write_private(users, "# nobody\n")
        wait_for(lambda: not ends.ours.connected_peers(), "the session to end", 5)
        told = "AUTH_FAILED,user name or password is wrong" if shown == "password" else "AUTH_FAILED,SESSION"
        ends.theirs.started.wait_for_output(told, 5)
        assert log_events(ends.ours, "peer_disconnected")[0].count("auth_expired") == 1


def test_a_wrong_password_and_an_unknown_user_hear_the_same_and_are_slowed_down(
    sites: TwoSites, tmp_path: Path, users: Path
) -> None:
    profile = Profile()
    issue = profile.authority.issue
    daemon = server(sites.a, profile, issue("server", "server"), tunnel=keys(users))
    remote = sites.a.wan_ipv4
    with running(daemon):
        write_private(tmp_path / "other.txt", "nobody\nwrong\n")
        for text in (login_file(tmp_path, "wrong"), f"auth-user-pass {tmp_path / 'other.txt'}"):
            own = issue("c", "client")
            with openvpn(sites.b, "client", profile, own, remote=remote, extra=(text,)) as end:
                end.started.wait_for_output("AUTH_FAILED,user name or password is wrong", 10)
        extra = (login_file(tmp_path, "guess"), "auth-retry nointeract", "connect-retry 1 1")
        with openvpn(sites.b, "client", profile, issue("c", "client"), remote=remote, extra=extra) as end:
            end.started.wait_for_output("too many wrong passwords", 20)
        assert daemon.metric("bridged_authentications_total", method="password", outcome="refused") >= 5
        assert daemon.connected_peers() == []
        assert "guess" not in daemon.log


def test_clients_without_certificate_are_let_in_by_their_password(
    sites: TwoSites, tmp_path: Path, users: Path
) -> None:
    profile = Profile()
    issue = profile.authority.issue
    own = issue("server", "server")
    tls = {"certificate": own.certificate, "key": own.key}
    tunnel = keys(users, client_certificate="none") | {"tls": tls}
    daemon = server(sites.a, profile, own, tunnel=tunnel)
    password = tmp_path / "password.txt"
    write_private(password, PASSWORD)
    mine = {
        "tls": {"ca": profile.authority.certificate},
        "login": {"username": USER, "password": str(password)},
        "renegotiate": {"seconds": 1},
    }
    with running(daemon):
        remote = sites.a.wan_ipv4
        extra = (login_file(tmp_path),)
        with openvpn(sites.b, "client", profile, issue("c", "client"), remote=remote, extra=extra) as end:
            end.wait_connected()
            daemon.wait_connected()
            (peer,) = daemon.connected_peers()
            assert (peer["name"], peer["certificate_not_after"]) == (USER, None)
        with running(client(sites.b, profile, own, remote, tunnel=mine)) as ours:
            ours.wait_connected()
            wait_for(lambda: accepted(daemon, "token") >= 2, "renegotiations with the token", 15)
            assert [peer["name"] for peer in daemon.connected_peers()] == [USER]
            assert ours.tunnel()["renegotiations"]["time"].keys() == {"established"}


@pytest.mark.parametrize("way", ["file", "environment"])
def test_a_command_is_asked_and_may_answer_later(sites: TwoSites, tmp_path: Path, way: str) -> None:
    """It gets what OpenVPN gives; a frame crosses while it thinks."""
    script = tmp_path / "check"
    read = "open(sys.argv[1]).read().split('\\n')[:2]"
    if way == "environment":
        read = "[os.environ['username'], os.environ['password']]"
    script.write_text(
        f"#!{sys.executable}\nimport os, sys, time\n"
        f"right = {read} == [{USER!r}, {PASSWORD!r}] and os.environ['common_name'] == 'client'\n"
        "assert os.environ['script_type'] == 'user-pass-verify' and os.environ['untrusted_ip']\n"
        "if os.fork():\n    os._exit(2)\n"
        "time.sleep(1)\n"
        "open(os.environ['auth_failed_reason_file'], 'w').write('the directory says no')\n"
        "open(os.environ['auth_control_file'], 'w').write('1' if right else '0')\n"
    )
    script.chmod(0o700)
    profile = Profile()
    tunnel = {"authentication": {"command": [str(script)], "command_input": way}}
    with joined(sites, profile, "server", tunnel=tunnel, extra=(login_file(tmp_path),)) as ends:
        ends.ping_both_ways()
        assert ends.peer()["name"] == "client"
    daemon = server(sites.a, profile, profile.authority.issue("server", "server"), tunnel=tunnel)
    own = profile.authority.issue("client", "client")
    extra = (login_file(tmp_path, "wrong"),)
    theirs = openvpn(sites.b, "client", profile, own, remote=sites.a.wan_ipv4, extra=extra)
    with running(daemon), theirs as end:
        end.started.wait_for_output("AUTH_FAILED,the directory says no", 10)


def test_one_time_codes_by_static_challenge_by_question_and_by_a_second_connection(
    sites: TwoSites, tmp_path: Path
) -> None:
    users = tmp_path / "passwords"
    lines = [f"{name}:{hash_password(PASSWORD)}:{TOTP_SECRET}\n" for name in (USER, "bob", "carol")]
    write_private(users, "".join(lines))
    profile = Profile()
    own = profile.authority.issue("client", "client")
    daemon = server(sites.a, profile, profile.authority.issue("server", "server"), tunnel=keys(users))
    secret = tmp_path / "totp.txt"
    write_private(secret, TOTP_SECRET)
    remote = sites.a.wan_ipv4
    with running(daemon):
        # Each user's code counts once.
        for name, challenge in ((USER, "scrv1"), ("bob", "concat"), ("carol", "none")):
            login = {"username": name, "password": f"{PASSWORD}\n", "totp_secret": str(secret)}
            mine = {"login": login | {"challenge": challenge}}
            with running(client(sites.b, profile, own, remote, tunnel=mine)) as ours:
                ours.wait_connected()
        with openvpn(*(sites.b, "client", profile, own), remote=remote, extra=(login_file(tmp_path),)) as end:
            end.started.wait_for_output("CRV1:R,E:", 10)
        wait_for_event(daemon, "handshake_failed", "auth_failed", "CRV1")
        assert TOTP_SECRET not in daemon.log


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_used_code_counts_no_more_after_a_restart_of_the_daemon(
    sites: TwoSites, tmp_path: Path, number: signal.Signals
) -> None:
    users, secret = tmp_path / "passwords", parse_one_time_secret(TOTP_SECRET, "totp")
    # The state folder is that of all daemons of this site: each run has a user of its own.
    name = f"dave-{number}"
    write_private(users, f"{name}:{hash_password(PASSWORD)}:{TOTP_SECRET}\n")
    profile = Profile()
    own = profile.authority.issue("client", "client")
    daemon = server(sites.a, profile, profile.authority.issue("server", "server"), tunnel=keys(users))
    # That of the next half minute counts for longest.
    login = tmp_path / "login.txt"
    write_private(login, f"{name}\n{PASSWORD}{secret.code(time.time() + 30)}\n")
    extra = (f"auth-user-pass {login}",)
    with running(daemon):
        with openvpn(sites.b, "client", profile, own, remote=sites.a.wan_ipv4, extra=extra) as end:
            end.wait_connected()
        daemon.stop(number)
        daemon.start()
        with openvpn(sites.b, "client", profile, own, remote=sites.a.wan_ipv4, extra=extra) as end:
            end.started.wait_for_output("AUTH_FAILED,user name or password is wrong", 10)
        kept = daemon.state_directory / "used-codes"
        assert kept.stat().st_mode & 0o777 == 0o600
        assert name not in kept.read_text()


def test_a_client_hears_that_a_slow_decision_takes_longer(sites: TwoSites, tmp_path: Path) -> None:
    script = tmp_path / "slow"
    script.write_text("#!/bin/sh\nsleep 6\n")
    script.chmod(0o700)
    profile = Profile()
    tunnel = {"authentication": {"command": [str(script)], "command_seconds": 90}}
    with joined(sites, profile, "server", tunnel=tunnel, extra=(login_file(tmp_path),)) as ends:
        assert "AUTH_PENDING received, extending handshake timeout" in ends.theirs.log, ends.theirs.log
        ends.ping_both_ways()
