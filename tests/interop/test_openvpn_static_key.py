"""Links with a static key and real OpenVPN: no TLS, either end may call."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import get_args

import pytest

from tests.interop.interop_ends import Role, running, wait_for_event
from tests.lab import Bridged, Lab, OpenVpn, Profile, TwoSites, wait_for
from tests.lab.bridged_daemon import client, server
from tests.lab.pki import Identity

pytestmark = pytest.mark.root

CELLS = [
    ("2.6", "AES-256-CBC", "SHA256", True),
    ("2.6", "AES-128-CBC", "SHA1", False),
    ("2.5", "AES-256-CBC", "SHA512", True),
]


class StaticOpenVpn(OpenVpn):
    """With `secret`, in the direction that the other end does not have."""

    cipher = ""
    direction: int | None = None

    def configuration(self) -> str:
        profile = self.profile
        where = f"remote {self.remote} {profile.port}\nnobind" if self.remote else f"port {profile.port}"
        lines = [f"dev {self.tap}", "dev-type tap", "verb 4", "proto udp", where, "explicit-exit-notify 1"]
        lines += [f"keepalive {profile.ping_seconds} {profile.restart_seconds}"]
        lines += [f"cipher {self.cipher}", f"auth {profile.digest}"]
        lines += [f"key-direction {self.direction}"] if self.direction is not None else []
        return "\n".join([*lines, "<secret>", profile.wrap_key.strip(), "</secret>", ""])


@contextmanager
def linked(
    sites: TwoSites, ours_as: Role, release: str, cipher: str, digest: str, has_directions: bool
) -> Iterator[tuple[Bridged, StaticOpenVpn]]:
    profile = Profile(wrap="none", digest=digest)
    nobody = Identity("", "", "", 0)
    wrap = {"mode": "static-key", "key": profile.wrap_key, "digest": digest}
    tunnel = {
        "wrap": wrap | ({"direction": 0} if has_directions else {}),
        "ciphers": [cipher],
        "tls": {},
        "point_to_point": True,
    }
    far = sites.a.wan_ipv4
    there = sites.b if ours_as == "server" else sites.a
    theirs = StaticOpenVpn(
        there,
        "client",
        profile,
        nobody,
        remote=far if ours_as == "server" else "",
        tap="ovpn0",
        release=release,
    )
    theirs.cipher, theirs.direction = cipher, 1 if has_directions else None
    ours = (
        server(sites.a, profile, nobody, tunnel=tunnel)
        if ours_as == "server"
        else client(sites.b, profile, nobody, far, tunnel=tunnel)
    )
    try:
        with running(ours):
            theirs.start()
            try:
                yield ours, theirs
            except BaseException:
                print(theirs.started.tail(40))
                raise
            finally:
                theirs.stop(signal.SIGKILL)
    finally:
        there.namespace.ip("link", "del", "ovpn0")


@pytest.fixture(scope="module")
def sites() -> Iterator[TwoSites]:
    with Lab("static") as lab:
        yield TwoSites(lab)


@pytest.mark.parametrize("ours_as", get_args(Role))
@pytest.mark.parametrize(("release", "cipher", "digest", "has_directions"), CELLS)
def test_frames_cross_and_the_farewell_is_heard(
    sites: TwoSites, ours_as: Role, release: str, cipher: str, digest: str, has_directions: bool
) -> None:
    with linked(sites, ours_as, release, cipher, digest, has_directions) as (ours, theirs):
        here, there = (sites.a.host, sites.b.host) if ours_as == "server" else (sites.b.host, sites.a.host)
        wait_for(lambda: here.reaches(there.ipv4), "frames to cross", 15)
        there.ping(here.ipv6, count=3, interval_seconds=0.02)
        (peer,) = ours.connected_peers()
        assert (peer["cipher"], peer["key_derivation"], peer["wrap"]) == (cipher, "static", "static-key")
        assert any("no forward secrecy" in line for line in ours.log.splitlines())
        assert "Authenticate/Decrypt" not in theirs.log
        theirs.started.send_signal(signal.SIGTERM)
        wait_for_event(ours, "peer_disconnected", "exit_notify")
