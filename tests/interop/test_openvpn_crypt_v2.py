"""tls-crypt-v2 with every release of OpenVPN in both roles: renegotiation, refusal, old clients, files."""

from __future__ import annotations

import base64
import secrets
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, get_args

import pytest

from bridged.pki import refused_keys_path
from bridged.protocol.keys.client_wrap_key import (
    METADATA_MOST,
    ClientWrapKey,
    parse_client_key,
    parse_server_key,
)
from tests.interop.crypt_v2_ends import CLIENT, SERVER, block, ends_of
from tests.interop.interop_ends import Role, joined, openvpn, running, wait_for_event
from tests.lab import Lab, Profile, TwoSites, wait_for
from tests.lab.bridged_daemon import server
from tests.lab.openvpn import INSTALLED, RELEASES, openvpn_program
from tests.lab.pki import static_key, write_private
from tests.lab.processes import run

pytestmark = pytest.mark.root
RENEGOTIATION_SECONDS = 2


@pytest.fixture(scope="module")
def sites() -> Iterator[TwoSites]:
    with Lab("cryptv2") as lab:
        yield TwoSites(lab)


@pytest.mark.parametrize("ours_as", get_args(Role))
@pytest.mark.parametrize(
    ("release", "transport", "family"),
    [*((release, "udp", 4) for release in RELEASES), ("2.6", "tcp", 4), ("2.5", "udp", 6), ("2.6", "udp", 6)],
)
def test_frames_cross_through_renegotiations(
    sites: TwoSites, release: str, ours_as: Role, transport: Literal["udp", "tcp"], family: int
) -> None:
    keys, lines = ends_of(ours_as)
    keys["renegotiate"] = {"seconds": RENEGOTIATION_SECONDS}
    profile = Profile(wrap="none", transport=transport)
    remote = sites.a.wan_ipv6 if family == 6 else ""
    with joined(sites, profile, ours_as, tunnel=keys, extra=lines, release=release, remote=remote) as ends:
        assert ends.ours.tunnel()["wrap"] == "tls-crypt-v2"
        wait_for(
            lambda: ends.ours.tunnel()["renegotiations"].get("time", {}).get("established", 0) >= 1,
            "a renegotiation",
        )
        ends.ping_both_ways()
        assert ends.changed_frames() == {}
        assert ends.unwanted_drops() == {}


@pytest.mark.parametrize("ours_as", get_args(Role))
@pytest.mark.parametrize("release", RELEASES)
def test_a_key_with_as_much_metadata_as_fits_is_taken(sites: TwoSites, release: str, ours_as: Role) -> None:
    """Such a hard reset and its repetition are larger than a minimum packet of IPv6."""
    large = SERVER.make_client_key(secrets.token_bytes, 0, secrets.token_bytes(METADATA_MOST - 1))
    keys, lines = ends_of(ours_as)
    if ours_as == "server":
        lines = block(large)
    else:
        keys["wrap"]["key"] = large.serialize()
    with joined(sites, Profile(wrap="none"), ours_as, tunnel=keys, extra=lines, release=release) as ends:
        ends.ping_both_ways(1)


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
    profile = Profile(wrap="none")
    daemon = server(sites.a, profile, profile.authority.issue("server", "server"), tunnel=keys)
    identity = profile.authority.issue("client", "client")
    far = sites.a.wan_ipv4
    with running(daemon) as ours:
        with openvpn(sites.b, "client", profile, identity, remote=far, extra=block(old), release="2.6"):
            wait_for_event(ours, "wrap_key_refused", old.identifier, "too old")
            assert ours.connected_peers() == []
            assert ours.tunnel()["control_drops"]["receive"]["wrap_key_refused"] >= 1
            assert [one["reason"] for one in ours.tunnel()["refused"]] == ["wrap_key_refused"]
        with openvpn(sites.b, "client", profile, identity, remote=far, extra=lines, release="2.6") as theirs:
            theirs.wait_connected()
            ours.wait_connected()
            # It is stolen while it is connected.
            write_private(refused_keys_path(ours.state_directory), f"{CLIENT.identifier} laptop\n")
            ours.reload()
            wait_for(lambda: ours.connected_peers() == [], "the session to end")
            theirs.started.wait_for_output("this client's tls-crypt-v2 key is refused", 10)
        # The other tests' servers have the same state folder.
        refused_keys_path(ours.state_directory).unlink()


SCRIPT = """\
#!{python} -S
import os, sys
text = open(os.environ["metadata_file"], "rb").read().decode()
asked = f"{{os.environ['script_type']}} {{os.environ['metadata_type']}} {{text}}\\n"
open({asked!r}, "a").write(asked)
sys.exit(0 if text == "good" else 1)
"""


@pytest.mark.parametrize("release", RELEASES)
def test_a_program_is_asked_about_metadata_as_tls_crypt_v2_verify_is(
    sites: TwoSites, release: str, tmp_path: Path
) -> None:
    asked, script = tmp_path / "asked", tmp_path / "verify"
    script.write_text(SCRIPT.format(python=sys.executable, asked=str(asked)))
    script.chmod(0o700)
    keys, _ = ends_of("server", verify_command=[str(script)])
    profile = Profile(wrap="none")
    daemon = server(sites.a, profile, profile.authority.issue("server", "server"), tunnel=keys)
    identity = profile.authority.issue("client", "client")

    def key(metadata: str) -> ClientWrapKey:
        return SERVER.make_client_key(secrets.token_bytes, 0, metadata.encode())

    good, bad = key("good"), key("bad")
    far = sites.a.wan_ipv4
    with running(daemon) as ours:
        with openvpn(sites.b, "client", profile, identity, remote=far, extra=block(bad), release=release):
            wait_for_event(ours, "wrap_key_refused", bad.identifier)
            assert ours.connected_peers() == []
        with openvpn(
            sites.b, "client", profile, identity, remote=far, extra=block(good), release=release
        ) as far_end:
            far_end.wait_connected()
            ours.wait_connected()
    questions = asked.read_text().splitlines()
    assert questions[0] == "tls-crypt-v2-verify 0 bad" and questions[-1] == "tls-crypt-v2-verify 0 good"


@pytest.mark.parametrize("release", ["2.5", "2.6"])
@pytest.mark.parametrize("mode", ["tls-crypt", "tls-auth"])
def test_clients_with_a_shared_key_are_served_beside_the_others(
    sites: TwoSites, mode: Literal["tls-crypt", "tls-auth"], release: str
) -> None:
    shared = static_key()
    options = {"direction": 0, "digest": "SHA256"} if mode == "tls-auth" else {}
    keys, lines = ends_of("server", old_clients_key=shared, old_clients_mode=mode, **options)
    keys["renegotiate"] = {"seconds": RENEGOTIATION_SECONDS}
    digest = "SHA256" if mode == "tls-auth" else "SHA1"
    profile = Profile(wrap="none", digest=digest)
    old = Profile(authority=profile.authority, wrap=mode, wrap_key=shared, digest=digest)
    daemon = server(sites.a, profile, profile.authority.issue("server", "server"), tunnel=keys)
    far = sites.a.wan_ipv4
    issue = profile.authority.issue
    with running(daemon) as ours:
        with openvpn(sites.b, "client", old, issue("old", "client"), remote=far, release=release) as theirs:
            theirs.wait_connected()
            wait_for(
                lambda: ours.tunnel()["renegotiations"].get("time", {}).get("established", 0) >= 1,
                "a renegotiation",
            )
            assert "auth' is used inconsistently" not in theirs.log
        with openvpn(
            sites.b, "client", profile, issue("new", "client"), remote=far, extra=lines, release=release
        ) as theirs:
            theirs.wait_connected()
        other = Profile(authority=profile.authority, wrap=mode, wrap_key=static_key(), digest=digest)
        with openvpn(sites.b, "client", other, issue("odd", "client"), remote=far, release=release):
            wait_for_event(ours, "stranger_refused", "wrap_mismatch", mode)


@pytest.mark.parametrize("release", [*RELEASES, INSTALLED])
def test_key_files_of_openvpn_are_read_and_it_reads_ours(release: str, tmp_path: Path) -> None:
    command = openvpn_program(release)
    theirs, ours = tmp_path / "theirs.key", tmp_path / "ours.key"
    run(command, "--genkey", "tls-crypt-v2-server", str(theirs))
    write_private(ours, SERVER.serialize())
    metadata = base64.b64encode(b"laptop").decode()
    for path, key in ((theirs, parse_server_key(theirs.read_text(), "theirs")), (ours, SERVER)):
        made = tmp_path / f"{path.stem}.client.key"
        words = ("--tls-crypt-v2", str(path), "--genkey", "tls-crypt-v2-client", str(made), metadata)
        run(command, *words)
        client = parse_client_key(made.read_text(), "client")
        opened = key.unwrap(client.wrapped)
        assert (opened.key, opened.metadata_type, opened.metadata) == (client.key, 0, b"laptop")
        assert client.serialize().split() == made.read_text().split()
