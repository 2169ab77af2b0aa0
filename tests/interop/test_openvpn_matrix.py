"""What can be agreed with real OpenVPN, with frames crossing: the cells of `matrix.txt`, and more."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from bridged.runtime.server.password_file import hash_password
from tests.interop import crypt_v2_ends
from tests.interop.interop_ends import (
    Ends,
    Role,
    assert_native_where_built,
    joined,
    log_events,
    running,
    unwanted_drops,
)
from tests.interop.matrix import SOFTETHER, Cell, cells
from tests.interop.static_key_ends import linked
from tests.interop_report import PROPERTY
from tests.lab import CIPHERS, Lab, Profile, TwoSites, openvpn_version, wait_for
from tests.lab.bridged_daemon import client
from tests.lab.frames import missing_at
from tests.lab.password_server import PASSWORD, USER, PasswordScript
from tests.lab.pki import Authority, Identity, Usage, write_private
from tests.lab.softether import SoftEther
from tests.lab.topology import Host

pytestmark = pytest.mark.root
SIGNS = {
    "none": "",
    "tls-auth": "Control Channel Authentication: Using {bits} bit message hash '{digest}'",
    "tls-crypt": "Control Channel Encryption: Cipher 'AES-256-CTR'",
    "tls-crypt-v2": "Control Channel Encryption: Cipher 'AES-256-CTR'",
}
BAD = ("Authenticate/Decrypt packet error", "Bad compression", "Bad LZO", "Bad encapsulated", "bad packet ID")
"""What OpenVPN says of packets that it does not take."""
DIGEST_BITS = {"SHA1": 160, "SHA256": 256, "SHA384": 384, "SHA512": 512}
SMALLEST, LARGEST = 60, 1514


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


def of(cell: Cell, folder: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What the cell asks of our tunnel, and further lines of OpenVPN's file."""
    ours: dict[str, Any] = {}
    theirs: list[str] = []
    if not cell.is_link:
        ours["compression_framing"] = cell.framing if cell.ours == "client" and cell.framing else "auto"
    if cell.keys == "prf":
        ours["key_derivation"] = "prf"
    if cell.their_cipher not in ("", "data-ciphers"):
        theirs.append(f"cipher {cell.their_cipher}")
    if cell.cipher.endswith("-CBC"):
        ours["auth"] = cell.digest
    if cell.fragment:
        ours["fragment"] = int(cell.fragment)
        theirs += [f"fragment {cell.fragment}", f"mssfix {cell.fragment}"]
    if not cell.negotiates:
        ours["fallback_cipher"] = cell.cipher
        theirs += [] if cell.is_link else ["ncp-disable"]
    if cell.their_compression:
        theirs.append(cell.their_compression)
    if cell.login and cell.ours == "client":
        write_private(folder / "password", PASSWORD + "\n")
        ours["login"] = {"username": USER, "password": str(folder / "password")}
        theirs += PasswordScript(folder).lines()
    elif cell.login:
        write_private(folder / "passwords", f"{USER}:{hash_password(PASSWORD)}\n")
        write_private(folder / "login", f"{USER}\n{PASSWORD}\n")
        ours["authentication"] = {"password_file": str(folder / "passwords")}
        theirs.append(f"auth-user-pass {folder / 'login'}")
    return ours, tuple(theirs)


def sizes_from(sender: Host) -> dict[str, bytes]:
    """The smallest frame and the largest, to all stations."""
    head = b"\xff" * 6 + bytes.fromhex(sender.mac.replace(":", "")) + b"\x88\xb5"
    return {str(size): head + bytes(size - len(head)) for size in (SMALLEST, LARGEST)}


@contextmanager
def connected(sites: TwoSites, cell: Cell, folder: Path) -> Iterator[Ends]:
    ours_as: Role = "server" if cell.ours.endswith("server") else "client"
    release = cell.installed_or_release
    if cell.wrap == "static-key":
        transport: Literal["udp", "tcp"] = "tcp" if cell.transport == "tcp" else "udp"
        with linked(
            sites,
            ours_as,
            release,
            cell.cipher,
            cell.digest,
            True,
            cell.framing,
            fragment=int(cell.fragment or 0),
            transport=transport,
        ) as ends:
            yield ends
        return
    has_own_keys = cell.wrap == "tls-crypt-v2"
    profile = Profile(
        wrap="none" if has_own_keys else cell.wrap,  # type: ignore[arg-type]
        transport=cell.transport,  # type: ignore[arg-type]
        ciphers=(cell.cipher,) if cell.negotiates else CIPHERS,
        digest=cell.digest,
        point_to_point=cell.is_link,
    )
    tunnel, extra = of(cell, folder)
    if has_own_keys:
        own, lines = crypt_v2_ends.ends_of(ours_as)
        tunnel, extra = tunnel | own, (*extra, *lines)
    with joined(sites, profile, ours_as, tunnel=tunnel, extra=extra, release=release) as ends:
        yield ends


def agreed_by(peer: dict[str, Any]) -> tuple[str, ...]:
    return tuple(peer[name] for name in ("cipher", "key_derivation", "wrap", "transport", "framing"))


def wanted_by(cell: Cell) -> tuple[str, ...]:
    return (cell.cipher, cell.key_derivation, cell.wrap, cell.transport, cell.framing or "none")


def report(cell: Cell, version: str, record_property: Callable[[str, str], None]) -> None:
    record_property(PROPERTY, "|".join([*(value or "-" for value in astuple(cell)), version]))


OPENVPN = [cell for cell in cells() if cell.release != SOFTETHER]
SOFTETHERS = [cell for cell in cells() if cell.release == SOFTETHER]


@pytest.mark.parametrize("cell", OPENVPN, ids=lambda cell: cell.name)
def test_both_ends_agree_and_frames_cross_whole(
    sites: TwoSites, cell: Cell, tmp_path: Path, record_property: Callable[[str, str], None]
) -> None:
    report(cell, openvpn_version(cell.installed_or_release), record_property)
    with connected(sites, cell, tmp_path) as ends:
        assert agreed_by(ends.peer()) == wanted_by(cell)
        if cell.keys != "static":
            wait_for(ends.theirs.data_cipher, "OpenVPN to log its data channel", 5)
            derivation = ends.theirs.key_derivations()[-1]
            assert (ends.theirs.data_cipher(), derivation) == (cell.cipher, cell.key_derivation)
            assert ("aead-epoch" in ends.theirs.log) == (cell.keys == "epoch")
            sign = SIGNS[cell.wrap].format(bits=DIGEST_BITS[cell.digest], digest=cell.digest)
            assert sign in ends.theirs.log
        if cell.is_link:
            wait_for(lambda: ends.our_site.host.reaches(ends.their_site.host.ipv4), "frames to cross", 10)
        ours, theirs = ends.our_site.host, ends.their_site.host
        for source, target in ((ours, theirs), (theirs, ours)):
            assert missing_at(source, target, sizes_from(source)) == {}
        assert ends.unwanted_drops() == {}
        assert log_events(ends.ours, "options_differ") == []
        assert [text for text in BAD if text in ends.theirs.log] == []


@dataclass(slots=True)
class SoftEtherServer:
    """One for all cells. SoftEther knows clients with RSA certificates only."""

    sites: TwoSites
    authority: Authority
    own: Identity
    version: str


@pytest.fixture(scope="module")
def softether() -> Iterator[SoftEtherServer]:
    with Lab("softethers") as lab:
        sites, authority = TwoSites(lab), Authority()

        def issue(name: str, usage: Usage) -> Identity:
            return authority.issue(name, usage, key=rsa.generate_private_key(65537, 2048))

        own = issue("client", "client")
        server = SoftEther(sites.a, issue("server", "server"), {"client": own}).start()
        try:
            yield SoftEtherServer(sites, authority, own, server.version())
        finally:
            server.stop()


@pytest.mark.parametrize("cell", SOFTETHERS, ids=lambda cell: cell.name)
def test_a_softether_server_agrees_and_frames_cross_whole(
    softether: SoftEtherServer, cell: Cell, record_property: Callable[[str, str], None]
) -> None:
    report(cell, f"SoftEther {softether.version}", record_property)
    sites = softether.sites
    transport: Any = cell.transport
    profile = Profile(
        softether.authority, wrap="none", transport=transport, digest=cell.digest, ciphers=(cell.cipher,)
    )
    keys = {"auth": cell.digest}
    daemon = client(sites.b, profile, softether.own, sites.a.wan_ipv4, tunnel=keys)
    with running(daemon) as ours:
        ours.wait_connected()
        assert_native_where_built(ours)
        (peer,) = ours.connected_peers()
        assert agreed_by(peer) == wanted_by(cell)
        here, there = sites.b.host, sites.a.host
        wait_for(lambda: here.reaches(there.ipv4), "frames to cross", 10)
        before = ours.drops()
        for source, target in ((here, there), (there, here)):
            assert missing_at(source, target, sizes_from(source)) == {}
        assert unwanted_drops(ours, before) == {}
        assert log_events(ours, "options_differ") == []


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
