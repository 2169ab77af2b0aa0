"""The TLS engine against any bytes: a TlsError or nothing, never another exception, never a session."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridged.errors import TlsError
from bridged.tls import make_engine_factory
from tests.unit.tls.tls_lab import make_lab

LAB = make_lab()
CLIENT = make_engine_factory(LAB.settings("client"))
SERVER = make_engine_factory(LAB.settings("server"))


def feed(engine, octets):
    try:
        engine.receive(octets)
    except TlsError as error:
        assert error.code and error.message
        return True
    return False


@given(st.sampled_from([CLIENT, SERVER]), st.lists(st.binary(max_size=300), max_size=5))
def test_garbage_is_a_tls_error_and_never_a_session(factory, pieces):
    engine = factory()
    engine.start()
    failed = False
    for piece in pieces:
        failed = feed(engine, piece) or failed
    assert not engine.is_established and engine.read() == b""
    if failed:
        with pytest.raises(TlsError):
            engine.receive(b"")
    engine.take_ciphertext()


@settings(max_examples=150)
@given(st.integers(0, 2), st.integers(0, 5000), st.integers(1, 255))
def test_a_handshake_with_one_octet_changed_fails_or_both_ends_have_the_same_keys(flight, position, mask):
    client, server = CLIENT(), SERVER()
    client.start()
    ends = [(client, server), (server, client)]
    changed = failed = False
    for number in range(4):
        source, sink = ends[number % 2]
        octets = bytearray(source.take_ciphertext())
        if number == flight and octets:
            octets[position % len(octets)] ^= mask
            changed = True
        failed = feed(sink, bytes(octets)) or failed
        if failed:
            break
    assert changed
    if not failed and client.is_established and server.is_established:
        # A version in a plain record's header: nobody reads it, and it is no part of the handshake.
        label = "EXPORTER-OpenVPN-datakeys"
        assert client.export(label, 256) == server.export(label, 256)
        assert client.summary().cipher == server.summary().cipher


@given(st.lists(st.binary(min_size=1, max_size=2000), max_size=8), st.integers(1, 4000))
def test_messages_arrive_one_by_one_however_they_are_cut(messages, step):
    client, server = CLIENT(), SERVER()
    client.start()
    for _ in range(2):
        server.receive(client.take_ciphertext())
        client.receive(server.take_ciphertext())
    for message in messages:
        client.write(message)
    octets = client.take_ciphertext()
    for start in range(0, len(octets), step):
        server.receive(octets[start : start + step])
    assert [server.read() for _ in messages] == messages
    assert server.read() == b""
