"""tls-crypt-v2 with every release of OpenVPN, in both roles: keys of our making, renegotiation, refusal."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from typing import Any, Literal, get_args

import pytest

from bridged.protocol.keys.client_wrap_key import ServerWrapKey
from tests.interop.interop_ends import Role, joined, openvpn, running
from tests.lab import Lab, Profile, TwoSites, wait_for
from tests.lab.bridged_daemon import server
from tests.lab.openvpn import RELEASES

pytestmark = pytest.mark.root
RENEGOTIATION_SECONDS = 2
SERVER = ServerWrapKey.generate(secrets.token_bytes)
CLIENT = SERVER.make_client_key(secrets.token_bytes, int(time.time()))


@pytest.fixture(scope="module")
def sites() -> Iterator[TwoSites]:
    with Lab("cryptv2") as lab:
        yield TwoSites(lab)


def ends_of(ours_as: Role, **wrap: object) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Our tunnel's wrap, and the lines of OpenVPN at the other end."""
    ours, theirs = (SERVER, CLIENT) if ours_as == "server" else (CLIENT, SERVER)
    block = ("<tls-crypt-v2>", theirs.serialize().strip(), "</tls-crypt-v2>")
    return {"wrap": {"mode": "tls-crypt-v2", "key": ours.serialize(), **wrap}}, block


@pytest.mark.parametrize("ours_as", get_args(Role))
@pytest.mark.parametrize(
    ("release", "transport"), [*((release, "udp") for release in RELEASES), ("2.6", "tcp")]
)
def test_frames_cross_through_renegotiations(
    sites: TwoSites, release: str, ours_as: Role, transport: Literal["udp", "tcp"]
) -> None:
    keys, lines = ends_of(ours_as)
    keys["renegotiate"] = {"seconds": RENEGOTIATION_SECONDS}
    profile = Profile(wrap="none", transport=transport)
    with joined(sites, profile, ours_as, tunnel=keys, extra=lines, release=release) as ends:
        assert ends.ours.tunnel()["wrap"] == "tls-crypt-v2"
        wait_for(
            lambda: ends.ours.tunnel()["renegotiations"].get("time", {}).get("established", 0) >= 1,
            "a renegotiation",
        )
        ends.ping_both_ways()
        assert ends.changed_frames() == {}
        assert ends.unwanted_drops() == {}


def test_our_client_brings_its_key_again_to_a_server_that_insists(sites: TwoSites) -> None:
    keys, (_, text, _) = ends_of("client")
    path = sites.a.namespace.directory / "v2.key"
    path.write_text(text)
    lines = (f"tls-crypt-v2 {path} force-cookie",)
    with joined(sites, Profile(wrap="none"), "client", tunnel=keys, extra=lines, release="2.6") as ends:
        ends.ping_both_ways()


def test_a_refused_key_gets_nowhere_and_another_one_does(sites: TwoSites) -> None:
    keys, lines = ends_of("server", max_age_days=1)
    old = SERVER.make_client_key(secrets.token_bytes, int(time.time()) - 2 * 86_400)
    block = ("<tls-crypt-v2>", old.serialize().strip(), "</tls-crypt-v2>")
    profile = Profile(wrap="none")
    daemon = server(sites.a, profile, profile.authority.issue("server", "server"), tunnel=keys)
    identity = profile.authority.issue("client", "client")
    far = sites.a.wan_ipv4
    with running(daemon) as ours:
        with openvpn(sites.b, "client", profile, identity, remote=far, extra=block, release="2.6"):
            wait_for(
                lambda: ours.tunnel()["control_drops"].get("receive", {}).get("wrap_key_refused"),
                "the key to be refused",
            )
            assert ours.connected_peers() == []
        with openvpn(sites.b, "client", profile, identity, remote=far, extra=lines, release="2.6") as theirs:
            theirs.wait_connected()
