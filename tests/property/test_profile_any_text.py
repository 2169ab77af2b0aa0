"""Profiles: any text is read or refused with lines; what is written is read back."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridged.addresses import Endpoint, Remote
from bridged.configuration.load import parse
from bridged.errors import ConfigurationError, ConfigurationErrors
from bridged.profiles import (
    ClientProfile,
    Trust,
    parse_profile,
    render_yaml,
    serialize_profile,
    to_configuration,
)
from bridged.profiles.directives import IGNORED, NOTED, REFUSED
from bridged.profiles.mapping import MAPPERS
from bridged.profiles.statements import split_words
from bridged.profiles.text import decode_text
from bridged.tls.pem import PRIVATE_KEYS, pem_blocks

BASE = "client\ndev tap\nremote hub 1195\nca a\ncert c\nkey k\n"
names = st.sampled_from(sorted({*MAPPERS, *IGNORED, *NOTED, *REFUSED}))
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
