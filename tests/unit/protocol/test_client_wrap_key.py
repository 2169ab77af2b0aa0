"""Keys of tls-crypt-v2: files, sealing, and what a listener makes of packets that carry them."""

from __future__ import annotations

import os

import pytest

from bridged.addresses import Endpoint
from bridged.errors import ConfigurationError, RemoteProtocolError
from bridged.protocol.keys.client_wrap_key import ServerWrapKey, parse_client_key, parse_server_key
from bridged.protocol.packets.early_negotiation import RESEND_KEY_REQUEST, wants_key_again
from bridged.protocol.packets.wrap import TlsCryptV2Keys
from bridged.protocol.role import Role
from bridged.protocol.strangers.key_memory import KEY_SECONDS, KEYS_MAX, KeyMemory

SERVER = ServerWrapKey(bytes(range(128)))


def test_files_of_both_keys_are_read_back() -> None:
    client = SERVER.make_client_key(os.urandom, 1_800_000_000)
    assert parse_client_key(client.serialize(), "x") == client
    again = parse_server_key(SERVER.serialize(), "x").unwrap(client.wrapped)
    assert (again.key, again.made_at, again.identifier) == (client.key, 1_800_000_000, client.identifier)


@pytest.mark.parametrize("length", [0, 1, 733])
def test_free_metadata_arrive_whole(length: int) -> None:
    opened = SERVER.unwrap(SERVER.make_client_key(os.urandom, 0, bytes(length)).wrapped)
    assert (opened.metadata_type, opened.metadata, opened.made_at) == (0, bytes(length), None)


def test_metadata_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigurationError):
        SERVER.make_client_key(os.urandom, 0, bytes(734))


def test_a_changed_key_and_one_of_another_server_are_refused() -> None:
    wrapped = SERVER.make_client_key(os.urandom, 0).wrapped
    with pytest.raises(RemoteProtocolError, match="another server key"):
        ServerWrapKey(bytes(128)).unwrap(wrapped)
    for position in range(0, len(wrapped), 7):
        changed = bytearray(wrapped)
        changed[position] ^= 1
        with pytest.raises(RemoteProtocolError):
            SERVER.unwrap(bytes(changed))
    for cut in (0, 1, 34, 289, len(wrapped) - 1):
        with pytest.raises(RemoteProtocolError):
            SERVER.unwrap(wrapped[:cut])


def test_the_wrong_one_of_both_files_is_named() -> None:
    client = SERVER.make_client_key(os.urandom, 0)
    with pytest.raises(ConfigurationError, match="server key"):
        parse_client_key(SERVER.serialize(), "x")
    with pytest.raises(ConfigurationError, match="client key"):
        parse_server_key(client.serialize(), "x")
    with pytest.raises(ConfigurationError, match="complete"):
        cut = client.serialize().splitlines()
        parse_client_key("\n".join((*cut[:3], cut[-1])), "x")


def test_what_a_hard_reset_asks_for() -> None:
    assert wants_key_again(RESEND_KEY_REQUEST) and not wants_key_again(b"")
    assert wants_key_again(b"\0\x09\0\x03abc" + RESEND_KEY_REQUEST), "unknown fields are skipped"
    for broken in (b"\0", b"\0\1\0\2\0", b"\0\1\0\1\1", b"\0\x09\0\x09a"):
        with pytest.raises(RemoteProtocolError):
            wants_key_again(broken)


def test_remembered_keys_are_few_and_short_lived() -> None:
    memory = KeyMemory()
    keys = TlsCryptV2Keys(SERVER.make_client_key(os.urandom, 0).key, Role.SERVER)
    for number in range(KEYS_MAX + 100):
        memory.note(Endpoint("192.0.2.1", 1 + number), b"SESSION1", keys, 0.0)
    assert len(memory) <= KEYS_MAX
    newest = Endpoint("192.0.2.1", KEYS_MAX + 100)
    assert memory.find(newest, b"SESSION1", KEY_SECONDS - 1) is keys
    assert memory.find(newest, b"SESSION2", 1.0) is None
    assert memory.find(newest, b"SESSION1", KEY_SECONDS) is None
