"""PUSH_REPLY: assembling, splitting, reading."""

from __future__ import annotations

import itertools

import pytest

from bridged.errors import ConfigurationError, RemoteProtocolError
from bridged.protocol.packets.negotiation import ProtocolFlags
from bridged.protocol.packets.push import (
    FLAG_NEEDS,
    MAX_PUSH_TOTAL,
    MESSAGE_ROOM,
    PushedOptions,
    PushReplyAssembler,
    agreed_protocol_flags,
    parse_pushed_options,
    serialize_push_reply,
)


def assemble(messages: list[str]) -> tuple[str, ...]:
    assembler = PushReplyAssembler()
    *first, last = messages
    assert all(assembler.add(message) is None for message in first)
    options = assembler.add(last)
    assert options is not None
    return options


def test_a_short_reply_is_one_message_without_continuation() -> None:
    assert serialize_push_reply(["ping 5", "peer-id 0"]) == ["PUSH_REPLY,ping 5,peer-id 0"]
    assert serialize_push_reply([]) == ["PUSH_REPLY"]
    assert assemble(["PUSH_REPLY"]) == ()


def test_a_long_reply_is_split_before_940_octets_and_reads_back() -> None:
    options = [f"setenv-safe X{number} {'v' * 40}" for number in range(60)]
    messages = serialize_push_reply(options)
    assert len(messages) > 2
    assert all(message.startswith("PUSH_REPLY,") for message in messages)
    assert [message.rsplit(",", 1)[1] for message in messages] == [
        *["push-continuation 2"] * (len(messages) - 1),
        "push-continuation 1",
    ]
    bodies = [message.rsplit(",", 1)[0] for message in messages]
    assert all(len(body) < MESSAGE_ROOM for body in bodies)
    for body, following in itertools.pairwise(bodies):
        assert len(body) + 1 + len(following.split(",")[1]) >= MESSAGE_ROOM, "split too early"
    assert assemble(messages) == tuple(options)


@pytest.mark.parametrize("option", ["a,b", "a\nb", "x" * 929, "", "push-continuation 1", "ü" * 465])
def test_options_that_cannot_be_sent_are_refused(option: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        serialize_push_reply([option])
    assert error.value.code == "push"


def test_the_longest_option_fits_a_message_of_its_own() -> None:
    options = ["x" * 928, "y" * 928]
    assert assemble(serialize_push_reply(options)) == tuple(options)


def test_endless_continuations_are_cut_off_and_forgotten() -> None:
    assembler = PushReplyAssembler()
    message = "PUSH_REPLY," + "x" * 1000 + ",push-continuation 2"
    with pytest.raises(RemoteProtocolError) as error:
        for _ in range(MAX_PUSH_TOTAL // 1000 + 2):
            assembler.add(message)
    assert error.value.code == "bad_length"
    assert assembler.add("PUSH_REPLY,ping 1") == ("ping 1",)


def test_too_many_options_are_refused() -> None:
    with pytest.raises(RemoteProtocolError):
        PushReplyAssembler().add("PUSH_REPLY" + ",a" * 1025)


def test_other_text_is_no_reply() -> None:
    with pytest.raises(RemoteProtocolError):
        PushReplyAssembler().add("PUSH_REPLYX,ping 1")


def test_every_known_option_is_read_or_passed_over() -> None:
    pushed = parse_pushed_options(
        [
            "ping 5", "ping-restart 20", "ping-exit 30", "peer-id 7", "cipher AES-256-GCM",
            "protocol-flags cc-exit tls-ekm", "key-derivation tls-ekm", "tun-mtu 1400",
            "ifconfig 10.0.0.2 255.255.255.0", "route-gateway dhcp", "auth-token SECRET",
            "auth-token-user dXNlcg==", "explicit-exit-notify 3", "inactive 60 100", "session-timeout 90",
            "comp-lzo no", "dhcp-option DNS 10.0.0.1",
        ]
    )  # fmt: skip
    assert pushed == PushedOptions(
        ping=5, ping_restart=20, peer_id=7, cipher="AES-256-GCM",
        protocol_flags=frozenset({"cc-exit", "tls-ekm"}), key_derivation="tls-ekm", tun_mtu=1400,
        compression="comp-lzo no", auth_token="SECRET", auth_token_user="dXNlcg==", ignored=(),
    )  # fmt: skip
    assert "SECRET" not in repr(pushed)


def test_unknown_and_malformed_options_are_ignored_and_named() -> None:
    hostile = [
        "up /bin/sh",
        "ping x",
        "ping",
        "ping -1",
        "peer-id 16777216",
        "tun-mtu 67",
        "\x1b",
    ]
    pushed = parse_pushed_options(hostile)
    assert pushed.ignored == (*hostile[:-1], "\\x1b")
    assert pushed == PushedOptions(ignored=pushed.ignored)
    assert len(parse_pushed_options(["x"] * 1000).ignored) == 32


def test_both_ways_of_choosing_the_exporter() -> None:
    assert parse_pushed_options(["protocol-flags tls-ekm"]).uses_exporter
    assert parse_pushed_options(["key-derivation tls-ekm"]).uses_exporter
    assert not parse_pushed_options(["protocol-flags cc-exit"]).uses_exporter


def test_protocol_flags_are_pushed_only_to_clients_that_know_them() -> None:
    wanted = tuple(FLAG_NEEDS)
    assert agreed_protocol_flags(wanted, ProtocolFlags(990)) == ("cc-exit", "tls-ekm", "dyn-tls-crypt")
    assert agreed_protocol_flags(wanted, ProtocolFlags(6)) == ()
    assert agreed_protocol_flags(wanted, ProtocolFlags.TLS_KEY_EXPORT | ProtocolFlags.DATA_V2) == ()
