"""The TLS engine against itself: handshakes, data, exporter, life."""

from __future__ import annotations

import os

import pytest

from bridged.errors import LocalProtocolError, TlsError
from bridged.tls import make_engine_factory


@pytest.mark.parametrize("step", [1, 7, 100, 1150, 65536])
def test_handshake_completes_however_the_octets_are_cut(lab, step):
    pair = lab.pair(step=step)
    pair.run()
    assert pair.client.is_established and pair.server.is_established


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_both_versions_carry_data_both_ways_and_export_the_same_octets(lab, version):
    client = lab.settings("client", version_min=version, version_max=version)
    pair = lab.pair(client)
    pair.run()
    pair.client.write(b"from the client")
    pair.server.write(b"from the server")
    pair.run()
    assert pair.server.read() == b"from the client"
    assert pair.client.read() == b"from the server"
    assert pair.client.summary().version == f"TLSv{version}"
    label = "EXPORTER-OpenVPN-datakeys"
    assert pair.client.export(label, 256) == pair.server.export(label, 256)
    assert pair.client.export(label, 256) != pair.client.export("EXPORTER-OpenVPN-p2p-peerid", 256)
    assert len(pair.client.export(label, 256)) == 256


def test_hybrid_post_quantum_group_is_negotiated_and_shown_by_both_ends(lab):
    pair = lab.pair()
    pair.run()
    assert pair.client.summary().group == "X25519MLKEM768"
    assert pair.server.summary().group == "X25519MLKEM768"


def test_summary_names_the_verified_peer(lab):
    pair = lab.pair()
    pair.run()
    seen = pair.server.summary()
    assert seen.peer_name == "site-b"
    assert seen.peer_fingerprint == lab.client.fingerprint
    assert seen.peer_not_after == lab.client.certificate.not_valid_after_utc.timestamp()
    assert seen.version == "TLSv1.3" and seen.cipher == "TLS_AES_256_GCM_SHA384"
    assert pair.client.summary().peer_name == "hub"


def test_every_handshake_is_a_full_one_with_keys_of_its_own(lab):
    client = make_engine_factory(lab.settings("client"))
    server = make_engine_factory(lab.settings("server"))
    exported = set()
    for _ in range(3):
        pair = lab.pair()
        pair.client, pair.server = client(), server()
        pair.run()
        assert pair.client._connection.get_session() is None or pair.client.summary().peer_name == "hub"
        exported.add(pair.client.export("EXPORTER-OpenVPN-datakeys", 32))
    assert len(exported) == 3


def test_a_message_of_a_whole_record_arrives_whole(lab):
    pair = lab.pair(step=1150)
    pair.run()
    message = os.urandom(16384)
    pair.client.write(message)
    pair.run()
    assert pair.server.read() == message
    assert pair.server.read() == b""


def test_one_write_is_one_record(lab):
    pair = lab.pair()
    pair.run()
    pair.client.write(b"x" * 2000)
    record = pair.client.take_ciphertext()
    assert record[0] == 23 and int.from_bytes(record[3:5], "big") == len(record) - 5


def test_more_than_a_record_is_our_own_fault(lab):
    pair = lab.pair()
    pair.run()
    with pytest.raises(LocalProtocolError, match="one TLS record"):
        pair.client.write(b"x" * 16385)


@pytest.mark.parametrize("use", [lambda e: e.write(b"x"), lambda e: e.export("a", 1), lambda e: e.summary()])
def test_nothing_is_given_before_the_handshake_is_complete(lab, use):
    engine = make_engine_factory(lab.settings("client"))()
    engine.start()
    assert not engine.is_established
    with pytest.raises(LocalProtocolError):
        use(engine)


@pytest.mark.parametrize(("size", "good"), [(16384, 64), (1, 4096)])
def test_unread_plaintext_is_bounded_in_octets_and_in_records(lab, size, good):
    pair = lab.pair()
    pair.run()
    for _ in range(good):
        pair.client.write(bytes(size))
    pair.carry(pair.client, pair.server)
    pair.client.write(bytes(size))
    with pytest.raises(TlsError, match="faster than its messages are read"):
        pair.carry(pair.client, pair.server)


@pytest.mark.parametrize("role", ["client", "server"])
def test_garbage_fails_the_session_for_good_and_leaves_an_alert(lab, role):
    engine = make_engine_factory(lab.settings(role))()
    engine.start()
    engine.take_ciphertext()
    with pytest.raises(TlsError) as first:
        engine.receive(b"\x16\x03\x01\x00\x05hello" * 20)
    assert first.value.code == "tls_failed"
    assert engine.take_ciphertext()[:1] == b"\x15"
    with pytest.raises(TlsError) as second:
        engine.receive(b"more")
    assert second.value.message == first.value.message
    assert not engine.is_established


def test_a_bit_flipped_on_the_wire_is_noticed(lab):
    pair = lab.pair()
    pair.run()
    pair.client.write(b"secret")
    record = bytearray(pair.client.take_ciphertext())
    record[-1] ^= 1
    with pytest.raises(TlsError) as caught:
        pair.server.receive(bytes(record))
    assert caught.value.code == "tls_failed"
    assert pair.server.read() == b""


def test_a_closed_engine_gives_nothing_and_takes_nothing(lab):
    pair = lab.pair()
    pair.run()
    pair.client.close()
    pair.client.close()
    assert pair.client.take_ciphertext() == b"" and pair.client.read() == b""
    assert not pair.client.is_established
    with pytest.raises(TlsError):
        pair.client.receive(b"x")


@pytest.mark.parametrize("old,new", [("client", "server"), ("server", "client")])
def test_ends_without_a_version_in_common_say_so_on_both_sides(lab, old, new):
    settings = {
        old: lab.settings(old, version_min="1.2", version_max="1.2"),
        new: lab.settings(new, version_min="1.3", version_max="1.3"),
    }
    pair = lab.pair(**settings)
    codes = []
    pair.client.start()
    for source, sink in ((pair.client, pair.server), (pair.server, pair.client)) * 2:
        try:
            pair.carry(source, sink)
        except TlsError as error:
            codes.append(error.code)
    assert codes[:2] == ["version_mismatch", "version_mismatch"]
