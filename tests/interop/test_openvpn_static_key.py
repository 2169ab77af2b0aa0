"""Links with a static key and real OpenVPN: no TLS, either end may call."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import get_args

import pytest

from tests.interop.interop_ends import Role, wait_for_event
from tests.interop.static_key_ends import linked
from tests.lab import Lab, TwoSites

pytestmark = pytest.mark.root

CELLS = [
    ("2.6", "AES-256-CBC", "SHA256", True),
    ("2.6", "AES-128-CBC", "SHA1", False),
    ("2.5", "AES-256-CBC", "SHA512", True),
]


@pytest.fixture(scope="module")
def sites() -> Iterator[TwoSites]:
    with Lab("static") as lab:
        yield TwoSites(lab)


@pytest.mark.parametrize("ours_as", get_args(Role))
@pytest.mark.parametrize(("release", "cipher", "digest", "has_directions"), CELLS)
def test_frames_cross_and_the_farewell_is_heard(
    sites: TwoSites, ours_as: Role, release: str, cipher: str, digest: str, has_directions: bool
) -> None:
    with linked(sites, ours_as, release, cipher, digest, has_directions) as ends:
        ends.their_site.host.ping(ends.our_site.host.ipv6, count=3, interval_seconds=0.02)
        peer = ends.peer()
        assert (peer["cipher"], peer["key_derivation"], peer["wrap"]) == (cipher, "static", "static-key")
        assert any("no forward secrecy" in line for line in ends.ours.log.splitlines())
        assert "Authenticate/Decrypt" not in ends.theirs.log
        ends.theirs.started.send_signal(signal.SIGTERM)
        wait_for_event(ends.ours, "peer_disconnected", "exit_notify")
