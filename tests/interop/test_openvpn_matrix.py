"""Every agreement that we can have with real OpenVPN 2.6, in both roles, with frames crossing."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import get_args

import pytest

from tests.interop.interop_ends import Ends, Role, joined, log_events
from tests.lab import CIPHERS, Lab, Profile, TwoSites, wait_for
from tests.lab.openvpn import WrapMode

pytestmark = pytest.mark.root
SIGNS = {
    "none": "",
    "tls-auth": "Control Channel Authentication: Using 256 bit message hash 'SHA256'",
    "tls-crypt": "Control Channel Encryption: Cipher 'AES-256-CTR'",
}
MATRIX = list(product(get_args(Role), get_args(WrapMode), CIPHERS, ("exporter", "prf")))


@pytest.fixture(scope="module")
def sites() -> Iterator[TwoSites]:
    with Lab("matrix") as lab:
        yield TwoSites(lab)


def check(ends: Ends, *, wrap: str, cipher: str, derivation: str, tls: str, sign: str) -> None:
    """Both ends say the same, and frames cross whole."""
    wait_for(ends.theirs.data_cipher, "OpenVPN to log its data channel", 5)
    peer = ends.peer()
    assert (peer["cipher"], peer["key_derivation"], peer["tls_version"]) == (cipher, derivation, tls)
    assert ends.ours.tunnel()["wrap"] == wrap
    assert ends.theirs.data_cipher() == cipher
    assert ends.theirs.key_derivations()[-1] == derivation
    assert sign in ends.theirs.log
    assert f"Control Channel: {tls}" in ends.theirs.log
    ends.ping_both_ways()
    assert ends.changed_frames() == {}
    assert ends.unwanted_drops() == {}
    # A server that keeps nothing answers a repeated hard reset with the same packet id again.
    assert set(ends.ours.tunnel()["control_drops"].get("receive", {})) <= {"replay"}
    # Each end compared the other's options string with its own.
    assert log_events(ends.ours, "options_differ") == []
    assert "is used inconsistently" not in ends.theirs.log
    assert "Bad" not in ends.theirs.log and "Authenticate/Decrypt" not in ends.theirs.log


@pytest.mark.parametrize(("ours_as", "wrap", "cipher", "derivation"), MATRIX)
def test_frames_cross_whole_under_every_agreement(
    sites: TwoSites, ours_as: Role, wrap: WrapMode, cipher: str, derivation: str
) -> None:
    profile = Profile(wrap=wrap, ciphers=(cipher,), digest="SHA256" if wrap == "tls-auth" else "SHA1")
    keys = {"key_derivation": "prf"} if derivation == "prf" else {}
    with joined(sites, profile, ours_as, tunnel=keys) as ends:
        check(ends, wrap=wrap, cipher=cipher, derivation=derivation, tls="TLSv1.3", sign=SIGNS[wrap])


@pytest.mark.parametrize("ours_as", get_args(Role))
@pytest.mark.parametrize("derivation", ["exporter", "prf"])
def test_tls_1_2_and_tls_auth_by_sha1_and_an_ipv6_wan(
    sites: TwoSites, ours_as: Role, derivation: str
) -> None:
    profile = Profile(wrap="tls-auth", digest="SHA1", tls_max="1.2")
    keys = {"key_derivation": "prf"} if derivation == "prf" else {}
    sign = "Control Channel Authentication: Using 160 bit message hash 'SHA1'"
    with joined(sites, profile, ours_as, tunnel=keys, remote=sites.a.wan_ipv6) as ends:
        check(ends, wrap="tls-auth", cipher="AES-256-GCM", derivation=derivation, tls="TLSv1.2", sign=sign)
        assert ends.peer()["endpoint"].startswith("[2001:db8:")


@pytest.mark.parametrize("ours_as", get_args(Role))
@pytest.mark.parametrize(
    ("ours", "theirs", "agreed"),
    [
        (
            ("CHACHA20-POLY1305", "AES-128-GCM"),
            ("AES-128-GCM", "CHACHA20-POLY1305"),
            {"server": 0, "client": 1},
        ),
    ],
)
def test_the_server_s_first_choice_among_shared_ciphers_is_taken(
    sites: TwoSites,
    ours_as: Role,
    ours: tuple[str, ...],
    theirs: tuple[str, ...],
    agreed: dict[str, int],
) -> None:
    with joined(sites, Profile(ciphers=theirs), ours_as, tunnel={"ciphers": list(ours)}) as ends:
        wait_for(ends.theirs.data_cipher, "OpenVPN to log its data channel", 5)
        assert ends.peer()["cipher"] == ends.theirs.data_cipher() == ours[agreed[ours_as]]
        ends.ping_both_ways()
