"""OpenVPN ends whose configuration does not fit ours: refused with option and cure, or at least said."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.interop.interop_ends import openvpn, running, wait_for_event
from tests.lab import Hub, Lab, Profile, TwoSites, static_key, wait_for
from tests.lab.bridged_daemon import Bridged, client, server
from tests.lab.openvpn import OpenVpn
from tests.lab.pki import Authority, write_private
from tests.lab.topology import HOST_PORT

pytestmark = pytest.mark.root

SOON = ("tls-timeout 1", "connect-retry 1 1")


@dataclass(slots=True)
class Scene:
    """Our server under tls-crypt, and a site for the misfits."""

    hub: Hub
    profile: Profile
    ours: Bridged

    def visit(self, *extra: str, profile: Profile | None = None, name: str = "visitor") -> Any:
        profile = profile or self.profile
        identity = self.profile.authority.issue(name, "client")
        remote = self.hub.server.wan_ipv4
        return openvpn(self.hub.clients[0], "client", profile, identity, remote=remote, extra=(*SOON, *extra))

    def shown(self, reason: str) -> list[str]:
        return [one["detail"] for one in self.ours.tunnel()["refused"] if one["reason"] == reason]

    def dropped(self, reason: str) -> int:
        count: int = self.ours.tunnel()["control_drops"].get("receive", {}).get(reason, 0)
        return count


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with Lab("misfit") as lab:
        hub = Hub(lab, 1)
        profile = Profile()
        keys = {"compression_framing": "none"}
        ours = server(hub.server, profile, profile.authority.issue("server", "server"), tunnel=keys)
        with running(ours):
            yield Scene(hub, profile, ours)


FRAMINGS = {"comp-lzo no": "`comp-lzo` or `compress`", "fragment 1300": "`fragment`"}


@pytest.mark.parametrize("option", FRAMINGS)
def test_our_server_refuses_a_client_with_another_framing_and_names_option_and_cure(
    scene: Scene, option: str
) -> None:
    before = scene.ours.metric("bridged_handshakes_total", outcome="framing_mismatch")
    name = f"with-{option.replace(' ', '-')}"
    with scene.visit(option, name=name) as visitor:
        visitor.started.wait_for_output(f"AUTH_FAILED,the client uses {FRAMINGS[option]}", 10)
        assert "Initialization Sequence Completed" not in visitor.log
    line = wait_for_event(
        scene.ours, "handshake_failed", "framing_mismatch", f"with-{option.split(maxsplit=1)[0]}"
    )
    assert FRAMINGS[option] in line and "at the client" in line
    assert scene.ours.metric("bridged_handshakes_total", outcome="framing_mismatch") > before
    assert scene.shown("framing_mismatch") and scene.ours.connected_peers() == []


def test_our_server_says_that_a_client_sends_a_password_for_nothing(scene: Scene) -> None:
    secret = scene.hub.clients[0].namespace.directory / "password"
    write_private(Path(secret), "lan\ntop-secret\n")
    with scene.visit(f"auth-user-pass {secret}", name="with-password") as visitor:
        visitor.wait_connected()
        wait_for_event(scene.ours, "password_ignored", "with-password", "auth-user-pass")
        (peer,) = scene.ours.connected_peers()
        assert any("auth-user-pass" in remark for remark in peer["remarks"])
        assert scene.ours.metric("bridged_authentications_total", method="password", outcome="ignored") == 1
    assert "top-secret" not in scene.ours.log


def test_our_server_says_what_the_certificate_was_that_it_refuses(scene: Scene) -> None:
    identity = Authority("Another CA").issue("foreign", "client")
    remote = scene.hub.server.wan_ipv4
    with openvpn(scene.hub.clients[0], "client", scene.profile, identity, remote=remote, extra=SOON):
        line = wait_for_event(scene.ours, "handshake_failed", "certificate_rejected")
    assert "CN=foreign (issued by CN=Another CA" in line and "serial" in line
    assert any("CN=foreign" in detail for detail in scene.shown("certificate_rejected"))


def wrongly_wrapped(kind: str, profile: Profile) -> tuple[Profile, str, str]:
    """A client's profile, the drop reason, and what our server says of it."""
    return {
        "none": (replace(profile, wrap="none"), "wrap_other_kind", "it does not wrap"),
        "tls-auth": (replace(profile, wrap="tls-auth"), "wrap_other_kind", "it wraps with tls-auth"),
        "another key": (replace(profile, wrap_key=static_key()), "wrap_mismatch", "key is not this tunnel's"),
    }[kind]


@pytest.mark.parametrize("kind", ["none", "tls-auth", "another key"])
def test_our_server_says_how_a_strangers_wrapping_differs(scene: Scene, kind: str) -> None:
    profile, reason, words = wrongly_wrapped(kind, scene.profile)
    before = scene.dropped(reason)
    with scene.visit(profile=profile):
        line = wait_for_event(scene.ours, "stranger_refused", reason, words)
        assert scene.hub.clients[0].wan_ipv4 in line
        wait_for(lambda: scene.dropped(reason) >= before + 2, f"drops: {reason}", 5)
        assert any(words in detail for detail in scene.shown(reason))
    assert scene.dropped("short_packet") == 0


def test_our_server_says_that_a_stranger_uses_tls_crypt_v2(scene: Scene, tmp_path: Path) -> None:
    for arguments in (
        ("--genkey", "tls-crypt-v2-server", "server.key"),
        ("--tls-crypt-v2", "server.key", "--genkey", "tls-crypt-v2-client", "client.key"),
    ):
        subprocess.run(["openvpn", *arguments], cwd=tmp_path, check=True, capture_output=True)
    profile = replace(scene.profile, wrap="none")
    with scene.visit(f"tls-crypt-v2 {tmp_path / 'client.key'}", profile=profile):
        wait_for_event(scene.ours, "stranger_refused", "tls_crypt_v2", "this tunnel's `tls-crypt` key")
    assert scene.dropped("tls_crypt_v2") >= 2


class StaticKeyEnd(OpenVpn):
    """OpenVPN in static key mode: a key and an address, no TLS."""

    def configuration(self) -> str:
        lines = [
            *(f"dev {self.tap}", "dev-type tap", "proto udp", f"remote {self.remote} {self.profile.port}"),
            *("nobind", "ping 1", "cipher AES-256-CBC", "verb 3"),
            *("<secret>", static_key(), "</secret>"),
        ]
        return "\n".join(lines) + "\n"


def test_our_server_says_that_a_stranger_uses_a_static_key(scene: Scene) -> None:
    """A fifth of its packets happen to begin like control packets: it sends enough of them."""
    site = scene.hub.clients[0]
    identity = scene.profile.authority.issue("static", "client")
    end = StaticKeyEnd(
        site, "client", scene.profile, identity, remote=scene.hub.server.wan_ipv4, tap="static0"
    )
    try:
        end.start()
        end.started.wait_for_output("link remote", 10)
        deadline = time.monotonic() + 15
        while "static_key" not in scene.ours.log and time.monotonic() < deadline:
            broadcast = (
                "ping",
                "-b",
                "-c",
                "30",
                "-i",
                "0.01",
                "-W",
                "1",
                "-I",
                HOST_PORT,
                "255.255.255.255",
            )
            site.host.namespace.run(*broadcast, check=False)
        wait_for_event(scene.ours, "stranger_refused", "static_key", "`secret`")
        assert scene.dropped("static_key") >= 3 and scene.shown("static_key")
    finally:
        end.stop()
        site.namespace.ip("link", "del", "static0")


@pytest.fixture(scope="module")
def sites() -> Iterator[TwoSites]:
    with Lab("misfit2") as lab:
        yield TwoSites(lab, wan="switch")


@pytest.mark.parametrize(
    ("option", "named"),
    [("comp-lzo no", "`comp-lzo` or `compress`"), ("fragment 1300", "`fragment`")],
)
def test_our_client_leaves_a_server_with_another_framing_and_names_option_and_cure(
    sites: TwoSites, option: str, named: str
) -> None:
    profile = Profile()
    issue = profile.authority.issue
    daemon = client(sites.b, profile, issue("client", "client"), sites.a.wan_ipv4)
    theirs = openvpn(sites.a, "server", profile, issue("server", "server"), extra=(option,))
    with theirs, running(daemon):
        line = wait_for_event(daemon, "handshake_failed", "framing_mismatch", named)
        assert "at the server" in line
        assert daemon.status()["tunnels"][0]["last_error"].startswith("framing_mismatch")
        assert daemon.connected_peers() == []


@pytest.mark.parametrize(
    ("lines", "outcome", "seconds"),
    [((), "timeout", 9.0), (("auth-user-pass-optional",), "auth_failed", 9.0)],
    ids=["silent", "refusing"],
)
def test_our_client_says_that_a_server_may_ask_for_a_password(
    sites: TwoSites, lines: tuple[str, ...], outcome: str, seconds: float
) -> None:
    """OpenVPN forgets a client without a password where it asks for one; where it is optional it says no."""
    profile = Profile()
    issue = profile.authority.issue
    own = issue("client", "client")
    daemon = client(sites.b, profile, own, sites.a.wan_ipv4, tunnel={"handshake_seconds": 5})
    asking = ("script-security 3", "auth-user-pass-verify /bin/false via-env", *lines)
    with openvpn(sites.a, "server", profile, issue("server", "server"), extra=asking), running(daemon):
        line = wait_for_event(daemon, "handshake_failed", outcome, "user name and password", seconds=seconds)
        assert "refuse our certificate" not in line


def test_no_difference_is_reported_where_only_negotiated_values_differ(sites: TwoSites) -> None:
    profile = Profile(wrap="tls-crypt", digest="SHA512")
    issue = profile.authority.issue
    daemon = client(sites.b, replace(profile, digest="SHA1"), issue("client", "client"), sites.a.wan_ipv4)
    with openvpn(sites.a, "server", profile, issue("server", "server")), running(daemon):
        daemon.wait_connected()
        assert "options_differ" not in daemon.log
        assert daemon.connected_peers()[0]["remarks"] == []
