"""Revocation lists that change or end while our server runs; a program that is asked about certificates."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.interop.interop_ends import joined, openvpn, running, wait_for_event
from tests.lab import Lab, Profile, TwoSites, wait_for
from tests.lab.bridged_daemon import server
from tests.lab.pki import write_private

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def sites() -> Iterator[TwoSites]:
    with Lab("lists") as lab:
        yield TwoSites(lab, wan="switch")


def trust(profile: Profile, **more: Any) -> dict[str, Any]:
    own = profile.authority.issue("server", "server")
    tls = {"ca": profile.authority.certificate, "certificate": own.certificate, "key": own.key}
    return {"tls": tls | more}


def test_a_new_list_ends_the_session_of_a_revoked_client_without_a_reload(
    sites: TwoSites, tmp_path: Path
) -> None:
    profile = Profile()
    listed = tmp_path / "crl.pem"
    write_private(listed, profile.authority.revocation_list())
    client = profile.authority.issue("client", "client")
    keys = trust(profile, crl=str(listed))
    with joined(sites, profile, "server", tunnel=keys, theirs=client) as ends:
        profile.authority.revoke(client)
        # One that cannot be used changes nothing.
        listed.write_text("half a list")
        wait_for(lambda: "revocation_list_unusable" in ends.ours.log, "the bad list", 15)
        assert ends.ours.tunnel()["crl_loads"]["rejected"] == 1
        assert len(ends.ours.connected_peers()) == 1
        listed.write_text(profile.authority.revocation_list())
        wait_for(lambda: ends.ours.connected_peers() == [], "the end of the session", 15)
        ends.theirs.started.wait_for_output("this certificate has been revoked", 5)


@pytest.mark.parametrize("policy", ["refuse", "warn"])
def test_a_list_that_has_ended_refuses_everybody_or_only_those_on_it(
    sites: TwoSites, tmp_path: Path, policy: str
) -> None:
    profile = Profile()
    issue = profile.authority.issue
    good, bad = issue("good", "client"), issue("bad", "client")
    profile.authority.revoke(bad)
    listed = tmp_path / "crl.pem"
    write_private(listed, profile.authority.revocation_list(days=-0.1))
    keys = trust(profile, crl=str(listed), crl_expired=policy)
    daemon = server(sites.a, profile, issue("server", "server"), tunnel=keys)
    remote = sites.a.wan_ipv4
    with running(daemon):
        with openvpn(sites.b, "client", profile, good, remote=remote) as end:
            if policy == "warn":
                end.wait_connected()
                daemon.wait_connected()
                # A reload judges connected peers again.
                daemon.configuration["tunnels"]["lab"]["push"] = ["ping-exit 600"]
                daemon.reload()
                assert [peer["name"] for peer in daemon.connected_peers()] == ["good"]
            else:
                wait_for_event(daemon, "handshake_failed", "crl_expired")
        if policy == "warn":
            with openvpn(sites.b, "client", profile, bad, remote=remote):
                wait_for_event(daemon, "handshake_failed", "certificate_revoked", "bad")
            assert "revocation_list_ends" in daemon.log


def test_a_program_is_asked_about_each_certificate_as_tls_verify_is(sites: TwoSites, tmp_path: Path) -> None:
    asked, closed = tmp_path / "asked", tmp_path / "closed"
    script = tmp_path / "verify"
    script.write_text(
        f"#!{sys.executable}\nimport os, sys\n"
        "depth, subject = sys.argv[1:]\n"
        "assert os.path.exists(os.environ['peer_cert']) and os.environ['tls_serial_' + depth]\n"
        f"open({str(asked)!r}, 'a').write(f'{{depth}} {{subject}}\\n')\n"
        f"sys.exit(1 if 'bad' in subject or os.path.exists({str(closed)!r}) else 0)\n"
    )
    script.chmod(0o700)
    profile = Profile(reneg_seconds=3600)
    issue = profile.authority.issue
    keys = trust(profile, verify_command=[str(script)]) | {"renegotiate": {"seconds": 2}}
    with joined(sites, profile, "server", tunnel=keys, theirs=issue("good", "client")) as ends:
        assert asked.read_text().splitlines()[:2] == ["1 CN=Lab CA", "0 CN=good"]
        wait_for(lambda: asked.read_text().count("0 CN=good") >= 2, "the question in a renegotiation", 10)
        ends.ping_both_ways()
        assert ends.peer()["connections"] == 1
        closed.touch()
        wait_for(lambda: ends.ours.connected_peers() == [], "the next renegotiation to be refused", 5)
        ends.theirs.started.wait_for_output("AUTH_FAILED,the certificate is refused", 5)
    closed.unlink()
    daemon = server(sites.a, profile, issue("server", "server"), tunnel=keys)
    remote = sites.a.wan_ipv4
    with running(daemon), openvpn(sites.b, "client", profile, issue("bad", "client"), remote=remote) as end:
        end.started.wait_for_output("AUTH_FAILED,the certificate is refused", 10)
        assert daemon.connected_peers() == []
