"""Strangers at a data plane: hard resets are answered, the rest is sorted, and nobody is crowded out."""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Iterator

import pytest

from bridged.addresses import Endpoint
from bridged.dataplane.contract import ControlReceived, ResetAnswers, SessionUnknown
from bridged.dataplane.portable.control.control_queue import FOLLOWERS
from bridged.protocol.keys.client_wrap_key import METADATA_MOST, ServerWrapKey
from bridged.protocol.keys.static_key import StaticKey
from bridged.protocol.packets.early_negotiation import wants_key_again
from bridged.protocol.packets.packet import ControlBody, ControlHeader, Opcode, parse_body, serialize_body
from bridged.protocol.packets.unknown_session import serialize_notice
from bridged.protocol.packets.wrap import (
    NoWrap,
    TlsAuthKeys,
    TlsCryptKeys,
    TlsCryptV2Keys,
    TlsCryptV2Server,
    WrapKeys,
)
from bridged.protocol.role import Role
from bridged.protocol.strangers.cookie import CookieJar
from bridged.protocol.strangers.listener import ANSWER_PACKET_ID, Listener, NewSession
from bridged.protocol.strangers.reset_limit import (
    BEYOND_BURST,
    CALM,
    KEY_BURST,
    KEY_REPEATS_MAX,
    ONCE_BURST,
    REPEATS_MAX,
)
from bridged.units import KeyId, PeerHandle
from tests.contract.dataplane_rig import Rig, frame, until
from tests.lab.bounds import at_least, at_most

KEY = StaticKey(bytes(range(256)))
SECRET = bytes(range(32))
WINDOW = 60
DIGESTS = ("SHA1", "SHA224", "SHA256", "SHA384", "SHA512")
WRAPS = ("none", "tls-crypt", "tls-crypt-v2", *DIGESTS)
SERVER_KEY = ServerWrapKey(bytes(range(128)))
SAMPLES = 32


def keys(wrap: str, role: Role) -> WrapKeys:
    if wrap == "none":
        return NoWrap()
    if wrap == "tls-crypt":
        return TlsCryptKeys(KEY, role)
    if wrap == "tls-crypt-v2" and role is Role.SERVER:
        return TlsCryptV2Server(SERVER_KEY, TlsCryptKeys(KEY, role))
    if wrap == "tls-crypt-v2":
        return TlsCryptV2Keys(KEY, role, SERVER_KEY.wrap(KEY, bytes(9)))
    return TlsAuthKeys(KEY, 0 if role is Role.SERVER else 1, wrap)


class Stranger:
    """A socket and the client's side of a wrap."""

    def __init__(self, rig: Rig, wrap: str = "none", host: str = "127.0.0.1") -> None:
        self.keys = keys(wrap, Role.CLIENT)
        self.session_id = os.urandom(8)
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((host, 0))
        self.socket.connect(("127.0.0.1", rig.port))
        self._number = self.keys.first_packet_id - 1

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(*self.socket.getsockname())

    def packet(self, opcode: Opcode, body: ControlBody, key_id: int = 0) -> bytes:
        self._number += 1
        header = ControlHeader(opcode, KeyId(key_id), self.session_id)
        return self.keys.seal(header, self._number, int(time.time()), serialize_body(body))

    def reset(self) -> bytes:
        opcode = Opcode.HARD_RESET_CLIENT_V3 if self.keys.wrapped_key else Opcode.HARD_RESET_CLIENT_V2
        return self.packet(opcode, ControlBody(message_id=0))

    def hello(self, cookie: bytes | None) -> bytes:
        return self.packet(
            Opcode.CONTROL_WKC_V1 if self.keys.wrapped_key else Opcode.CONTROL_V1,
            ControlBody((0,) if cookie else (), cookie, message_id=1, payload=b"\x16hello"),
        )

    def send(self, *datagrams: bytes) -> None:
        for datagram in datagrams:
            self.socket.send(datagram)

    def answer(self, seconds: float = 5.0) -> bytes | None:
        self.socket.settimeout(seconds)
        try:
            return self.socket.recv(2048)
        except TimeoutError:
            return None

    def cookie(self) -> bytes:
        self.send(self.reset())
        answer = self.answer()
        assert answer is not None
        return self.keys.open(answer).header.session_id


@pytest.fixture
def strangers(rig: Rig) -> Iterator[list[Stranger]]:
    made: list[Stranger] = []
    yield made
    for stranger in made:
        stranger.socket.close()


def answering(rig: Rig, wrap: str = "none") -> None:
    rig.plane.answer_resets(ResetAnswers(keys(wrap, Role.SERVER), SECRET, WINDOW))


def waiting(rig: Rig) -> int:
    return rig.snapshot().queues["control"][0]


def handed_up(rig: Rig, count: int = 1) -> list[ControlReceived]:
    until(lambda: waiting(rig) >= count, f"{count} datagrams for the control plane")
    return [event for event in rig.plane.poll_events(4096) if isinstance(event, ControlReceived)]


@pytest.mark.parametrize("wrap", WRAPS)
def test_a_hard_reset_is_answered_as_the_listener_would(
    rig: Rig, strangers: list[Stranger], wrap: str
) -> None:
    answering(rig, wrap)
    stranger = Stranger(rig, wrap)
    strangers.append(stranger)
    before = time.time()
    stranger.send(stranger.reset())
    answer = stranger.answer()
    assert answer is not None
    opened = stranger.keys.open(answer)
    body = parse_body(opened.header.opcode, opened.body)
    assert (opened.header.opcode, opened.header.key_id) == (Opcode.HARD_RESET_SERVER_V2, 0)
    assert (body.acks, body.remote_session_id, body.message_id) == ((0,), stranger.session_id, 0)
    if stranger.keys.has_packet_ids:
        assert opened.packet_id == ANSWER_PACKET_ID
        assert before - 2 <= opened.packet_time <= time.time() + 2
    jar = CookieJar(SECRET, WINDOW)
    cookie = opened.header.session_id
    assert jar.check(cookie, stranger.endpoint, stranger.session_id, time.monotonic())
    assert waiting(rig) == 0, "the control plane never hears of it"
    stranger.send(stranger.hello(cookie))
    (event,) = handed_up(rig)
    listener = Listener(keys(wrap, Role.SERVER), jar)
    made = listener.receive(event.datagram, event.source, time.monotonic(), time.time())
    assert isinstance(made, NewSession) and made.local_session_id == cookie


@pytest.mark.measures
@pytest.mark.parametrize("wrap", ["tls-crypt", "SHA256"])
def test_a_reset_with_another_key_gets_no_answer_and_is_shown_now_and_then(
    rig: Rig, strangers: list[Stranger], wrap: str
) -> None:
    answering(rig, wrap)
    stranger = Stranger(rig, wrap)
    strangers.append(stranger)
    forged = bytearray(stranger.reset())
    forged[-1] ^= 1
    stranger.send(*[bytes(forged)] * 200)
    until(lambda: waiting(rig) + rig.drops("receive", "wrap_mismatch") == 200, "all to be judged")
    assert waiting(rig) >= SAMPLES
    at_most(waiting(rig), SAMPLES + 8, "what is shown of 200 resets", "packets")
    assert stranger.answer(0.1) is None
    stranger.send(stranger.reset())
    assert stranger.answer() is not None


def test_a_cookie_that_is_not_ours_brings_nothing_and_one_that_is_holds_for_what_follows(
    rig: Rig, strangers: list[Stranger]
) -> None:
    answering(rig)
    stranger = Stranger(rig)
    strangers.append(stranger)
    stranger.send(*[stranger.hello(os.urandom(8)) for _ in range(100)])
    until(lambda: waiting(rig) + rig.drops("receive", "cookie_mismatch") == 100, "all to be judged")
    assert rig.drops("receive", "cookie_mismatch") >= 60
    shown = len(rig.plane.poll_events(4096))
    stranger.send(*[stranger.hello(None) for _ in range(100)])
    until(lambda: shown + waiting(rig) + rig.drops("receive", "cookie_mismatch") == 200, "all to be judged")
    rig.plane.poll_events(4096)
    stranger.send(stranger.hello(stranger.cookie()), *[stranger.hello(None) for _ in range(20)])
    assert len(handed_up(rig, 21)) == 21


def test_a_reset_that_brings_its_key_is_asked_for_it_again(rig: Rig, strangers: list[Stranger]) -> None:
    answering(rig, "tls-crypt-v2")
    stranger = Stranger(rig, "tls-crypt-v2")
    strangers.append(stranger)
    stranger.send(stranger.reset())
    answer = stranger.answer()
    assert answer is not None
    body = parse_body(Opcode.HARD_RESET_SERVER_V2, stranger.keys.open(answer).body)
    assert wants_key_again(body.payload)
    assert waiting(rig) == 0


def test_a_key_of_another_server_draws_no_answer(rig: Rig, strangers: list[Stranger]) -> None:
    answering(rig, "tls-crypt-v2")
    stranger = Stranger(rig, "tls-crypt-v2")
    strangers.append(stranger)
    forged = bytearray(stranger.reset())
    forged[-40] ^= 1
    cut_off = stranger.reset()[:-3]
    stranger.send(bytes(forged), cut_off, forged[:9] + bytes(2), bytes(forged[:9]) + b"\xff\xff")
    assert len(handed_up(rig, 4)) == 4
    assert stranger.answer(0.1) is None


def test_a_client_that_sends_its_key_only_once_is_the_control_plane_s(
    rig: Rig, strangers: list[Stranger]
) -> None:
    answering(rig, "tls-crypt-v2")
    stranger = Stranger(rig, "tls-crypt-v2")
    strangers.append(stranger)
    stranger._number = 0
    stranger.send(stranger.reset())
    assert len(handed_up(rig)) == 1
    assert stranger.answer(0.1) is None
    # What follows has a key that nobody here knows any more.
    own = TlsCryptV2Keys(StaticKey(bytes(256)), Role.CLIENT)
    header = ControlHeader(Opcode.CONTROL_V1, KeyId(0), stranger.session_id)
    stranger.send(*[own.seal(header, 2, 1, bytes(9))] * 40)
    assert len(handed_up(rig, 40)) == 40, "it may go on, as if it had returned its cookie"


@pytest.mark.measures
def test_few_captured_resets_reach_the_control_plane_and_a_client_that_repeats_its_own_does(
    rig: Rig, strangers: list[Stranger]
) -> None:
    answering(rig, "tls-crypt-v2")
    captured = Stranger(rig, "tls-crypt-v2")
    client = Stranger(rig, "tls-crypt-v2", host="127.0.1.1")
    strangers += [captured, client]
    for _ in range(1000):
        captured.session_id = os.urandom(8)
        captured._number = 0
        captured.send(captured.reset())
    until(lambda: waiting(rig) + rig.drops("receive", "handshake_rate") == 1000, "all to be judged")
    at_most(waiting(rig), ONCE_BURST + 200, "what reaches the control plane of 1,000 resets", "packets")
    client._number = 0
    reset = client.reset()
    before = waiting(rig)
    client.send(reset, reset)
    until(lambda: waiting(rig) > before, "the client's reset")


@pytest.mark.measures
def test_a_captured_reset_is_opened_a_few_times_whoever_sends_it_and_those_of_clients_are_answered(
    rig: Rig, strangers: list[Stranger]
) -> None:
    answering(rig, "tls-crypt-v2")
    packet = Stranger(rig, "tls-crypt-v2").reset()
    answered = 0
    for number in range(200):
        repeater = Stranger(rig, "tls-crypt-v2", host=f"127.0.{3 + number // 100}.{number % 100 + 1}")
        strangers.append(repeater)
        repeater.send(packet)
    until(lambda: rig.drops("receive", "handshake_rate") >= 200 - KEY_REPEATS_MAX - 50, "all to be judged")
    for repeater in strangers:
        answered += repeater.answer(0.001) is not None
    assert answered >= 1
    at_most(answered, KEY_REPEATS_MAX + KEY_BURST + 20, "what is answered of 200 resets", "packets")
    client = Stranger(rig, "tls-crypt-v2", host="127.0.9.1")
    strangers.append(client)
    assert client.cookie()


@pytest.mark.measures
def test_what_follows_captured_resets_is_limited_for_all_together(
    rig: Rig, strangers: list[Stranger]
) -> None:
    answering(rig, "tls-crypt-v2")
    junk = bytes([Opcode.CONTROL_V1 << 3]) + os.urandom(80)
    sent = 0
    for number in range(30):
        stranger = Stranger(rig, "tls-crypt-v2", host=f"127.0.2.{number + 1}")
        strangers.append(stranger)
        stranger._number = 0
        stranger.send(stranger.reset(), *[junk] * 120)
        sent += 120
    until(lambda: waiting(rig) + sum_of_drops(rig) >= sent, "all to be judged")
    refused = rig.drops("receive", "source_rate")
    at_least(refused, sent - FOLLOWERS.burst - SAMPLES - 1000, "packets refused")


def sum_of_drops(rig: Rig) -> int:
    reasons = ("source_rate", "control_queue_full", "cookie_mismatch", "handshake_rate")
    return sum(rig.drops("receive", reason) for reason in reasons)


def test_a_metadata_less_key_and_the_largest_one_are_answered(rig: Rig, strangers: list[Stranger]) -> None:
    answering(rig, "tls-crypt-v2")
    for metadata in (b"", bytes(METADATA_MOST)):
        stranger = Stranger(rig, "tls-crypt-v2")
        strangers.append(stranger)
        stranger.keys = TlsCryptV2Keys(KEY, Role.CLIENT, SERVER_KEY.wrap(KEY, metadata))
        assert stranger.cookie()


def test_old_clients_with_tls_auth_are_answered_beside_tls_crypt_v2(
    rig: Rig, strangers: list[Stranger]
) -> None:
    shared = keys("SHA256", Role.SERVER)
    rig.plane.answer_resets(ResetAnswers(TlsCryptV2Server(SERVER_KEY, shared), SECRET, WINDOW))
    for wrap in ("SHA256", "tls-crypt-v2"):
        stranger = Stranger(rig, wrap)
        strangers.append(stranger)
        stranger.send(stranger.hello(stranger.cookie()))
        assert len(handed_up(rig)) == 1


def test_old_clients_are_answered_beside_tls_crypt_v2(rig: Rig, strangers: list[Stranger]) -> None:
    answering(rig, "tls-crypt-v2")
    stranger = Stranger(rig, "tls-crypt")
    strangers.append(stranger)
    stranger.send(stranger.reset(), stranger.hello(stranger.cookie()))
    assert len(handed_up(rig)) == 1


def test_what_opens_no_session_gets_no_answer(rig: Rig, strangers: list[Stranger]) -> None:
    answering(rig)
    stranger = Stranger(rig)
    strangers.append(stranger)
    reset = stranger.reset()
    useless = [
        reset[:13],
        reset[:5],
        b"\x38" + bytes(13),
        stranger.packet(Opcode.HARD_RESET_CLIENT_V2, ControlBody(message_id=1)),
        stranger.packet(Opcode.HARD_RESET_CLIENT_V2, ControlBody(message_id=0), key_id=1),
        stranger.packet(Opcode.HARD_RESET_SERVER_V2, ControlBody(message_id=0)),
        stranger.packet(Opcode.SOFT_RESET_V1, ControlBody(message_id=0), key_id=1),
        reset[:9] + b"\x09" + bytes(60),
        reset + bytes(3000),
    ]
    stranger.send(*useless)
    assert len(handed_up(rig, len(useless))) == len(useless), "a few are shown to the control plane"
    assert stranger.answer(0.1) is None


@pytest.mark.measures
def test_answers_to_one_network_are_limited_and_others_still_get_theirs(
    rig: Rig, strangers: list[Stranger]
) -> None:
    answering(rig)
    stranger = Stranger(rig)
    strangers.append(stranger)
    stranger.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    for _ in range(3000):
        stranger.session_id = os.urandom(8)
        stranger.send(stranger.reset())
    until(lambda: rig.drops("receive", "handshake_rate") > 500, "a limit")
    answered = 0

    def are_all_judged() -> bool:
        nonlocal answered
        while stranger.answer(0.01) is not None:
            answered += 1
        return answered + rig.drops("receive", "handshake_rate") == 3000

    until(are_all_judged, "each reset to be answered or dropped")
    at_most(answered, 2 * (CALM[0] + BEYOND_BURST), "what is answered of 3,000 resets", "packets")
    other = Stranger(rig, host="127.0.1.1")
    strangers.append(other)
    assert other.cookie()


def test_one_and_the_same_reset_is_answered_a_few_times(rig: Rig, strangers: list[Stranger]) -> None:
    answering(rig)
    stranger = Stranger(rig)
    strangers.append(stranger)
    stranger.send(*[stranger.reset()] * 20)
    until(lambda: rig.drops("receive", "handshake_rate") == 20 - REPEATS_MAX, "a limit")


def test_who_is_expected_is_no_stranger(rig: Rig, strangers: list[Stranger]) -> None:
    answering(rig)
    stranger = Stranger(rig)
    strangers.append(stranger)
    rig.plane.expect(stranger.endpoint)
    rig.plane.expect(stranger.endpoint)
    stranger.send(stranger.hello(None), stranger.reset())
    assert len(handed_up(rig, 2)) == 2
    rig.plane.stop_expecting(stranger.endpoint)
    stranger.send(stranger.hello(None))
    assert len(handed_up(rig)) == 1
    rig.plane.stop_expecting(stranger.endpoint)
    rig.plane.stop_expecting(stranger.endpoint)
    assert stranger.cookie()


def test_nobody_is_answered_before_and_after_that_is_asked_for(rig: Rig, strangers: list[Stranger]) -> None:
    stranger = Stranger(rig)
    strangers.append(stranger)
    stranger.send(stranger.reset())
    assert len(handed_up(rig)) == 1
    answering(rig)
    assert stranger.cookie()
    rig.plane.answer_resets(None)
    stranger.send(stranger.reset())
    assert len(handed_up(rig)) == 1
    assert stranger.answer(0.1) is None


def test_a_flood_of_forged_resets_stops_no_peer(rig: Rig, strangers: list[Stranger]) -> None:
    answering(rig)
    peer = rig.peer(1)
    stranger = Stranger(rig)
    strangers.append(stranger)
    for number in range(4000):
        stranger.session_id = struct.pack(">Q", number + 1)
        stranger.send(stranger.reset())
        if number % 200 == 0:
            peer.send_raw(b"\x20from a peer")
            peer.send(frame(2, 1, number.to_bytes(2, "big")))
    assert len(rig.frames(20)) == 20
    assert len([event for event in handed_up(rig, 20) if event.source == peer.endpoint]) == 20


def test_data_of_strangers_draws_a_notice_a_second_and_that_of_peers_none(
    rig: Rig, strangers: list[Stranger]
) -> None:
    answering(rig)
    peer = rig.peer(1)
    # Of nobody; of another one's id without such a key, and with one that does not fit.
    wire_id = peer.seal(frame(2, 1))[1:4]
    for header, key_id in ((b"\x33\0\0\x63", 3), (b"\x33" + wire_id, 3), (b"\x30" + wire_id, 0)):
        stranger = Stranger(rig)
        strangers.append(stranger)
        stranger.send(*[header + bytes(60)] * 20)
        assert stranger.answer() == serialize_notice(key_id)
        assert stranger.answer(0.1) is None
    stranger = Stranger(rig)
    strangers.append(stranger)
    peer.send_raw(peer.seal(frame(2, 1))[:20] + bytes(40))
    peer.send(frame(2, 1))
    assert rig.frames() == [frame(2, 1)]
    assert peer.is_quiet(), "a peer's broken packet is no stranger's"
    stranger.send(b"\x33\0\0\x63" + bytes(16))
    assert stranger.answer(0.1) is None, "never more than what came"
    rig.plane.answer_resets(None)
    stranger.send(b"\x33\0\0\x63" + bytes(60))
    assert stranger.answer(0.1) is None, "only a server tells"


def test_a_notice_from_the_peer_s_endpoint_is_told_and_no_other(rig: Rig, strangers: list[Stranger]) -> None:
    peer = rig.peer(1, takes_any_id=True)
    stranger = Stranger(rig)
    strangers.append(stranger)
    stranger.send(*[serialize_notice(key_id) for key_id in range(8)])
    until(lambda: rig.drops("receive", "unknown_key_id") == 7, "the stranger's to be judged")
    assert not rig.events(SessionUnknown)
    for _ in range(10):
        peer.send_raw(serialize_notice(0))
    assert rig.event(SessionUnknown) == SessionUnknown(PeerHandle(1))
    peer.send(frame(2, 1))
    assert rig.frames() == [frame(2, 1)], "it ends nothing"
