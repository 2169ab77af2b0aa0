"""Control-channel text messages."""

from __future__ import annotations

import pytest

from bridged.errors import LocalProtocolError
from bridged.protocol.packets.messages import (
    AuthFailed,
    AuthFailedKind,
    AuthPending,
    ChallengeResponse,
    Exit,
    Halt,
    Info,
    Message,
    PushReply,
    PushRequest,
    Restart,
    Unknown,
    parse_message,
    serialize_message,
    split_messages,
)

CASES: list[tuple[str, Message]] = [
    ("PUSH_REQUEST", PushRequest()),
    ("PUSH_REPLY", PushReply("PUSH_REPLY")),
    ("PUSH_REPLY,ping 5", PushReply("PUSH_REPLY,ping 5")),
    ("AUTH_FAILED", AuthFailed()),
    ("AUTH_FAILED,wrong, really", AuthFailed("wrong, really")),
    ("AUTH_FAILED,SESSION: expired", AuthFailed("expired", AuthFailedKind.SESSION_EXPIRED)),
    ("AUTH_FAILED,CRV1:R,E:s:dQ==:pin?", AuthFailed("CRV1:R,E:s:dQ==:pin?", AuthFailedKind.CHALLENGE)),
    ("AUTH_FAILED,TEMP:later", AuthFailed("later", AuthFailedKind.TEMPORARY)),
    (
        "AUTH_FAILED,TEMP[backoff 42,advance remote]:no",
        AuthFailed("no", AuthFailedKind.TEMPORARY, 42, "remote"),
    ),
    ("AUTH_FAILED,TEMPORARY trouble", AuthFailed("TEMPORARY trouble")),
    ("AUTH_PENDING", AuthPending()),
    ("AUTH_PENDING,timeout 120", AuthPending(120)),
    ("INFO,hello", Info("hello")),
    ("INFO_PRE,WEB_AUTH::https://x", Info("WEB_AUTH::https://x", pre=True)),
    ("CR_RESPONSE,MTIz", ChallengeResponse("MTIz")),
    ("RESTART", Restart()),
    ("RESTART,[N]", Restart("N")),
    ("RESTART,[P]bye", Restart("P", "bye")),
    ("HALT,bye", Halt("", "bye")),
    ("EXIT", Exit()),
    ("WHATEVER,1", Unknown("WHATEVER,1")),
]


@pytest.mark.parametrize(("text", "message"), CASES)
def test_messages_parse_and_serialize(text: str, message: Message) -> None:
    assert parse_message(text) == message
    assert serialize_message(message) == text.encode() + b"\0"


@pytest.mark.parametrize("flags", ["backoff x", "backoff -1", "advance sideways", "", "nonsense"])
def test_odd_flags_of_a_temporary_refusal_are_skipped(flags: str) -> None:
    assert parse_message(f"AUTH_FAILED,TEMP[{flags}]:t") == AuthFailed("t", AuthFailedKind.TEMPORARY)


def test_pieces_are_split_at_nul_and_line_ends_stripped() -> None:
    assert split_messages(b"PUSH_REQUEST\0EXIT\r\n\0\0") == ["PUSH_REQUEST", "EXIT"]


def test_pieces_without_nul_or_with_control_characters_are_left_out() -> None:
    assert split_messages(b"EX\x07IT\0INFO,ok\0PUSH_REQUEST") == ["INFO,ok"]


def test_what_is_read_is_bounded() -> None:
    assert len(split_messages(b"EXIT\0" * 1000)) == 64
    assert split_messages(b"x" * 20000 + b"\0EXIT\0") == []


def test_a_reason_is_shown_without_terminal_escapes() -> None:
    text = "AUTH_FAILED,\u202eevil\x9b31m"
    message = parse_message(text)
    assert isinstance(message, AuthFailed)
    assert message.reason == "\\u202eevil\\x9b31m"


def test_tokens_and_responses_do_not_show() -> None:
    assert "SECRET" not in repr(parse_message("PUSH_REPLY,auth-token SECRET"))
    assert "SECRET" not in repr(parse_message("CR_RESPONSE,SECRET"))


@pytest.mark.parametrize("text", ["x" * 1024, "a\0b", "a\nb"])
def test_messages_that_cannot_be_sent_are_our_bug(text: str) -> None:
    with pytest.raises(LocalProtocolError):
        serialize_message(text)


def test_the_longest_message_has_1024_octets_with_its_nul() -> None:
    assert len(serialize_message("x" * 1023)) == 1024
