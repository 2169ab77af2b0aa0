"""First bytes, headers and bodies of control packets."""

from __future__ import annotations

import pytest

from bridged.errors import LocalProtocolError, RemoteProtocolError
from bridged.protocol.packets.packet import (
    ControlBody,
    ControlHeader,
    Opcode,
    first_octet,
    parse_body,
    parse_first_octet,
    parse_header,
    payload_room,
    serialize_body,
    serialize_header,
)
from bridged.units import KeyId

SESSION = b"ABCDEFGH"
REMOTE = b"abcdefgh"


@pytest.mark.parametrize(
    ("opcode", "octet"),
    [
        (Opcode.HARD_RESET_CLIENT_V1, 0x08),
        (Opcode.HARD_RESET_SERVER_V1, 0x10),
        (Opcode.SOFT_RESET_V1, 0x18),
        (Opcode.CONTROL_V1, 0x20),
        (Opcode.ACK_V1, 0x28),
        (Opcode.DATA_V1, 0x30),
        (Opcode.HARD_RESET_CLIENT_V2, 0x38),
        (Opcode.HARD_RESET_SERVER_V2, 0x40),
        (Opcode.DATA_V2, 0x48),
        (Opcode.HARD_RESET_CLIENT_V3, 0x50),
        (Opcode.CONTROL_WKC_V1, 0x58),
    ],
)
def test_first_octet_is_that_of_the_table(opcode: Opcode, octet: int) -> None:
    assert first_octet(opcode, 0) == octet
    assert parse_first_octet(octet | 5) == (opcode, 5)


@pytest.mark.parametrize("number", [0, *range(12, 32)])
def test_other_opcodes_are_refused(number: int) -> None:
    with pytest.raises(RemoteProtocolError) as error:
        parse_first_octet(number << 3)
    assert error.value.code == "bad_opcode"


def test_key_id_beyond_three_bits_is_our_bug() -> None:
    with pytest.raises(LocalProtocolError):
        first_octet(Opcode.CONTROL_V1, 8)


@pytest.mark.parametrize(
    ("datagram", "code"),
    [
        (b"", "short_packet"),
        (b"\x38" + SESSION[:7], "short_packet"),
        (b"\x38" + bytes(8), "bad_length"),
        (b"\x08" + SESSION, "bad_opcode"),
        (b"\x10" + SESSION, "bad_opcode"),
        (b"\x30" + SESSION, "bad_opcode"),
        (b"\x48" + SESSION, "bad_opcode"),
        (b"\xff" + SESSION, "bad_opcode"),
    ],
)
def test_headers_that_are_none_are_refused(datagram: bytes, code: str) -> None:
    with pytest.raises(RemoteProtocolError) as error:
        parse_header(datagram)
    assert error.value.code == code


def test_the_zero_session_id_is_never_sent() -> None:
    with pytest.raises(LocalProtocolError):
        serialize_header(ControlHeader(Opcode.CONTROL_V1, KeyId(0), bytes(8)))


def test_smallest_packets_have_the_sizes_of_the_specification() -> None:
    reset = serialize_body(ControlBody(message_id=0))
    ack = serialize_body(ControlBody(acks=(0,), remote_session_id=REMOTE))
    answer = serialize_body(ControlBody(acks=(0,), remote_session_id=REMOTE, message_id=0))
    assert (9 + len(reset), 9 + len(ack), 9 + len(answer)) == (14, 22, 26)


def test_a_body_without_acks_has_no_remote_session_id() -> None:
    assert serialize_body(ControlBody(message_id=1, payload=b"x")) == b"\0\0\0\0\1x"
    assert parse_body(Opcode.CONTROL_V1, b"\0\0\0\0\1x") == ControlBody((), None, 1, b"x")


def test_an_ack_has_no_message_id_and_no_payload() -> None:
    body = b"\1\0\0\0\7" + REMOTE
    assert parse_body(Opcode.ACK_V1, body) == ControlBody((7,), REMOTE)
    with pytest.raises(RemoteProtocolError) as error:
        parse_body(Opcode.ACK_V1, body + b"\0")
    assert error.value.code == "bad_length"


def test_eight_acks_are_taken_and_nine_refused() -> None:
    eight = b"\x08" + bytes(32) + REMOTE
    assert len(parse_body(Opcode.ACK_V1, eight).acks) == 8
    with pytest.raises(RemoteProtocolError) as error:
        parse_body(Opcode.ACK_V1, b"\x09" + bytes(36) + REMOTE)
    assert error.value.code == "bad_length"


@pytest.mark.parametrize("length", range(17))
def test_a_body_cut_off_anywhere_is_a_short_packet(length: int) -> None:
    body = serialize_body(ControlBody((1,), REMOTE, 2))
    assert len(body) == 17
    with pytest.raises(RemoteProtocolError) as error:
        parse_body(Opcode.CONTROL_V1, body[:length])
    assert error.value.code == "short_packet"


def test_a_data_packet_has_no_control_body() -> None:
    with pytest.raises(RemoteProtocolError) as error:
        parse_body(Opcode.DATA_V2, b"\0\0\0\0\0")
    assert error.value.code == "bad_opcode"


@pytest.mark.parametrize(
    "body",
    [
        ControlBody(acks=tuple(range(9)), remote_session_id=REMOTE, message_id=0),
        ControlBody(acks=(1,), message_id=0),
        ControlBody(remote_session_id=REMOTE, message_id=0),
        ControlBody(acks=(1,), remote_session_id=b"short", message_id=0),
        ControlBody(acks=(1,), remote_session_id=REMOTE, payload=b"x"),
        ControlBody(acks=(1 << 32,), remote_session_id=REMOTE),
        ControlBody(message_id=-1),
    ],
)
def test_bodies_that_break_the_layout_are_our_bug(body: ControlBody) -> None:
    with pytest.raises(LocalProtocolError):
        serialize_body(body)


def test_a_full_packet_fills_tls_mtu_exactly() -> None:
    room = payload_room(40, 4)
    body = serialize_body(ControlBody((1, 2, 3, 4), REMOTE, 5, bytes(room)))
    assert 28 + 9 + 40 + len(body) == 1250
    assert payload_room(40, 4, ip_udp_header=48) == room - 20
    assert payload_room(40, 0) == room + 24
    assert payload_room(500, 4, tls_mtu=154) == 1
