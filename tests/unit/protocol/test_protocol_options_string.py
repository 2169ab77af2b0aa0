"""Options strings (known answers: tests/vectors)."""

from __future__ import annotations

import pytest

from bridged.protocol.keys.cipher import Cipher
from bridged.protocol.packets.options_string import (
    LinkOptions,
    build_options_string,
    compare_options,
    foreign_framing,
    option_value,
)
from bridged.protocol.role import Role

OURS = LinkOptions(Role.CLIENT)
EXPECTED = build_options_string(OURS.mirrored())


def test_the_examples_of_the_specification() -> None:
    assert build_options_string(OURS) == (
        "V4,dev-type tap,link-mtu 1573,tun-mtu 1500,proto UDPv4,auth SHA1,keysize 128,key-method 2,tls-client"
    )
    assert build_options_string(
        LinkOptions(Role.CLIENT, digest="SHA256", tls_auth=True, key_direction=1)
    ) == (
        "V4,dev-type tap,link-mtu 1585,tun-mtu 1500,proto UDPv4,keydir 1,auth SHA256,keysize 128,tls-auth,"
        "key-method 2,tls-client"
    )


def test_mirrored_options_swap_role_and_direction_only() -> None:
    mirrored = LinkOptions(Role.SERVER, tun_mtu=1400, tcp=True, tls_auth=True, key_direction=0).mirrored()
    assert mirrored == LinkOptions(Role.CLIENT, tun_mtu=1400, tcp=True, tls_auth=True, key_direction=1)


def test_equal_options_give_no_warning() -> None:
    assert compare_options(EXPECTED, EXPECTED) == []


def test_differences_are_named() -> None:
    received = EXPECTED.replace("dev-type tap", "dev-type tun").replace(
        ",key-method", ",mtu-dynamic,key-method"
    )
    assert compare_options(EXPECTED, received) == [
        "dev-type: expected tap, peer has tun",
        "mtu-dynamic: expected nothing, peer has it",
    ]
    # Compression framing is negotiated.
    assert compare_options(EXPECTED, EXPECTED.replace(",auth", ",comp-lzo,auth")) == []
    assert compare_options(EXPECTED, EXPECTED.replace(",tls-server", "")) == [
        "tls-server: expected it, peer has nothing"
    ]


def test_differences_that_openvpn_does_not_report_are_not_reported() -> None:
    received = EXPECTED.replace("UDPv4", "TCPv4_SERVER").replace(
        "key-method 2", "key-method 3,keydir 1,tls-auth"
    )
    assert compare_options(EXPECTED, received + ",cipher X,tun-ipv6") == []


def test_a_client_names_its_first_cipher_and_changes_nothing_else_for_it() -> None:
    plain = build_options_string(LinkOptions(Role.CLIENT))
    named = build_options_string(LinkOptions(Role.CLIENT, wanted_cipher=Cipher.AES_256_GCM))
    assert named == plain.replace(",auth SHA1", ",cipher AES-256-GCM,auth SHA1")
    mirrored = LinkOptions(Role.CLIENT, wanted_cipher=Cipher.AES_256_GCM).mirrored()
    assert build_options_string(mirrored) == build_options_string(LinkOptions(Role.SERVER))
    assert compare_options(plain, named) == compare_options(named, plain) == []


def test_the_key_size_of_a_cipher_that_the_peer_names_is_not_reported() -> None:
    expected = build_options_string(LinkOptions(Role.SERVER))
    received = expected.replace("auth SHA1,keysize 128", "cipher AES-256-GCM,auth SHA1,keysize 256")
    assert compare_options(expected, received) == []


def test_values_that_follow_from_the_negotiated_cipher_are_no_difference() -> None:
    received = EXPECTED.replace("link-mtu 1573", "link-mtu 1581").replace("auth SHA1", "auth [null-digest]")
    assert compare_options(EXPECTED, received.replace("keysize 128", "keysize 256,cipher AES-256-GCM")) == []


@pytest.mark.parametrize(
    ("change", "named", "cure"),
    [
        ((",auth", ",mtu-dynamic,auth"), "`fragment`", "remove `fragment`"),
        (("dev-type tap", "dev-type tun"), "`dev-type tun`", "set `dev tap`"),
    ],
)
def test_another_framing_is_named_with_the_cure(change: tuple[str, str], named: str, cure: str) -> None:
    found = foreign_framing(EXPECTED.replace(*change))
    assert found is not None
    sentence = found.at("client")
    assert named in sentence and f"{cure}" in sentence and sentence.endswith("at the client")


@pytest.mark.parametrize(
    "received",
    [
        EXPECTED,
        EXPECTED.replace(",auth", ",comp-lzo,auth"),
        "V0 UNDEF",
        "",
        "V4",
        EXPECTED.replace("1500", "1400"),
    ],
)
def test_peers_that_frame_as_we_do_or_say_nothing_are_let_in(received: str) -> None:
    assert foreign_framing(received) is None


def test_tun_mtu_1532_of_old_peers_is_not_reported() -> None:
    assert compare_options(EXPECTED, EXPECTED.replace("tun-mtu 1500", "tun-mtu 1532")) == []
    assert compare_options(EXPECTED, EXPECTED.replace("tun-mtu 1500", "tun-mtu 1400")) != []


def test_another_version_is_not_compared() -> None:
    assert compare_options(EXPECTED, "V5,dev-type tun") == []


def test_hostile_text_is_made_printable_and_bounded() -> None:
    warnings = compare_options(EXPECTED, EXPECTED + ",\x1b[31m \x07" + "x" * 1000 + ",y" * 1000)
    assert warnings and all(text.isprintable() and len(text) < 300 for text in warnings)
    assert len(warnings) <= 64


def test_option_values_are_found() -> None:
    assert option_value(EXPECTED, "link-mtu") == "1573"
    assert option_value(EXPECTED, "tls-server") == ""
    assert option_value(EXPECTED, "cipher") is None
