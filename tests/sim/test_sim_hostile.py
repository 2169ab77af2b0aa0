"""Strangers' and mutated datagrams in every phase: no exception, bounded memory, traffic undisturbed."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from bridged.protocol.packets.packet import ControlBody, ControlHeader, Opcode, serialize_body
from bridged.protocol.packets.wrap import NoWrap, WrapChannel
from bridged.protocol.role import Role
from bridged.protocol.session.states import SessionState
from bridged.protocol.session.wire import MAX_CONTROL_DATAGRAM
from bridged.units import KeyId
from tests.sim.noisy_wire import (
    UNDIRECTED,
    UNIX_START,
    End,
    Noise,
    Simulation,
    assert_keys_agree,
    assert_small,
    assert_waits,
    renegotiations,
    settings,
    wrap_keys,
)

PHASES = ("waiting", "handshake", "established", "renegotiating", "renegotiated", "draining", "closed")
WIRE = NoWrap()

control_opcodes = st.sampled_from([opcode for opcode in Opcode if opcode.is_control])
payloads = st.one_of(st.just(b""), st.binary(max_size=80), st.just(b"\x16\x03\x03\x40\x00" + bytes(1000)))


def in_phase(phase: str, mode: str) -> Simulation:
    # Without exporter nothing is wrapped under any key id where the mode is none.
    common = {"use_exporter": mode != "none"}
    client, server = settings(Role.CLIENT, mode, **common), settings(Role.SERVER, mode, **common)
    sim = Simulation(client, server, noise=Noise(delay=0.0011), seed=7)
    if phase == "handshake":
        sim.run_until(1, stop=lambda s: s.server.session is not None)
    elif phase != "waiting":
        sim.run_until(5)
    if phase in ("renegotiating", "renegotiated"):
        sim.client.session.request_renegotiation("manual", sim.now)
        sim._drain()
        sim.run_until(0.002 if phase == "renegotiating" else 100)
    if phase in ("draining", "closed"):
        sim.noise.loss = 1.0
        sim.client.session.close("shutdown", "stopping", sim.now)
        sim.server.session.handle_occ_exit(sim.now)
        sim._drain()
    if phase == "closed":
        sim.run_until(20)
    return sim


def deliver(sim: Simulation, end: End, datagram: bytes) -> None:
    if end.session is None:
        return
    end.session.receive_datagram(datagram, sim.now)
    end.session.handle_timeout(sim.now)
    sim._drain()
    assert_small(end.session)
    assert_waits(end.session, sim.now)


@st.composite
def crafted(draw: st.DrawFn) -> dict[str, Any]:
    """A well-formed control packet with hostile contents; session ids are filled in later."""
    opcode = draw(control_opcodes)
    acks = tuple(draw(st.lists(st.integers(0, 0xFFFFFFFF) | st.integers(0, 8), max_size=8)))
    message_id = draw(st.integers(0, 20) | st.integers(0, 0xFFFFFFFF)) if opcode.has_message_id else None
    return {
        "opcode": opcode,
        "key_id": draw(st.integers(0, 7)),
        "acks": acks,
        "message_id": message_id,
        "payload": draw(payloads) if opcode.has_message_id else b"",
        "knows_ids": draw(st.integers(0, 9)) > 0,
    }


def datagram_of(values: dict[str, Any], end: End) -> bytes:
    session = end.session
    known = session.remote_session_id or b"stranger"
    own = session.local_session_id if values["knows_ids"] else b"nonsense"
    body = ControlBody(
        values["acks"], own if values["acks"] else None, values["message_id"], values["payload"]
    )
    header = ControlHeader(values["opcode"], values["key_id"], known)
    return WIRE.seal(header, 0, 0, serialize_body(body))


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("mode", ["none", "tls-auth", "tls-crypt"])
def test_arbitrary_octets_change_nothing(mode: str, phase: str) -> None:
    @examples(max_examples=25, deadline=None, database=None)
    @given(st.lists(st.binary(max_size=120), max_size=15))
    def run(datagrams: list[bytes]) -> None:
        sim = in_phase(phase, mode)
        states = [end.session and end.session.state for end in (sim.client, sim.server)]
        for datagram in datagrams:
            for end in (sim.client, sim.server):
                deliver(sim, end, datagram)
        assert states == [end.session and end.session.state for end in (sim.client, sim.server)]
        if phase not in ("draining", "closed"):
            sim.run_until(100)
            assert sim.client.established and sim.server.established and not sim.client.down
            assert_keys_agree(sim)

    run()


@pytest.mark.parametrize("phase", PHASES)
def test_crafted_packets_of_an_unwrapped_session_are_harmless(phase: str) -> None:
    """Who reads the session ids can spoil an unwrapped session, but not the process, nor its memory."""

    @examples(max_examples=150, deadline=None, database=None)
    @given(st.lists(st.tuples(st.booleans(), crafted(), st.sampled_from([0.0, 0.0, 1.0, 30.0])), max_size=25))
    def run(steps: list[tuple[bool, dict[str, Any], float]]) -> None:
        sim = in_phase(phase, "none")
        for at_client, values, pause in steps:
            end = sim.client if at_client or sim.server.session is None else sim.server
            deliver(sim, end, datagram_of(values, end))
            sim.run_until(pause)
        sim.run_until(4000)
        for end in (sim.client, sim.server):
            assert not (end.down and not end.ended)

    run()


@pytest.mark.parametrize("phase", ["handshake", "established", "renegotiating", "renegotiated"])
@pytest.mark.parametrize("mode", ["tls-auth", "tls-crypt"])
def test_mutated_packets_do_not_touch_a_wrapped_session(mode: str, phase: str) -> None:
    """Everything that was said so far, and is said later, comes again with changes."""

    @examples(max_examples=20, deadline=None, database=None)
    @given(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 400), st.integers(1, 255)), max_size=30))
    def run(changes: list[tuple[int, int, int]]) -> None:
        heard: list[tuple[str, bytes]] = []
        sim = in_phase(phase, mode)
        send = sim._send

        def tapped(target: str, datagram: bytes) -> None:
            heard.append((target, datagram))
            send(target, datagram)

        sim._send = tapped
        sim.client.session.request_renegotiation("manual", sim.now)
        for number, position, bits in changes:
            sim.run_until(0.02)
            if not heard:
                continue
            target, datagram = heard[number % len(heard)]
            octets = bytearray(datagram)
            octets[position % len(octets)] ^= bits
            deliver(sim, sim.client if target == "client" else sim.server, bytes(octets))
        sim.run_until(150)
        assert sim.client.established and sim.server.established
        assert not sim.client.down and not sim.server.down
        assert all(outcome == "established" for outcome in renegotiations(sim.client))
        assert_keys_agree(sim)
        assert sim.client.sealing == sim.server.sealing

    run()


def test_a_giant_datagram_is_dropped_before_anything_else_looks_at_it() -> None:
    sim = in_phase("established", "none")
    values = {"opcode": Opcode.CONTROL_V1, "key_id": 0, "acks": (), "message_id": 9, "knows_ids": True}
    for size in (MAX_CONTROL_DATAGRAM + 1, 65000):
        deliver(sim, sim.server, datagram_of(values | {"payload": bytes(size)}, sim.server))
    assert sim.server.session.drops["bad_length"] == 2
    assert not sim.server.session.keys.primary.inbox._buffered


def test_packets_with_another_key_id_are_dropped_and_not_answered() -> None:
    sim = in_phase("established", "none")
    values = {"acks": (), "message_id": 1, "knows_ids": True, "payload": b"x", "opcode": Opcode.CONTROL_V1}
    before = sim.datagrams
    for key_id in range(1, 8):
        deliver(sim, sim.server, datagram_of(values | {"key_id": key_id}, sim.server))
    assert sim.server.session.drops["unknown_key_id"] == 7
    assert sim.datagrams == before


@pytest.mark.parametrize("key_id", [0, 2, 7])
def test_a_soft_reset_for_another_than_thenext_key_id_starts_nothing(key_id: int) -> None:
    sim = in_phase("established", "none")
    values = {"acks": (), "message_id": 0, "knows_ids": True, "payload": b"", "key_id": key_id}
    deliver(sim, sim.server, datagram_of(values | {"opcode": Opcode.SOFT_RESET_V1}, sim.server))
    assert [key.key_id for key in sim.server.session.keys.newest_first()] == [0]


@pytest.mark.parametrize("phase", ["handshake", "draining"])
def test_a_soft_reset_at_the_wrong_time_starts_nothing(phase: str) -> None:
    sim = in_phase(phase, "none")
    values = {"acks": (), "message_id": 0, "knows_ids": True, "payload": b"", "key_id": 1}
    deliver(sim, sim.server, datagram_of(values | {"opcode": Opcode.SOFT_RESET_V1}, sim.server))
    assert [key.key_id for key in sim.server.session.keys.newest_first()] == [0]


def test_a_repeated_answer_to_the_hard_reset_is_acknowledged_again() -> None:
    sim = in_phase("established", "none")
    values = {"acks": (0,), "message_id": 0, "knows_ids": True, "payload": b"", "key_id": 0}
    before = sim.datagrams
    deliver(sim, sim.client, datagram_of(values | {"opcode": Opcode.HARD_RESET_SERVER_V2}, sim.client))
    assert sim.datagrams == before + 1
    assert sim.client.session.state is SessionState.ESTABLISHED


def test_another_servers_answer_does_not_take_a_session_over() -> None:
    sim = in_phase("established", "none")
    header = ControlHeader(Opcode.HARD_RESET_SERVER_V2, 0, b"impostor")
    body = serialize_body(ControlBody((0,), sim.client.session.local_session_id, 0))
    deliver(sim, sim.client, WIRE.seal(header, 0, 0, body))
    assert sim.client.session.remote_session_id == sim.server.session.local_session_id
    assert sim.client.session.drops["cookie_mismatch"] == 1


def test_a_limit_of_a_key_that_is_on_its_way_out_asks_for_nothing() -> None:
    sim = in_phase("renegotiated", "tls-crypt")
    session = sim.client.session
    assert not session.request_renegotiation("packets", sim.now, key_id=0)
    assert session.request_renegotiation("packets", sim.now, key_id=1)
    assert not session.request_renegotiation("packets", sim.now, key_id=1)
    assert not session.request_renegotiation("packets", sim.now)


@pytest.mark.parametrize("count", [1, 8])
def test_a_strangers_packet_is_never_answered_with_more_than_one(count: int) -> None:
    """A session answers each packet with at most one acknowledgement (besides its own retransmissions)."""
    sim = in_phase("established", "none")
    values = {"opcode": Opcode.CONTROL_V1, "key_id": 0, "acks": (), "knows_ids": True, "payload": b""}
    for number in range(count):
        before = sim.datagrams
        deliver(sim, sim.server, datagram_of(values | {"message_id": number}, sim.server))
        assert sim.datagrams - before <= 1


def test_own_packets_that_come_back_disturb_no_session_where_tls_auth_has_no_direction() -> None:
    """Each comes back before the peer's next one: in its window they would count as the peer's."""
    client, server = (settings(role, UNDIRECTED, use_exporter=False) for role in (Role.CLIENT, Role.SERVER))
    sim = Simulation(client, server, noise=Noise(delay=1.2), seed=7)
    send = sim._send

    def reflect(end: End, datagram: bytes) -> None:
        if end.session is not None:
            end.session.receive_datagram(datagram, sim.now)

    def tapped(target: str, datagram: bytes) -> None:
        sim._later(0.0, partial(reflect, sim.server if target == "client" else sim.client, datagram))
        send(target, datagram)

    sim._send = tapped
    sim.run_until(60)
    assert sim.client.established and sim.server.established
    sim.client.session.request_renegotiation("manual", sim.now)
    sim.run_until(60)
    for end in (sim.client, sim.server):
        assert renegotiations(end) == ["established"] and not end.down
        assert end.session.drops["reflected"] > 5
        assert set(end.session.drops) <= {"reflected", "replay"}
    assert_keys_agree(sim)


@pytest.mark.parametrize("opcode", [Opcode.CONTROL_V1, Opcode.HARD_RESET_CLIENT_V2])
def test_packets_of_other_sessions_do_not_move_the_replay_window(opcode: Opcode) -> None:
    """Recorded ones of this end's earlier sessions are authentic where tls-auth has no direction."""
    sim = Simulation(
        *(settings(role, UNDIRECTED, use_exporter=False) for role in (Role.CLIENT, Role.SERVER)),
        noise=Noise(delay=0.01),
        seed=7,
    )
    later = WrapChannel(wrap_keys(UNDIRECTED, Role.CLIENT), int(UNIX_START) + 9000)
    header = ControlHeader(opcode, KeyId(0), b"formerly")
    recorded = later.wrap(header, serialize_body(ControlBody((), None, 0, b"")))
    deliver(sim, sim.client, recorded)
    sim.run_until(5)
    for end in (sim.client, sim.server):
        deliver(sim, end, recorded)
    sim.client.session.request_renegotiation("manual", sim.now)
    sim.run_until(20)
    assert renegotiations(sim.client) == renegotiations(sim.server) == ["established"]
