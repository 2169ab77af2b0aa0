"""Every codec of the wire protocol: round trips, and arbitrary bytes raise RemoteProtocolError at most."""

from __future__ import annotations

import contextlib
import string

from hypothesis import given
from hypothesis import strategies as st

from bridged.addresses import Endpoint
from bridged.errors import ConfigurationError, RemoteProtocolError
from bridged.protocol.keys.cipher import DEFAULT_CIPHERS, Cipher
from bridged.protocol.keys.key_exchange import (
    ClientKeyMessage,
    ServerKeyMessage,
    parse_client_key_message,
    parse_server_key_message,
    serialize_client_key_message,
    serialize_server_key_message,
)
from bridged.protocol.keys.static_key import StaticKey, parse_static_key
from bridged.protocol.packets.messages import parse_message, serialize_message, split_messages
from bridged.protocol.packets.negotiation import PeerInfo, choose_cipher_for_client
from bridged.protocol.packets.occ import OccMessage, OccType, parse_occ, serialize_occ
from bridged.protocol.packets.options_string import LinkOptions, build_options_string, compare_options
from bridged.protocol.packets.packet import (
    ControlBody,
    ControlHeader,
    Opcode,
    first_octet,
    parse_body,
    parse_first_octet,
    parse_header,
    serialize_body,
    serialize_header,
)
from bridged.protocol.packets.push import PushReplyAssembler, parse_pushed_options, serialize_push_reply
from bridged.protocol.packets.wrap import NoWrap, TlsAuthKeys, TlsCryptKeys, WrapKeys, dynamic_tls_crypt
from bridged.protocol.role import Role
from bridged.protocol.strangers.cookie import COOKIE_SECRET_LENGTH, CookieJar
from bridged.protocol.text import printable
from bridged.units import KeyId

ids32 = st.integers(0, 0xFFFFFFFF)
key_ids = st.integers(0, 7).map(KeyId)
session_ids = st.binary(min_size=8, max_size=8).filter(any)
control_opcodes = st.sampled_from([opcode for opcode in Opcode if opcode.is_control])
headers = st.builds(ControlHeader, control_opcodes, key_ids, session_ids)
text = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=200)
random32 = st.binary(min_size=32, max_size=32)
static_keys = st.binary(min_size=256, max_size=256).map(StaticKey)
PRINTABLE = string.ascii_letters + string.digits + " -_:./+=[]"


@st.composite
def bodies(draw: st.DrawFn) -> ControlBody:
    acks = tuple(draw(st.lists(ids32, max_size=8)))
    remote = draw(st.binary(min_size=8, max_size=8)) if acks else None
    if draw(st.booleans()):
        return ControlBody(acks, remote)
    return ControlBody(acks, remote, draw(ids32), draw(st.binary(max_size=1400)))


@st.composite
def wraps(draw: st.DrawFn) -> tuple[WrapKeys, WrapKeys]:
    """Keys of the client and of the server."""
    key = draw(static_keys)
    match draw(st.integers(0, 3)):
        case 0:
            return NoWrap(), NoWrap()
        case 1:
            direction = draw(st.sampled_from([None, 0, 1]))
            digest = draw(st.sampled_from(["SHA1", "SHA256", "SHA384", "SHA512"]))
            other = None if direction is None else 1 - direction
            return TlsAuthKeys(key, direction, digest), TlsAuthKeys(key, other, digest)
        case 2:
            return TlsCryptKeys(key, Role.CLIENT), TlsCryptKeys(key, Role.SERVER)
    exported = draw(st.binary(min_size=256, max_size=256))
    base = draw(st.sampled_from([None, key]))
    return dynamic_tls_crypt(base, exported, Role.CLIENT), dynamic_tls_crypt(base, exported, Role.SERVER)


@given(st.sampled_from(Opcode), key_ids)
def test_first_octets_round_trip(opcode: Opcode, key_id: KeyId) -> None:
    assert parse_first_octet(first_octet(opcode, key_id)) == (opcode, key_id)


@given(headers, st.binary(max_size=50))
def test_headers_round_trip(header: ControlHeader, rest: bytes) -> None:
    assert parse_header(serialize_header(header) + rest) == header


@given(bodies())
def test_bodies_round_trip(body: ControlBody) -> None:
    opcode = Opcode.ACK_V1 if body.message_id is None else Opcode.CONTROL_V1
    assert parse_body(opcode, serialize_body(body)) == body


@given(st.sampled_from(Opcode), st.binary(max_size=80))
def test_arbitrary_bodies_parse_exactly_or_are_refused(opcode: Opcode, data: bytes) -> None:
    with contextlib.suppress(RemoteProtocolError):
        assert serialize_body(parse_body(opcode, data)) == data


@given(wraps(), headers, ids32, ids32, st.binary(max_size=1400))
def test_what_one_end_seals_the_other_opens(
    keys: tuple[WrapKeys, WrapKeys], header: ControlHeader, packet_id: int, time: int, body: bytes
) -> None:
    for ours, theirs in (keys, keys[::-1]):
        packet = ours.seal(header, packet_id, time, body)
        opened = theirs.open(packet)
        assert (opened.header, opened.body) == (header, body)
        assert (opened.packet_id, opened.packet_time) == (
            (packet_id, time) if ours.has_packet_ids else (0, 0)
        )
        assert len(packet) == 9 + ours.overhead + len(body)


@given(wraps(), headers, st.binary(max_size=60), st.data())
def test_a_changed_packet_never_opens(
    keys: tuple[WrapKeys, WrapKeys], header: ControlHeader, body: bytes, data: st.DataObject
) -> None:
    if not keys[0].has_packet_ids:
        return
    packet = bytearray(keys[0].seal(header, 1, 1, body))
    packet[data.draw(st.integers(0, len(packet) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        keys[1].open(bytes(packet))
    except RemoteProtocolError:
        return
    raise AssertionError("forged")


@given(wraps(), st.binary(max_size=200))
def test_arbitrary_datagrams_are_refused_by_every_wrap(keys: tuple[WrapKeys, WrapKeys], data: bytes) -> None:
    with contextlib.suppress(RemoteProtocolError):
        keys[0].open(data)
        assert not keys[0].has_packet_ids


@given(static_keys)
def test_static_keys_round_trip(key: StaticKey) -> None:
    assert parse_static_key(key.serialize(), "ta.key") == key


@given(text)
def test_arbitrary_text_is_no_static_key(content: str) -> None:
    with contextlib.suppress(ConfigurationError):
        parse_static_key(content, "ta.key")
        raise AssertionError("200 characters hold no key")


@given(st.binary(min_size=48, max_size=48), random32, random32, text, text, text, text)
def test_client_key_messages_round_trip(
    pre_master: bytes, random1: bytes, random2: bytes, options: str, user: str, password: str, info: str
) -> None:
    message = ClientKeyMessage(pre_master, random1, random2, options, user, password, info)
    assert parse_client_key_message(serialize_client_key_message(message)) == message


@given(random32, random32, text, text, text, text)
def test_server_key_messages_round_trip(
    random1: bytes, random2: bytes, options: str, user: str, password: str, info: str
) -> None:
    message = ServerKeyMessage(random1, random2, options, user, password, info)
    assert parse_server_key_message(serialize_server_key_message(message)) == message


@given(st.binary(max_size=300).map(lambda rest: b"\0\0\0\0\2" + rest) | st.binary(max_size=300))
def test_arbitrary_key_messages_are_refused_or_read(data: bytes) -> None:
    for parse in (parse_client_key_message, parse_server_key_message):
        try:
            parse(data)
        except RemoteProtocolError as error:
            assert error.code == "bad_length"


@given(
    st.lists(
        st.tuples(st.from_regex(r"\A[A-Za-z0-9_]{1,20}\Z"), st.text(PRINTABLE, max_size=60)), max_size=40
    )
)
def test_peer_info_round_trips(entries: list[tuple[str, str]]) -> None:
    info = PeerInfo(tuple(entries))
    assert PeerInfo.parse(info.serialize()) == info


@given(st.text(max_size=600), st.text(max_size=200))
def test_arbitrary_peer_info_and_options_give_a_cipher_or_a_mismatch(info: str, options: str) -> None:
    parsed = PeerInfo.parse(info)
    assert all(value.isprintable() for _, value in parsed.entries)
    try:
        assert choose_cipher_for_client(DEFAULT_CIPHERS, parsed, options) in DEFAULT_CIPHERS
    except RemoteProtocolError as error:
        assert error.code == "cipher_mismatch"


@given(st.text(max_size=300), st.text(max_size=300))
def test_options_strings_compare_without_fail(expected: str, received: str) -> None:
    assert all(warning.isprintable() for warning in compare_options(expected, received))
    assert compare_options(received, received) == []


@given(
    st.builds(
        LinkOptions,
        st.sampled_from(Role),
        st.integers(68, 9000),
        st.booleans(),
        st.sampled_from(["SHA1", "SHA256", "SHA512"]),
        st.booleans(),
        st.sampled_from([None, 0, 1]),
        st.none() | st.sampled_from(Cipher),
        st.booleans(),
        st.booleans(),
    )
)
def test_ends_configured_alike_give_each_other_no_warning(options: LinkOptions) -> None:
    assert options.mirrored().mirrored() == options
    expected = build_options_string(options.mirrored())
    assert compare_options(expected, build_options_string(options.mirrored())) == []
    assert len(expected) <= 511


pushable = st.text(PRINTABLE, min_size=1, max_size=900).filter(
    lambda option: option[:17] != "push-continuation"
)


@given(st.lists(pushable, max_size=60))
def test_push_replies_round_trip_in_messages_of_bounded_size(options: list[str]) -> None:
    messages = serialize_push_reply(options)
    assert all(len(message) + 1 <= 1024 for message in messages)
    assembler = PushReplyAssembler()
    results = [assembler.add(message) for message in messages]
    assert results.pop() == tuple(options) and not any(results)


@given(st.lists(st.text(max_size=100), max_size=20))
def test_arbitrary_pushed_options_never_fail(options: list[str]) -> None:
    repr(parse_pushed_options(options)).encode()


@given(st.text(max_size=300))
def test_arbitrary_push_replies_are_refused_or_read(content: str) -> None:
    for message in (content, "PUSH_REPLY," + content):
        with contextlib.suppress(RemoteProtocolError):
            PushReplyAssembler().add(message)


@given(st.binary(max_size=400))
def test_arbitrary_messages_never_fail(data: bytes) -> None:
    for piece in split_messages(data):
        repr(parse_message(piece)).encode()


@given(st.sampled_from(["AUTH_FAILED,", "AUTH_FAILED,TEMP", "RESTART,", "INFO,", "AUTH_PENDING,", ""]), text)
def test_a_message_read_once_is_read_the_same_again(word: str, rest: str) -> None:
    message = parse_message(printable(word + rest, 250))
    assert parse_message(serialize_message(message)[:-1].decode()) == message


@given(st.sampled_from(OccType), st.binary(max_size=200))
def test_occ_messages_round_trip(kind: OccType, body: bytes) -> None:
    assert parse_occ(serialize_occ(OccMessage(kind, body))) == OccMessage(kind, body)


@given(st.binary(max_size=100))
def test_arbitrary_occ_messages_are_refused_or_read(data: bytes) -> None:
    with contextlib.suppress(RemoteProtocolError):
        assert serialize_occ(parse_occ(data)) == data


@given(
    st.binary(min_size=COOKIE_SECRET_LENGTH, max_size=COOKIE_SECRET_LENGTH),
    st.ip_addresses(),
    st.integers(0, 65535),
    session_ids,
    st.floats(0, 1e9),
)
def test_cookies_check_where_they_were_made_and_nowhere_else(
    secret: bytes, address: object, port: int, session_id: bytes, now: float
) -> None:
    jar, endpoint = CookieJar(secret), Endpoint(str(address), port)
    cookie = jar.make(endpoint, session_id, now)
    assert any(cookie) and jar.check(cookie, endpoint, session_id, now + 59)
    assert not jar.check(cookie, Endpoint(str(address), port ^ 1), session_id, now)
    assert not jar.check(bytes(a ^ 0x5A for a in cookie), endpoint, session_id, now)


@given(st.text(max_size=100), st.integers(0, 50))
def test_shown_text_is_printable_and_bounded(content: str, limit: int) -> None:
    shown = printable(content, limit)
    assert shown.isprintable() and len(shown) <= limit
    assert printable(shown, limit) == shown
