"""Peer info, IV_PROTO, and the choice of the data cipher."""

from __future__ import annotations

import pytest

from bridged.errors import RemoteProtocolError
from bridged.protocol.keys.cipher import DEFAULT_CIPHERS, Cipher
from bridged.protocol.packets.negotiation import (
    PeerInfo,
    ProtocolFlags,
    accept_pushed_cipher,
    choose_cipher_for_client,
    choose_cipher_point_to_point,
    client_peer_info,
)

BF = "V4,dev-type tap,cipher BF-CBC,auth SHA1"
GCM128 = "V4,dev-type tap,cipher AES-128-GCM,auth SHA1"
NO_CIPHER = "V4,dev-type tap,auth SHA1"
AES256, AES128, CHACHA = Cipher.AES_256_GCM, Cipher.AES_128_GCM, Cipher.CHACHA20_POLY1305


@pytest.mark.parametrize(
    ("server", "peer_info", "options", "chosen"),
    [
        ((CHACHA, AES256), "IV_CIPHERS=AES-256-GCM:CHACHA20-POLY1305\n", NO_CIPHER, CHACHA),
        ((AES256, AES128), "IV_CIPHERS=aes-128-gcm\n", NO_CIPHER, AES128),
        ((AES256, AES128), "IV_CIPHERS=id-aes128-GCM\n", NO_CIPHER, AES128),
        ((CHACHA, AES128), "IV_NCP=2\n", NO_CIPHER, AES128),
        ((CHACHA, AES128), "IV_NCP=2\n", BF, AES128),
        ((AES256, AES128), "", GCM128, AES128),
    ],
)
def test_the_server_takes_the_first_of_its_list_that_the_client_can_use(
    server: tuple[Cipher, ...], peer_info: str, options: str, chosen: Cipher
) -> None:
    assert choose_cipher_for_client(server, PeerInfo.parse(peer_info), options) is chosen


@pytest.mark.parametrize(
    ("peer_info", "options"),
    [
        ("IV_CIPHERS=AES-128-CBC\n", NO_CIPHER),
        ("IV_CIPHERS=AES-128-CBC\n", "V4,cipher AES-256-GCM"),
        ("IV_NCP=2\nIV_CIPHERS=BF-CBC\n", NO_CIPHER),
        ("IV_CIPHERS=\n", NO_CIPHER),
        ("", BF),
        ("", NO_CIPHER),
    ],
)
def test_a_client_without_a_shared_cipher_is_refused(peer_info: str, options: str) -> None:
    with pytest.raises(RemoteProtocolError) as error:
        choose_cipher_for_client((AES256,), PeerInfo.parse(peer_info), options)
    assert error.value.code == "cipher_mismatch"


@pytest.mark.parametrize(
    ("ours", "pushed", "options", "chosen"),
    [
        ((AES256, AES128), "AES-128-GCM", BF, AES128),
        ((AES256, AES128), None, GCM128, AES128),
    ],
)
def test_the_client_accepts_what_it_offers(
    ours: tuple[Cipher, ...], pushed: str | None, options: str, chosen: Cipher
) -> None:
    assert accept_pushed_cipher(ours, pushed, options) is chosen


@pytest.mark.parametrize(
    ("pushed", "options"),
    [
        ("AES-128-GCM", NO_CIPHER),
        ("AES-256-CBC", NO_CIPHER),
        ("none", NO_CIPHER),
        ("", NO_CIPHER),
        (None, GCM128),
        (None, NO_CIPHER),
    ],
)
def test_the_client_refuses_any_other_cipher(pushed: str | None, options: str) -> None:
    with pytest.raises(RemoteProtocolError) as error:
        accept_pushed_cipher((AES256,), pushed, options)
    assert error.value.code == "cipher_mismatch"


def test_our_peer_info_is_that_of_openvpn_2_6() -> None:
    flags = ProtocolFlags(990)
    info = client_peer_info(
        version="2.6.14",
        platform="linux",
        ciphers=(AES256,),
        flags=flags,
        max_mtu=1600,
    )
    assert info.serialize() == (
        "IV_VER=2.6.14\nIV_PLAT=linux\nIV_TCPNL=1\nIV_MTU=1600\nIV_CIPHERS=AES-256-GCM\nIV_PROTO=990\n"
    )
    both = client_peer_info(version="1", platform="x", ciphers=DEFAULT_CIPHERS, flags=flags, max_mtu=1600)
    assert both.ncp == 2 and both.ciphers == ("AES-256-GCM", "AES-128-GCM", "CHACHA20-POLY1305")


def test_peer_info_is_bounded_and_printable() -> None:
    hostile = (
        "IV_VER=\x1b[31mred\u202e\nno separator\n=x\nbad name=1\nIV_PROTO=abc\nIV_MTU=" + "9" * 30 + "\n"
    )
    info = PeerInfo.parse(hostile + "UV_X=" + "y" * 5000 + "\n" + "A=1\n" * 1000)
    assert info.version == "\\x1b[31mred\\u202e"
    assert info.protocol is ProtocolFlags.NONE and info.mtu is None
    assert [name for name, _ in info.entries] == ["IV_VER", "IV_PROTO", "IV_MTU", "UV_X"]
    assert len(info.get("UV_X") or "") == 256
    assert len(PeerInfo.parse("A=1\n" * 1000).entries) == 64


def test_unknown_bits_of_iv_proto_are_kept() -> None:
    assert int(PeerInfo.parse("IV_PROTO=65536\n").protocol) == 65536


def test_peer_ids_that_both_ends_of_2_8_announce_do_no_harm() -> None:
    info = PeerInfo.parse("ID=1a7411\nIV_VER=2.8_git\nIV_PROTO=8094\nIV_CIPHERS=AES-256-GCM\n")
    assert (info.version, info.get("ID")) == ("2.8_git", "1a7411")
    assert info.protocol & ProtocolFlags.AEAD_EPOCH
    assert choose_cipher_for_client(DEFAULT_CIPHERS, info, "") is AES256


def test_a_fallback_is_for_peers_that_negotiate_none_and_name_no_other() -> None:
    old, modern = PeerInfo(), PeerInfo.parse("IV_CIPHERS=AES-192-GCM\n")
    fallback = Cipher.AES_256_CBC
    for options in ("V4,cipher AES-256-CBC", "V4"):
        assert choose_cipher_for_client(DEFAULT_CIPHERS, old, options, fallback) is fallback
        assert accept_pushed_cipher(DEFAULT_CIPHERS, None, options, fallback) is fallback
    for info, options in ((old, "V4,cipher BF-CBC"), (modern, "V4,cipher AES-256-CBC"), (modern, "V4")):
        with pytest.raises(RemoteProtocolError):
            choose_cipher_for_client(DEFAULT_CIPHERS, info, options, fallback)
    with pytest.raises(RemoteProtocolError):
        accept_pushed_cipher(DEFAULT_CIPHERS, None, "V4,cipher BF-CBC", fallback)
    with pytest.raises(RemoteProtocolError):
        accept_pushed_cipher(DEFAULT_CIPHERS, None, "V4")


def test_point_to_point_takes_the_tls_server_s_order_or_what_an_old_peer_uses() -> None:
    chacha = Cipher.CHACHA20_POLY1305
    info = PeerInfo.parse("IV_CIPHERS=CHACHA20-POLY1305:AES-256-GCM\n")
    assert choose_cipher_point_to_point(DEFAULT_CIPHERS, info, "", None, None) is AES256
    assert choose_cipher_point_to_point(DEFAULT_CIPHERS, info, "", None, [chacha, AES256]) is chacha
    old = PeerInfo()
    assert choose_cipher_point_to_point(DEFAULT_CIPHERS, old, "V4,cipher AES-256-GCM", None, None) is AES256
    assert choose_cipher_point_to_point(DEFAULT_CIPHERS, old, "V4", Cipher.AES_256_CBC, None) is (
        Cipher.AES_256_CBC
    )
    for options in ("V4,cipher BF-CBC", "V4"):
        with pytest.raises(RemoteProtocolError):
            choose_cipher_point_to_point(DEFAULT_CIPHERS, old, options, None, None)
