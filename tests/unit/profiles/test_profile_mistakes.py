"""Profiles that cannot work, or hold what was not meant: each is refused in one line, with the cure."""

from __future__ import annotations

import pytest

from tests.unit.profiles.profile_texts import connection, read, refusals

# Files that are no profile, and keys that lost their block

KEY_LINES = (
    "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg",
    "Z6i5C5JUL+S3wcLcpUO",
    "Mlf/",
    "d09450c1c243c1cb267e660a59fd7c8a",
)


def test_a_private_key_outside_of_its_block_is_refused_with_the_cure_and_not_repeated():
    for begin in ("-----BEGIN PRIVATE KEY-----\n", ""):
        errors = refusals(begin + "\n".join(KEY_LINES))
        text = "\n".join(map(str, errors))
        assert not any(line in text for line in KEY_LINES), text
        assert ("<key>" in text or "`key`" in text) if begin else "no directive" in text


def test_a_key_in_a_connection_block_is_not_repeated_either():
    errors = refusals(base="client\ndev tap\n" + connection("remote h", *KEY_LINES))
    assert errors and not any(line in str(error) for line in KEY_LINES for error in errors)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is empty"),
        (" \n\n", "is empty"),
        ("# comment\n", "is it a profile?"),
        ("<!DOCTYPE html><html><body>Log in</body></html>\n", "is it a profile?"),
        ("PK\x03\x04\0\0", "is it a profile?"),
    ],
)
def test_what_is_no_profile_at_all_is_said_in_one_line(text, reason):
    (error,) = refusals(base=text, identity="")
    assert reason in error.reason


# Words that cannot be meant


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("remote vpn.example.net:1194", "write host and port as two: `remote vpn.example.net 1194`"),
        ("remote [2001:db8::1]:1194", "`remote 2001:db8::1 1194`"),
        ("remote [2001:db8::1] 1194", "write `remote 2001:db8::1`"),
        ("remote udp://vpn.example.net:1194", "`remote vpn.example.net 1194`"),
        ("remote hub.exampl!.net", "not a host name or an address"),
        ("remote b\u00fcro.example.net", "in its ASCII form (xn--"),
        ("verb\u00a03", "U+00A0, no-break space"),
        ("\u2014verb 3", "U+2014, em dash"),
        ("verify-x509-name \u201chub\u201d names", "U+201C"),
        ("remote {{ host }} 1194", "write the value in place of `{{ host }}`"),
        ("remote %%HOST%% 1194", "`%%HOST%%`"),
        ("remote $SERVER 1194", "`$SERVER`"),
        ("remote ${SERVER} 1194", "`${SERVER}`"),
        ("remote <MYSERVER> 1194", "`<MYSERVER>`"),
        ("remote vpn.example.net PORT", "not a number"),
        ("{{ remotes }}", "`{{ remotes }}`"),
        ("presist-key", "did you mean `persist-key`"),
    ],
)
def test_what_was_meant_is_said(line, reason):
    (error,) = refusals(line)
    assert error.line == 4 and reason in error.reason


@pytest.mark.parametrize(
    "line",
    [
        "log $LOG/x",
        "up {{ script }}",
        "# \u201cverb\u201d",
        "cd /srv/a<b",
        "verify-x509-name 'M\u00fcller' name",
    ],
)
def test_strange_words_refuse_nothing_where_they_do_no_harm(line):
    if line.startswith("up"):
        assert "unfilled template" in refusals(line)[0].reason
    else:
        read(line)


def test_the_shell_s_variables_in_a_command_are_no_template():
    assert read("up '/bin/sh -c \"ip link set $DEV master br7\"'").bridge == "br7"


@pytest.mark.parametrize("line", ["remote h 0", "ca", "dev a/b"])
def test_a_refused_line_is_not_called_missing_as_well(line):
    name = line.split()[0]
    base = "\n".join(text for text in ("client", "dev tap", "remote h", "ca c") if not text.startswith(name))
    errors = refusals(line, base=base + "\n", identity="cert c\nkey k\nremote-cert-tls server\n")
    assert [error.key for error in errors] == [name]


# What cannot work


@pytest.mark.parametrize(
    ("suites", "works"),
    [
        ("TLS-DHE-RSA-WITH-AES-256-CBC-SHA", False),
        ("TLS-DHE-RSA-WITH-AES-256-CBC-SHA:TLS-RSA-WITH-AES-256-GCM-SHA384", False),
        ("TLS-DHE-RSA-WITH-AES-256-CBC-SHA:TLS-DHE-RSA-WITH-AES-256-GCM-SHA384", True),
        ("ECDHE-ECDSA-AES128-GCM-SHA256", True),
        ("TLS-ECDHE-RSA-WITH-CHACHA20-POLY1305-SHA256", True),
        ("DEFAULT:!EXP:!LOW", True),
        ("HIGH", True),
    ],
)
def test_a_profile_without_a_common_suite_is_refused_unless_tls_1_3_remains(suites, works):
    read(f"tls-cipher {suites}")
    if works:
        read(f"tls-cipher {suites}\ntls-version-max 1.2")
    else:
        (error,) = refusals(f"tls-cipher {suites}\ntls-version-max 1.2")
        assert error.line == 4 and error.key == "tls-cipher" and "remove one of both lines" in error.reason


@pytest.mark.parametrize(
    ("lines", "key"),
    [
        ("tls-ciphersuites TLS_AES_128_CCM_SHA256\ntls-version-min 1.3", "tls-ciphersuites"),
        ("tls-ciphersuites TLS_AES_128_CCM_SHA256\ntls-cipher TLS-RSA-WITH-AES-128-GCM-SHA256", "tls-cipher"),
        ("tls-version-min 1.3\ntls-version-max 1.2", "tls-version-min"),
        ("tls-ciphersuites TLS_AES_128_CCM_SHA256", ""),
        ("tls-ciphersuites TLS_AES_128_CCM_SHA256:TLS_AES_128_GCM_SHA256\ntls-version-min 1.3", ""),
        ("tls-cipher TLS-RSA-WITH-AES-128-GCM-SHA256\ntls-version-min 1.3", ""),
    ],
)
def test_lines_about_tls_that_leave_nothing_together_are_refused(lines, key):
    if not key:
        read(lines)
        return
    (error,) = refusals(lines)
    assert error.key == key and "remove one of both lines" in error.reason
