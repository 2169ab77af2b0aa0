"""Exported profiles: every release of OpenVPN takes the file, whatever the tunnel has."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from bridged.addresses import Endpoint, Remote
from bridged.profiles import Material, Profile, parse_profile, serialize_tunnel
from tests.interop.crypt_v2_ends import CLIENT
from tests.lab.openvpn import INSTALLED, RELEASES
from tests.lab.openvpn_judge import starts
from tests.lab.pki import Authority, static_key, write_private

REMOTES = [Remote.parse("127.0.0.1:1194/udp4"), Remote.parse("127.0.0.1:1195")]
BY_TCP = [Remote.parse("127.0.0.1:1196/tcp4"), Remote.parse("127.0.0.1:1197/tcp")]


def whole() -> Profile:
    """A tunnel with nearly everything that can be set."""
    authority = Authority()
    identity = authority.issue("client", "client")
    pem = (
        authority.certificate,
        identity.certificate,
        identity.key,
        authority.revocation_list(),
        static_key(),
    )
    ca, certificate, key, crl, wrap_key = (Material(0, text=text) for text in pem)
    return Profile(
        remotes=REMOTES,
        local=Endpoint("::", 5000),
        ca=ca,
        certificate=certificate,
        key=key,
        crl=crl,
        wrap_key=wrap_key,
        wrap="tls-auth",
        wrap_direction=1,
        wrap_digest="SHA256",
        peer_role="server",
        peer_subject='C=DE, O=M\\üller & "Söhne", CN=vpn',
        version_min="1.2",
        ciphers=["AES-256-GCM", "CHACHA20-POLY1305"],
        mtu=1400,
        mss=1300,
        ping_seconds=5,
        restart_seconds=30,
        renegotiate_seconds=100,
        renegotiate_bytes=1 << 30,
        renegotiate_packets=1 << 20,
        handshake_seconds=30,
        transition_seconds=60,
        replay_window=64,
        exit_notify=True,
    )


CHANGES: dict[str, dict[str, object]] = {
    "as it is": {},
    "wan_mtu": {"mss": None, "wan_mtu": 1400},
    "mss off, another wrap": {"mss": 0, "wrap": "tls-crypt", "local": None},
    "a wrap key of its own": {
        "wrap": "tls-crypt-v2",
        "wrap_key": Material(0, text=CLIENT.serialize()),
        "wrap_direction": None,
    },
    "sizes of single servers": {
        "mss": None,
        "remote_sizes": {REMOTES[0]: (1300, None), REMOTES[1]: (None, 1400)},
    },
    "by TCP": {"remotes": BY_TCP, "exit_notify": True},
    "by TCP without farewells": {"remotes": BY_TCP, "exit_notify": False},
    "by UDP and TCP": {"remotes": [*REMOTES, *BY_TCP]},
    "no list of ciphers": {"ciphers": [], "peer_subject": None, "peer_name": "vpn"},
}


@pytest.mark.parametrize("release", [INSTALLED, *RELEASES])
@pytest.mark.parametrize("change", CHANGES)
def test_every_release_takes_an_exported_profile(tmp_path: Path, change: str, release: str) -> None:
    profile = replace(whole(), **CHANGES[change])  # type: ignore[arg-type]
    text = serialize_tunnel(profile, "site")
    write_private(tmp_path / "site.ovpn", text)
    log = tmp_path / "log"
    assert starts(log, ("--config", str(tmp_path / "site.ovpn")), release), log.read_text()
    of_servers = re.findall(r" (tun_mtu|explicit_exit_notification) = (\d+)", log.read_text())
    assert of_servers == [
        setting
        for remote in profile.remotes
        for setting in (
            ("tun_mtu", "1400"),
            ("explicit_exit_notification", str(int(profile.exit_notify and remote.family.startswith("udp")))),
        )
    ]
    found = parse_profile(text, "site.ovpn")
    assert (found.remotes, found.mtu) == (profile.remotes, 1400)


def test_pinned_fingerprints_are_not_left_out_by_a_release_that_does_not_know_them(tmp_path: Path) -> None:
    profile = replace(whole(), peer_fingerprints=["ab" * 32])
    write_private(tmp_path / "site.ovpn", serialize_tunnel(profile, "site"))
    options = ("--config", str(tmp_path / "site.ovpn"))
    assert starts(tmp_path / "log", options) and not starts(tmp_path / "log", options, "2.5")
    assert "peer-fingerprint" in (tmp_path / "log").read_text()
