"""The stateless listener: what it answers, how much, how often, and what opens a session."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridged.addresses import Endpoint
from bridged.errors import RemoteProtocolError
from bridged.protocol.keys.static_key import StaticKey
from bridged.protocol.packets.packet import ControlBody, ControlHeader, Opcode, parse_body, serialize_body
from bridged.protocol.packets.wrap import NoWrap, TlsAuthKeys, TlsCryptKeys, WrapKeys
from bridged.protocol.role import Role
from bridged.protocol.strangers.cookie import CookieJar
from bridged.protocol.strangers.listener import (
    Listener,
    NewSession,
    ResetAnswer,
)

KEY = StaticKey(bytes(range(256)))
SOURCE = Endpoint("192.0.2.7", 4001)
ELSEWHERE = Endpoint("192.0.2.8", 4001)
CLIENT_ID = b"client!!"
# Bytes of a hard reset and of its answer (control.md#1-4 and #4-1).
SIZES = {"none": (14, 26), "tls-auth": (42, 54), "tls-crypt": (54, 66)}


def keys(mode: str, role: Role) -> WrapKeys:
    if mode == "tls-auth":
        return TlsAuthKeys(KEY, 0 if role is Role.SERVER else 1, "SHA1")
    return TlsCryptKeys(KEY, role) if mode == "tls-crypt" else NoWrap()


def listener(mode: str = "none") -> Listener:
    return Listener(keys(mode, Role.SERVER), CookieJar(bytes(range(32))))


def packet(
    opcode: Opcode,
    *,
    mode: str = "none",
    key_id: int = 0,
    acks: tuple[int, ...] = (),
    cookie: bytes | None = None,
    message_id: int | None = None,
    payload: bytes = b"",
    session_id: bytes = CLIENT_ID,
    number: int = 1,
) -> bytes:
    body = serialize_body(ControlBody(acks, cookie if acks else None, message_id, payload))
    return keys(mode, Role.CLIENT).seal(ControlHeader(opcode, key_id, session_id), number, 1, body)


def reset(mode: str = "none", **changes: object) -> bytes:
    return packet(Opcode.HARD_RESET_CLIENT_V2, mode=mode, **({"message_id": 0} | changes))  # type: ignore[arg-type]


def cookie_from(server: Listener, mode: str = "none", now: float = 0.0, source: Endpoint = SOURCE) -> bytes:
    answer = server.receive(reset(mode), source, now, 1000.0)
    assert isinstance(answer, ResetAnswer)
    return keys(mode, Role.CLIENT).open(answer.datagram).header.session_id


def refusal(server: Listener, datagram: bytes, source: Endpoint = SOURCE, now: float = 0.0) -> str:
    with pytest.raises(RemoteProtocolError) as caught:
        server.receive(datagram, source, now, 1000.0)
    return caught.value.code


@pytest.mark.parametrize("mode", SIZES)
def test_an_answer_has_its_documented_size_and_is_made_once_for_each_reset(mode: str) -> None:
    request = reset(mode)
    answer = listener(mode).receive(request, SOURCE, 0.0, 1000.0)
    assert isinstance(answer, ResetAnswer)
    assert (len(request), len(answer.datagram)) == SIZES[mode]
    opened = keys(mode, Role.CLIENT).open(answer.datagram)
    body = parse_body(opened.header.opcode, opened.body)
    assert opened.header.opcode is Opcode.HARD_RESET_SERVER_V2
    assert (body.acks, body.remote_session_id, body.message_id, body.payload) == ((0,), CLIENT_ID, 0, b"")


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(sorted(SIZES)), st.binary(max_size=200))
def test_whatever_comes_an_answer_is_never_larger_than_documented(mode: str, datagram: bytes) -> None:
    server = listener(mode)
    try:
        made = server.receive(datagram, SOURCE, 0.0, 1000.0)
    except RemoteProtocolError:
        return
    assert mode == "none" and isinstance(made, ResetAnswer)
    assert len(datagram) >= SIZES[mode][0] and len(made.datagram) == SIZES[mode][1]


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(sorted(SIZES)), st.integers(0, 400), st.integers(1, 255), st.integers(0, 300))
def test_a_changed_or_cut_reset_gets_no_answer_where_a_wrap_protects(
    mode: str, position: int, bits: int, cut: int
) -> None:
    good = reset(mode)
    octets = bytearray(good[: max(1, len(good) - cut)] if cut < len(good) else good)
    if len(octets) == len(good):
        octets[position % len(octets)] ^= bits
    try:
        made = listener(mode).receive(bytes(octets), SOURCE, 0.0, 1000.0)
    except RemoteProtocolError:
        return
    assert mode == "none" and isinstance(made, ResetAnswer)


@pytest.mark.parametrize("mode", SIZES)
def test_one_octet_yields_nothing(mode: str) -> None:
    for octet in range(256):
        assert refusal(listener(mode), bytes((octet,))) in ("short_packet", "bad_opcode", "wrap_mismatch")
    assert refusal(listener(mode), b"") == "short_packet"


def test_a_giant_packet_yields_nothing() -> None:
    assert refusal(listener(), reset(payload=bytes(5000))) == "bad_length"


def test_resets_that_are_too_many_are_refused_and_others_still_answered() -> None:
    server = listener()
    answered = 0
    for number in range(3000):
        source = Endpoint(f"192.0.2.{number % 250}", 1000 + number)
        try:
            server.receive(reset(), source, 0.0, 1000.0)
            answered += 1
        except RemoteProtocolError as error:
            assert error.code == "handshake_rate"
    assert answered < 1500
    assert isinstance(server.receive(reset(), Endpoint("198.51.100.1", 7), 0.0, 1000.0), ResetAnswer)


@pytest.mark.parametrize("mode", SIZES)
def test_a_cookie_that_came_once_holds_for_the_packets_behind_it(mode: str) -> None:
    server = listener(mode)
    cookie = cookie_from(server, mode)
    hello = packet(Opcode.CONTROL_V1, mode=mode, message_id=1)
    made = server.receive(hello, SOURCE, 20.0, 0.0, proven=cookie)
    assert isinstance(made, NewSession)
    assert (made.local_session_id, made.message_id) == (cookie, 1)
    with pytest.raises(RemoteProtocolError):
        server.receive(hello, SOURCE, 20.0, 0.0, proven=b"forged!!")


def test_a_reset_repeated_soon_gets_the_same_session_id() -> None:
    server = listener()
    assert cookie_from(server, now=1.0) == cookie_from(server, now=2.0)


@pytest.mark.parametrize("mode", SIZES)
@pytest.mark.parametrize("opcode", [Opcode.ACK_V1, Opcode.CONTROL_V1])
def test_a_returned_cookie_opens_a_session(mode: str, opcode: Opcode) -> None:
    server = listener(mode)
    cookie = cookie_from(server, mode)
    message_id = None if opcode is Opcode.ACK_V1 else 1
    made = server.receive(
        packet(opcode, mode=mode, acks=(0,), cookie=cookie, message_id=message_id), SOURCE, 20.0, 0.0
    )
    assert isinstance(made, NewSession)
    assert (made.local_session_id, made.remote_session_id) == (cookie, CLIENT_ID)


@settings(max_examples=200, deadline=None)
@given(st.binary(min_size=8, max_size=8).filter(any))
def test_no_other_cookie_opens_one(cookie: bytes) -> None:
    server = listener()
    if cookie == cookie_from(server):
        return
    assert refusal(server, packet(Opcode.ACK_V1, acks=(0,), cookie=cookie)) == "cookie_mismatch"


def test_a_cookie_holds_only_where_and_for_whom_and_while_it_was_made() -> None:
    server = listener()
    cookie = cookie_from(server)
    good = packet(Opcode.ACK_V1, acks=(0,), cookie=cookie)
    assert refusal(server, good, ELSEWHERE) == "cookie_mismatch"
    assert refusal(server, packet(Opcode.ACK_V1, acks=(0,), cookie=cookie, session_id=b"another!")) == (
        "cookie_mismatch"
    )
    assert refusal(server, good, now=120.0) == "cookie_mismatch"
    assert isinstance(server.receive(good, SOURCE, 59.0, 0.0), NewSession)


@pytest.mark.parametrize(
    ("datagram", "code"),
    [
        (packet(Opcode.CONTROL_V1, message_id=1), "cookie_mismatch"),
        (packet(Opcode.SOFT_RESET_V1, message_id=0), "bad_opcode"),
        (packet(Opcode.HARD_RESET_SERVER_V2, message_id=0), "bad_opcode"),
        (reset(message_id=1), "bad_length"),
        (reset(key_id=1), "unknown_key_id"),
        (reset(session_id=b"12345678")[:9], "short_packet"),
        (b"\x38" + bytes(8) + b"\0\0\0\0\0", "bad_length"),
        (b"\x08" + CLIENT_ID + b"\0\0\0\0\0", "bad_opcode"),
        (b"\x48" + CLIENT_ID + b"\0\0\0\0\0", "bad_opcode"),
    ],
)
def test_what_opens_no_session_says_why(datagram: bytes, code: str) -> None:
    assert refusal(listener(), datagram) == code


@pytest.mark.parametrize("acks", [(2,), (0, 1, 2), (0, 0xFFFFFFFF)])
def test_a_packet_from_the_middle_of_a_session_opens_none(acks: tuple[int, ...]) -> None:
    server = listener()
    cookie = cookie_from(server)
    assert refusal(server, packet(Opcode.ACK_V1, acks=acks, cookie=cookie)) == "cookie_mismatch"


@settings(max_examples=50, deadline=None)
@given(st.lists(st.binary(max_size=60), max_size=60))
def test_the_listener_keeps_nothing(datagrams: list[bytes]) -> None:
    server = listener()
    before = set(vars(server))
    for datagram in datagrams:
        try:
            server.receive(datagram, SOURCE, 0.0, 0.0)
        except RemoteProtocolError:
            pass
    assert set(vars(server)) == before
