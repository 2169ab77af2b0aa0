"""Slicing and zeroising of data keys (known answers: tests/vectors)."""

from __future__ import annotations

import pytest

from bridged.errors import LocalProtocolError
from bridged.protocol.keys.cipher import Cipher
from bridged.protocol.keys.key_derivation import derive_by_prf, prf, slice_keys
from bridged.protocol.keys.key_exchange import ClientKeyMessage, ServerKeyMessage
from bridged.protocol.role import Role
from bridged.units import KeyId

MATERIAL = bytes(range(256))


@pytest.mark.parametrize("cipher", Cipher)
def test_the_client_sends_with_the_first_half(cipher: Cipher) -> None:
    client = slice_keys(MATERIAL, Role.CLIENT, cipher, KeyId(3), digest="SHA384")
    assert client.send_key == bytes(range(cipher.key_length))
    assert client.receive_key == bytes(range(128, 128 + cipher.key_length))
    if cipher.is_cbc:
        assert (client.send_hmac, client.receive_hmac) == (bytes(range(64, 112)), bytes(range(192, 240)))
        assert not client.send_iv and client.digest == "SHA384"
    else:
        assert (client.send_iv, client.receive_iv) == (bytes(range(64, 72)), bytes(range(192, 200)))
    server = slice_keys(MATERIAL, Role.SERVER, cipher, KeyId(3), digest="SHA384")
    assert (server.send_hmac, server.receive_hmac) == (client.receive_hmac, client.send_hmac)
    assert (server.send_key, server.receive_key) == (client.receive_key, client.send_key)
    assert (server.send_iv, server.receive_iv) == (client.receive_iv, client.send_iv)


def test_epochs_begin_with_secrets_of_32_bytes_whatever_the_cipher() -> None:
    key = slice_keys(MATERIAL, Role.CLIENT, Cipher.AES_128_GCM, KeyId(3), is_epoch=True)
    assert (key.send_key, key.receive_key) == (bytes(range(32)), bytes(range(128, 160)))
    assert not key.send_iv and not key.receive_iv


def test_zeroise_overwrites_the_keys_of_an_hmac() -> None:
    key = slice_keys(MATERIAL, Role.CLIENT, Cipher.AES_256_CBC, KeyId(0))
    key.zeroise()
    assert not any(map(any, (key.send_key, key.receive_key, key.send_hmac, key.receive_hmac)))


def test_zeroise_overwrites_every_secret_in_place() -> None:
    key = slice_keys(MATERIAL, Role.CLIENT, Cipher.AES_256_GCM, KeyId(0))
    alias = key.receive_key
    key.zeroise()
    assert not any(map(any, (key.send_key, key.send_iv, key.receive_key, key.receive_iv)))
    assert alias is key.receive_key and len(alias) == 32


def test_keys_do_not_show() -> None:
    key = slice_keys(MATERIAL, Role.CLIENT, Cipher.AES_128_GCM, KeyId(1))
    assert repr(key) == "DataKey(key_id=1, cipher=<Cipher.AES_128_GCM: 'AES-128-GCM'>)"


@pytest.mark.parametrize("length", [0, 255, 257])
def test_material_of_another_length_is_our_bug(length: int) -> None:
    with pytest.raises(LocalProtocolError):
        slice_keys(bytes(length), Role.CLIENT, Cipher.AES_128_GCM, KeyId(0))


def test_prf_output_of_any_length_is_a_prefix_of_a_longer_one() -> None:
    long = prf(b"odd", b"label", b"seed", 100)
    assert len(long) == 100
    assert all(prf(b"odd", b"label", b"seed", length) == long[:length] for length in (0, 1, 16, 20, 99))


def test_session_ids_are_eight_octets() -> None:
    client, server = ClientKeyMessage(bytes(48), bytes(32), bytes(32)), ServerKeyMessage(bytes(32), bytes(32))
    with pytest.raises(LocalProtocolError):
        derive_by_prf(client, server, b"short", bytes(8))
