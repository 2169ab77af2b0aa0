"""Old ciphers with real OpenVPN: AES-192-GCM, CBC with every HMAC, and peers that negotiate none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

import pytest

from tests.interop.interop_ends import Ends, Role, joined, log_events
from tests.lab import Lab, Profile, TwoSites, wait_for
from tests.lab.openvpn import INSTALLED, RELEASES

pytestmark = pytest.mark.root

CELLS = [
    (INSTALLED, "AES-192-GCM", "SHA1"),
    (INSTALLED, "AES-192-CBC", "SHA384"),
    (INSTALLED, "AES-128-CBC", "SHA1"),
    *((release, "AES-256-CBC", "SHA256") for release in RELEASES),
]


@pytest.fixture(scope="module")
def sites() -> Iterator[TwoSites]:
    with Lab("ciphers") as lab:
        yield TwoSites(lab)


def check(ends: Ends, cipher: str, *, renegotiates: bool) -> None:
    assert ends.peer()["cipher"] == cipher
    ends.ping_both_ways()
    if renegotiates:
        before = ends.theirs.renegotiations()
        wait_for(lambda: ends.theirs.renegotiations() > before, "a renegotiation")
        ends.ping_both_ways()
    assert ends.unwanted_drops() == {}
    is_old = cipher.endswith("-CBC")
    assert any(cipher in remark for remark in ends.peer()["remarks"]) == is_old
    said = [line for line in log_events(ends.ours, "old_cipher") if cipher in line]
    assert bool(said) == is_old, ends.ours.log
    assert "Authenticate/Decrypt" not in ends.theirs.log


@pytest.mark.parametrize("ours_as", get_args(Role))
@pytest.mark.parametrize(("release", "cipher", "digest"), CELLS)
def test_a_cipher_that_both_ends_name_carries_frames(
    sites: TwoSites, ours_as: Role, release: str, cipher: str, digest: str
) -> None:
    profile = Profile(ciphers=(cipher,), digest=digest)
    tunnel = {"renegotiate": {"seconds": 2}, "auth": digest}
    with joined(sites, profile, ours_as, release=release, tunnel=tunnel) as ends:
        if release != "2.5":
            wait_for(ends.theirs.data_cipher, "OpenVPN to log its data channel", 5)
            assert ends.theirs.data_cipher() == cipher
        check(ends, cipher, renegotiates=release in RELEASES)


@pytest.mark.parametrize("ours_as", get_args(Role))
def test_a_peer_that_negotiates_none_gets_the_fallback(sites: TwoSites, ours_as: Role) -> None:
    cipher = "AES-128-CBC"
    extra = ("ncp-disable", f"cipher {cipher}")
    tunnel = {"fallback_cipher": cipher}
    with joined(sites, Profile(), ours_as, release="2.5", extra=extra, tunnel=tunnel) as ends:
        check(ends, cipher, renegotiates=False)
