"""Fuzz target: peer info of the key message, and the cipher chosen by it."""

from __future__ import annotations

from bridged.errors import RemoteProtocolError
from bridged.protocol.keys.cipher import DEFAULT_CIPHERS
from bridged.protocol.packets.negotiation import (
    MAX_PEER_INFO,
    PeerInfo,
    accept_pushed_cipher,
    choose_cipher_for_client,
)
from bridged.protocol.text import decode_text


def one_input(data: bytes) -> None:
    text, _, options = decode_text(data).partition("\0")
    info = PeerInfo.parse(text)
    written = info.serialize()
    assert len(info.entries) <= 64
    assert all(value.isprintable() and len(value) <= 256 for _, value in info.entries)
    if len(written) <= MAX_PEER_INFO:
        assert PeerInfo.parse(written) == info
    repr((info.version, info.platform, info.protocol, info.ciphers, info.ncp, info.mtu)).encode()
    try:
        assert choose_cipher_for_client(DEFAULT_CIPHERS, info, options) in DEFAULT_CIPHERS
    except RemoteProtocolError as error:
        assert error.code == "cipher_mismatch"
    for pushed in (None, text):
        try:
            assert accept_pushed_cipher(DEFAULT_CIPHERS, pushed, options) in DEFAULT_CIPHERS
        except RemoteProtocolError as error:
            assert error.code == "cipher_mismatch"
