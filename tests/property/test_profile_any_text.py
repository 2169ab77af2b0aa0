"""Profiles: any text is read or refused with lines; what is written is read back."""

from __future__ import annotations

import io
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
    pkcs12,
)
from hypothesis import given
from hypothesis import strategies as st

from bridged.addresses import FAMILIES, Endpoint, MacAddress, Remote
from bridged.cli.main import main
from bridged.cli.materials import Materials
from bridged.configuration.load import parse
from bridged.errors import ConfigurationError, ConfigurationErrors
from bridged.pki import EmbeddedCa
from bridged.profiles import (
    ClientProfile,
    Material,
    Profile,
    Trust,
    parse_profile,
    read_file,
    render_yaml,
    serialize_profile,
    serialize_tunnel,
    to_configuration,
)
from bridged.profiles.hints import unfilled_template
from bridged.profiles.mapping_trust import CIPHERS
from bridged.profiles.profile import ProxyLine
from bridged.profiles.statements import split_words
from bridged.profiles.table import DIRECTIVES
from bridged.profiles.text import decode_text
from bridged.tls.pem import PRIVATE_KEYS, pem_blocks

BASE = "client\ndev tap\nremote hub 1195\nca a\ncert c\nkey k\n"
names = st.sampled_from(sorted({*DIRECTIVES["client"], *DIRECTIVES["server"]}))
words = st.one_of(
    st.text(st.characters(exclude_characters="\n\0"), max_size=20),
    st.integers(-5, 1 << 70).map(str),
    st.sampled_from(["server", "tap", "tun", "udp", "tcp", "none", "AES-256-GCM", "[inline]", "::1", "1.3"]),
)


def quoted(word: str) -> str:
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'


lines = st.builds(lambda name, rest: " ".join([name, *map(quoted, rest)]), names, st.lists(words, max_size=4))


@given(st.text(max_size=400))
def test_any_text_is_refused_with_lines_that_exist(text):
    with pytest.raises(ConfigurationErrors) as caught:
        # Never complete: the base is missing.
        parse_profile(text, "x.ovpn")
    for error in caught.value.errors:
        assert error.line is None or 1 <= error.line <= text.count("\n") + 1


@given(st.lists(lines, max_size=6))
def test_any_known_directives_give_a_configuration_that_the_daemon_takes_or_a_refusal(extra):
    try:
        profile = parse_profile(BASE + "\n".join(extra), "x.ovpn")
    except ConfigurationErrors as caught:
        assert all(error.reason for error in caught.errors)
        return
    trust = Trust(certificate="/c", key="/k", ca="/a", crl="/r", wrap_key="/w")
    data = to_configuration(profile, trust, tunnel_name="t", bridge="br0")
    tunnel = parse(render_yaml(data), Path("/client.yaml")).tunnels["t"]
    assert [Remote.parse(text) for text in tunnel.remotes] == profile.remotes


@given(st.lists(st.text(st.characters(exclude_characters="\n\0"), min_size=1, max_size=20), max_size=8))
def test_quoted_words_are_read_back(parts):
    assert split_words(" ".join(map(quoted, parts)), "x", 1) == tuple(parts)


@given(st.text(st.characters(exclude_characters="\n"), max_size=60))
def test_any_line_is_split_or_refused(line):
    try:
        found = split_words(line, "x", 7)
    except ConfigurationError as error:
        assert error.line == 7
    else:
        assert all("\0" not in word for word in found) and len(found) <= 16


SERVER = "dev tap\nserver-bridge 10.8.0.4 255.255.255.0 10.8.0.50 10.8.0.99\nca a\ncert c\nkey k\n"


@given(st.lists(lines, max_size=6))
def test_any_server_s_file_gives_a_configuration_that_the_daemon_takes_or_a_refusal(extra):
    reading = read_file(SERVER + "\n".join(extra), "x.conf")
    assert all(str(outcome).isprintable() for outcome in reading.report)
    if reading.errors:
        assert all(error.reason for error in reading.errors)
        return
    trust = Trust(certificate="/c", key="/k", ca="/a", crl="/r", wrap_key="/w")
    data = to_configuration(reading.profile, trust, tunnel_name="t", bridge="br0")
    assert parse(render_yaml(data), Path("/server.yaml")).tunnels["t"].role == "server"


uci_lines = st.builds(
    lambda kind, name, value: f"{kind} {name} {value}",
    st.sampled_from(["\toption", "list", "config openvpn", "config", "package", ""]),
    st.one_of(names.map(lambda name: name.replace("-", "_")), st.sampled_from(["'a'", "", "enabled"])),
    st.one_of(words.map(quoted), st.sampled_from(["", "1", "'0'", "'open"])),
)


@given(st.lists(uci_lines, max_size=8))
def test_any_uci_file_is_read_or_refused_with_lines_that_exist(extra):
    text = "config openvpn 'a'\n\toption client 1\n" + "\n".join(extra)
    try:
        reading = read_file(text, "openvpn")
    except ConfigurationError as error:
        assert error.line is None or 1 <= error.line <= text.count("\n") + 1
    else:
        assert all(0 <= outcome.line <= text.count("\n") + 1 for outcome in reading.report)


PIECES = [
    *(b"client\n", b"dev tap\n", b"mode server\n", b"config openvpn a\n", b"<connection>\n", b"<ca>\n"),
    *(b"</ca>\n", b"ca C:\\x\n", b"cert /\0x\n", b"key k\n", b"pkcs12 /dev/zero\n", b"push \xe2\x80\xae\n"),
    *(b"remote \x1b[2J 1\n", b"\x1b]0;x\x07", b"\x9b31m", b"\xff\xfe", b"\0", b'"'),
]
junk = st.one_of(st.binary(max_size=300), st.lists(st.sampled_from(PIECES), max_size=12).map(b"".join))


@given(junk)
def test_junk_gets_one_answer_and_sends_no_escape_sequence_to_a_terminal(tmp_path_factory, octets):
    folder = tmp_path_factory.getbasetemp() / "junk"
    folder.mkdir(exist_ok=True)
    (folder / "j.ovpn").write_bytes(octets)
    printed, errors = io.StringIO(), io.StringIO()
    arguments = ["bridged", "import", str(folder / "j.ovpn")]
    with redirect_stdout(printed), redirect_stderr(errors), mock.patch("sys.argv", arguments):
        try:
            main()
        except SystemExit as ending:
            assert ending.code == 2
    text = printed.getvalue() + errors.getvalue()
    assert "Traceback" not in text and all(line.isprintable() for line in text.split("\n")), text


roles = st.sampled_from([None, "server", "client"])
texts = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=30).filter(
    # A name such as `$NAME` is refused as a template that nobody filled in.
    lambda text: unfilled_template([text]) is None
)
remotes = st.builds(
    lambda host, port, family: Remote(Endpoint.of(host, port, family[:3]), family),
    st.one_of(st.from_regex(r"[a-z][a-z0-9]{0,19}", fullmatch=True), st.ip_addresses().map(str)),
    st.integers(1, 65535),
    st.sampled_from(FAMILIES),
).filter(lambda remote: not remote.server.is_numeric or remote.admits(remote.server))
macs = st.binary(min_size=5, max_size=5).map(lambda rest: MacAddress(b"\x02" + rest))
sizes = st.sampled_from([(None, None), (0, None), (1300, None), (None, 1400)])


proxies = st.builds(
    lambda kind, where, asks: ProxyLine(kind, where.server, asks=asks, takes_login=asks),
    st.sampled_from(["http", "socks5"]),
    remotes.map(lambda remote: Remote(Endpoint.of(remote.server.host, remote.server.port))),
    st.booleans(),
)


def material(name):
    return Material(0, text=f"{name}\n")


@st.composite
def profiles(draw):
    wrap = draw(st.sampled_from(["none", "tls-auth", "tls-crypt"]))
    found = draw(st.lists(remotes, min_size=1, max_size=3, unique=True))
    name = dict.fromkeys(("peer_name", "peer_name_prefix", "peer_subject"))
    name[draw(st.sampled_from(sorted(name)))] = draw(st.none() | texts)
    mss, wan_mtu = draw(sizes)
    asked = st.sampled_from([None, "1.2", "1.3"])
    versions = draw(st.tuples(asked, asked).filter(lambda pair: pair != ("1.3", "1.2")))
    # A configuration has always both times.
    ping, restart = draw(st.just((None, None)) | st.tuples(st.integers(0, 100), st.integers(200, 1000)))
    return Profile(
        remotes=found,
        remotes_order=draw(st.sampled_from([None, "shuffled"])),
        proxy=draw(st.none() | proxies) if any(one.server.transport == "tcp" for one in found) else None,
        local=draw(
            st.none() | st.builds(Endpoint, st.sampled_from(["::", "192.0.2.9"]), st.integers(1, 65535))
        ),
        ca=material("ca"),
        certificate=material("cert"),
        key=material("key"),
        crl=draw(st.sampled_from([None, material("crl-verify")])),
        peer_fingerprints=draw(st.lists(st.from_regex(r"[0-9a-f]{64}", fullmatch=True), max_size=2)),
        peer_role=draw(roles),
        **name,
        version_min=versions[0],
        version_max=versions[1],
        wrap=wrap,
        wrap_key=None if wrap == "none" else material(wrap),
        wrap_direction=draw(st.sampled_from([None, 0, 1])) if wrap == "tls-auth" else None,
        wrap_digest=draw(st.sampled_from(["SHA1", "SHA512"])) if wrap == "tls-auth" else None,
        ciphers=draw(st.lists(st.sampled_from(CIPHERS), unique=True)),
        tap_name=draw(st.sampled_from([None, "tap7", "vpn"])),
        tap_mac=draw(st.none() | macs),
        mtu=draw(st.none() | st.integers(576, 9000)),
        mss=mss,
        wan_mtu=wan_mtu,
        ping_seconds=ping,
        restart_seconds=restart,
        renegotiate_seconds=draw(st.none() | st.integers(0, 86400)),
        renegotiate_bytes=draw(st.none() | st.integers(1 << 20, 1 << 40)),
        renegotiate_packets=draw(st.none() | st.integers(1 << 10, 1 << 31)),
        transition_seconds=draw(st.none() | st.integers(60, 3600)),
        replay_window=draw(st.none() | st.sampled_from([64, 128, 1024])),
        handshake_seconds=draw(st.none() | st.integers(5, 3600)),
        exit_notify=draw(st.sampled_from([None, True, False])),
    )


@given(profiles())
def test_every_exported_tunnel_is_read_back_the_same(profile):
    text = serialize_tunnel(profile, "site")
    found = parse_profile(text, "x.ovpn")
    expected = replace(profile, notices=found.notices)
    if profile.peer_role is None and not profile.peer_fingerprints:
        expected.peer_role = "compatible"
    if profile.exit_notify and all(remote.server.transport == "tcp" for remote in profile.remotes):
        expected.exit_notify = None  # OpenVPN has no word for it: the end of the connection says it.
    for one in ("ca", "certificate", "key", "crl", "wrap_key"):
        known = getattr(found, one)
        setattr(found, one, known and Material(0, text=known.text))
    assert found == expected


@given(st.lists(st.tuples(remotes, sizes), min_size=2, max_size=4, unique_by=lambda pair: pair[0]))
def test_sizes_of_single_servers_are_read_back(pairs):
    profile = Profile(remotes=[remote for remote, _ in pairs], remote_sizes=dict(pairs))
    profile.mtu, profile.exit_notify = 1400, False
    profile.ca, profile.certificate, profile.key = material("ca"), material("cert"), material("key")
    found = parse_profile(serialize_tunnel(profile, "site"), "x.ovpn")
    assert found.remotes == profile.remotes
    assert (found.mtu, found.exit_notify) == (profile.mtu, profile.exit_notify)
    for remote, size in pairs:
        assert found.remote_sizes.get(remote, (found.mss, found.wan_mtu)) == size


hosts = st.one_of(
    st.from_regex(r"[a-z][a-z0-9]{0,19}", fullmatch=True),
    st.ip_addresses().map(str),
)


@given(hosts, st.integers(1, 65535), st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,63}", fullmatch=True))
def test_every_invitation_is_read_back(host, port, name):
    remote = Endpoint.of(host, port)
    text = serialize_profile(ClientProfile(name, remote, "server", "CA", "CERT", "KEY", "WRAP"))
    profile = parse_profile(text, "x.ovpn")
    assert profile.remotes == [Remote(remote)] and profile.notices == []
    assert (profile.ca.text, profile.key.text, profile.wrap_key.text) == ("CA\n", "KEY\n", "WRAP\n")


@given(st.binary(max_size=400))
def test_any_octets_of_a_file_are_text_or_refused_as_utf_16(octets):
    try:
        assert isinstance(decode_text(octets, "x.ovpn"), str)
    except ConfigurationError as error:
        assert "UTF-16" in error.reason


@given(
    st.lists(
        st.sampled_from(
            [
                *(b"-----BEGIN PRIVATE KEY-----", b"-----END PRIVATE KEY-----", b"-----BEGIN X-----"),
                *(b"-----END X-----", b"QUJD", b"\xfc\0", b"-----BEGIN ", b"  -----END X-----\r"),
            ]
        ),
        max_size=12,
    )
)
def test_only_whole_pem_blocks_are_taken_from_any_lines(lines):
    found = pem_blocks(b"\n".join(lines), PRIVATE_KEYS)
    assert found.count(b"-----BEGIN PRIVATE KEY-----") == found.count(b"-----END PRIVATE KEY-----")
    assert b"END X" not in found and b"BEGIN X" not in found
    assert pem_blocks(found, PRIVATE_KEYS) == found and b"\0" not in found


@pytest.fixture(scope="module")
def good_files(tmp_path_factory):
    """Files that fit together, by the directive that names them."""
    authority = EmbeddedCa.create(tmp_path_factory.mktemp("good") / "state")
    identity = authority.issue("site", "client", days=30)
    own = x509.load_pem_x509_certificate(identity.certificate_pem)
    key = load_pem_private_key(bytes(identity.key_pem), None)
    locked = BestAvailableEncryption(b"secret")
    return {
        "ca": authority.certificate_pem,
        "cert": identity.certificate_pem,
        "key": key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, locked),
        "pkcs12": pkcs12.serialize_key_and_certificates(b"x", key, own, [], locked),
        "tls-crypt": (authority.directory / "tls-crypt.key").read_bytes(),
        "crl-verify": b"",
    }


changes = st.lists(
    st.tuples(
        st.floats(0, 1),
        st.sampled_from([b"", b"\0", b"\n", b"\xff", b"\x1b[2J", b"-----END X-----\n", b"A" * 99]),
    ),
    min_size=1,
    max_size=4,
)


@given(st.sampled_from(["ca", "cert", "key", "pkcs12", "tls-crypt", "crl-verify"]), changes, st.booleans())
def test_junk_in_a_named_file_is_refused_or_read_and_never_raises(good_files, which, spoilt, is_cut):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lines = ["client", "dev tap", "remote h", "askpass password"]
        for directive, content in good_files.items():
            if directive == which:
                for place, piece in spoilt:
                    at = int(place * len(content))
                    content = content[:at] + piece + content[at + len(piece) :]
                content = content[: len(content) // 2] if is_cut else content
            elif directive in ("pkcs12", "crl-verify"):
                continue
            (folder / directive).write_bytes(content)
            lines.append(f"{directive} {directive}")
        (folder / "password").write_text("secret")
        profile = parse_profile("\n".join(lines), "p.ovpn")
        try:
            texts = Materials(profile, folder / "p.ovpn").texts()
        except (ConfigurationError, ConfigurationErrors) as error:
            assert all(line.isprintable() for line in str(error).splitlines())
        else:
            trust = Trust(certificate=texts["own.crt"], key=texts["own.key"], ca=texts["ca.crt"])
            shown = render_yaml(to_configuration(profile, trust, tunnel_name="t", bridge="br0"))
            assert all(line.isprintable() for line in shown.splitlines())
