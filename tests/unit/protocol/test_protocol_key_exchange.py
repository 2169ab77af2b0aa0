"""Key method 2 messages."""

from __future__ import annotations

import pytest

from bridged.errors import LocalProtocolError, RemoteProtocolError
from bridged.protocol.keys.key_exchange import (
    MAX_KEY_MESSAGE,
    ClientKeyMessage,
    IncompleteKeyMessage,
    ServerKeyMessage,
    parse_client_key_message,
    parse_server_key_message,
    serialize_client_key_message,
    serialize_server_key_message,
    split_server_key_message,
)

CLIENT = ClientKeyMessage(b"p" * 48, b"1" * 32, b"2" * 32, "V4,x", "alice", "s3cret", "IV_VER=1\n")
SERVER = ServerKeyMessage(b"1" * 32, b"2" * 32, "V4,y")


def test_strings_begin_where_the_specification_says() -> None:
    assert serialize_client_key_message(CLIENT)[117:124] == b"\0\5V4,x\0"
    assert serialize_server_key_message(SERVER)[69:] == b"\0\5V4,y\0" + bytes(6)


def test_a_message_may_end_after_any_string() -> None:
    data = serialize_client_key_message(CLIENT)
    ends = [117, 124, 132, 141, len(data)]
    assert len(data) == 153
    assert parse_client_key_message(data[: ends[0]]).options == ""
    assert parse_client_key_message(data[: ends[1]]) == ClientKeyMessage(
        CLIENT.pre_master, CLIENT.random1, CLIENT.random2, "V4,x"
    )
    assert parse_client_key_message(data[: ends[3]]).password == "s3cret"
    for length in set(range(len(data))) - set(ends):
        with pytest.raises(RemoteProtocolError) as error:
            parse_client_key_message(data[:length])
        assert isinstance(error.value, IncompleteKeyMessage) and error.value.code == "bad_length"


def test_an_empty_string_may_have_length_one() -> None:
    data = serialize_server_key_message(SERVER)[:69]
    assert parse_server_key_message(data + b"\0\1\0" * 4) == ServerKeyMessage(b"1" * 32, b"2" * 32)


def test_what_follows_the_fourth_string_is_kept() -> None:
    data = serialize_server_key_message(SERVER)
    assert split_server_key_message(data + b"PUSH_REPLY\0") == (SERVER, b"PUSH_REPLY\0")


@pytest.mark.parametrize("change", [(0, 1), (3, 1), (4, 1), (4, 0)])
def test_other_key_methods_and_first_octets_are_malformed(change: tuple[int, int]) -> None:
    data = bytearray(serialize_client_key_message(CLIENT))
    data[change[0]] = change[1]
    with pytest.raises(RemoteProtocolError) as error:
        parse_client_key_message(bytes(data))
    assert error.value.code == "bad_length" and not isinstance(error.value, IncompleteKeyMessage)


def test_the_high_bits_of_the_key_method_are_ignored() -> None:
    data = bytearray(serialize_client_key_message(CLIENT))
    data[4] = 0xF2
    assert parse_client_key_message(bytes(data)) == CLIENT


def test_a_string_ends_at_its_first_nul() -> None:
    data = serialize_client_key_message(CLIENT).replace(b"alice\0", b"al\0ce\0")
    assert parse_client_key_message(data).username == "al"


def test_octets_that_are_not_utf_8_become_escapes() -> None:
    data = serialize_client_key_message(CLIENT).replace(b"alice\0", b"al\xffce\0")
    assert parse_client_key_message(data).username == "al\\xffce"


def test_overlong_credentials_are_told_and_do_not_break_the_session() -> None:
    for length, overlong in ((127, False), (128, True)):
        message = ClientKeyMessage(CLIENT.pre_master, CLIENT.random1, CLIENT.random2, "V4", "u" * length, "p")
        parsed = parse_client_key_message(serialize_client_key_message(message))
        assert parsed == message and parsed.has_overlong_credentials is overlong


def test_a_message_of_more_than_a_record_is_refused_both_ways() -> None:
    with pytest.raises(RemoteProtocolError):
        parse_client_key_message(bytes(4) + b"\2" + bytes(MAX_KEY_MESSAGE))
    with pytest.raises(LocalProtocolError):
        serialize_server_key_message(ServerKeyMessage(b"1" * 32, b"2" * 32, "x" * MAX_KEY_MESSAGE))


@pytest.mark.parametrize(
    "message",
    [
        ServerKeyMessage(b"1" * 31, b"2" * 32),
        ServerKeyMessage(b"1" * 32, b"2" * 32, "a\0b"),
        ServerKeyMessage(b"1" * 32, b"2" * 32, "x" * 70000),
    ],
)
def test_messages_that_cannot_be_written_are_our_bug(message: ServerKeyMessage) -> None:
    with pytest.raises(LocalProtocolError):
        serialize_server_key_message(message)


def test_neither_random_values_nor_credentials_show() -> None:
    assert repr(CLIENT) == "ClientKeyMessage(options='V4,x', peer_info='IV_VER=1\\n')"
    assert "1111" not in repr(SERVER)
