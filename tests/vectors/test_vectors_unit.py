"""The single known answers of unit.json."""

from __future__ import annotations

from typing import Any

import pytest

from bridged.dataplane.portable.transport.framing import Deframer, framed
from bridged.protocol.keys.cipher import Cipher
from bridged.protocol.keys.client_wrap_key import ServerWrapKey
from bridged.protocol.keys.epoch_keys import EpochKey
from bridged.protocol.keys.key_derivation import derive_by_prf, prf, slice_keys, static_data_key
from bridged.protocol.keys.key_exchange import (
    ClientKeyMessage,
    ServerKeyMessage,
    parse_client_key_message,
    parse_server_key_message,
    serialize_client_key_message,
    serialize_server_key_message,
)
from bridged.protocol.keys.static_key import StaticKey
from bridged.protocol.packets import data_packet, occ
from bridged.protocol.packets.cbc_packet import CbcHmac, open_cbc, seal_cbc
from bridged.protocol.packets.epoch_packet import open_epoch
from tests.lab.epoch_sealing import seal_epoch
from bridged.protocol.packets.fragments import Reassembly, cut
from bridged.protocol.packets.framing import UNWRAPPERS, WRAPPERS, Framing
from bridged.protocol.packets.packet import ControlBody, ControlHeader, Opcode, serialize_body
from bridged.protocol.packets.static_packet import open_static, seal_static
from bridged.protocol.packets.wrap import NoWrap, TlsAuthKeys, TlsCryptKeys, TlsCryptV2Keys, WrapKeys
from bridged.protocol.packets.wrap.tls_crypt import dynamic_key
from bridged.protocol.role import Role
from bridged.units import KeyId
from tests.vectors.vector_files import unit_cases

# Group -> cases.
COVERED = {
    "openvpn_prf": 4,
    "key_material_to_direction_keys": 15,
    "dynamic_tls_crypt_key": 13,
    "control_plain": 5,
    "tls_crypt": 37,
    "tls_crypt_v2_wkc": 1,
    "tls_auth": 18,
    "aead_seal": 52,
    "cbc_hmac_seal": 4,
    "static_key_seal": 5,
    "epoch_keys": 2,
    "aead_epoch_seal": 11,
    "key_method_2": 30,
    "compression": 7,
    "fragment": 5,
    "tcp_framing": 3,
    # In test_vectors_exporter.py.
    "tls_exporter": 26,
    "p2p_peer_id": 1,
}


def cases(group: str) -> list[Any]:
    return [pytest.param(case, id=f"{number}") for number, case in enumerate(unit_cases()[group])]


def octets(hexadecimal: str) -> bytes:
    return bytes.fromhex(hexadecimal)


def test_every_group_of_the_file_is_accounted_for() -> None:
    assert set(COVERED) | {"constants"} == set(unit_cases())
    assert {group: len(unit_cases()[group]) for group in COVERED} == COVERED


FRAMINGS: dict[str, Framing] = {"comp-lzo-no": "comp-lzo", "stub": "stub", "stub-v2": "stub-v2"}


@pytest.mark.parametrize("case", cases("compression"))
def test_compression_framing(case: dict[str, Any]) -> None:
    framing = FRAMINGS[case["mode"]]
    assert UNWRAPPERS[framing](octets(case["framed"])).hex() == case["payload"]
    framed = WRAPPERS[framing](octets(case["payload"])).hex()
    assert framed == case["framed"].replace("500a50", "500050", 1)


@pytest.mark.parametrize("case", cases("fragment"))
def test_fragments(case: dict[str, Any]) -> None:
    packets = [octets(part["plaintext"]) for part in case["parts"]]
    reassembly = Reassembly()
    joined = [reassembly.take(packet, 0) for packet in packets]
    assert joined == [*[None] * (len(packets) - 1), octets(case["payload"])]
    # `fragment 1000` leaves 972 bytes beside our header and its own.
    assert cut(octets(case["payload"]), 972, case["parts"][0]["sequence_id"]) == packets


@pytest.mark.parametrize("case", cases("tcp_framing"))
def test_packets_in_a_stream_stand_behind_their_lengths(case: dict[str, Any]) -> None:
    packet, stream = octets(case["packet"]), octets(case["stream"])
    assert framed([packet]) == stream
    deframer = Deframer()
    found = [deframer.take(stream[at : at + 1]) for at in range(len(stream))]
    assert found == [*[[]] * (len(stream) - 1), [packet]]
    assert deframer.take(stream * 2 + stream[:5]) == [packet, packet]


@pytest.mark.parametrize("case", cases("openvpn_prf"))
def test_prf(case: dict[str, Any]) -> None:
    client = ClientKeyMessage(
        *(octets(case[f"client_{name}"]) for name in ("pre_master", "random1", "random2"))
    )
    server = ServerKeyMessage(octets(case["server_random1"]), octets(case["server_random2"]))
    master = prf(client.pre_master, case["master_label"].encode(), client.random1 + server.random1, 48)
    assert master.hex() == case["master_secret"]
    session_ids = octets(case["client_session_id"]), octets(case["server_session_id"])
    assert derive_by_prf(client, server, *session_ids).hex() == case["key_material"]


@pytest.mark.parametrize("case", cases("key_material_to_direction_keys"))
def test_key_material_is_sliced_for_both_roles(case: dict[str, Any]) -> None:
    cipher = Cipher.parse(case["cipher"])
    digest = case["auth"] or "SHA1"
    is_epoch = case["format"] == "aead-epoch"
    client, server = (
        slice_keys(octets(case["key_material"]), role, cipher, KeyId(0), digest=digest, is_epoch=is_epoch)
        for role in (Role.CLIENT, Role.SERVER)
    )
    assert (client.send_key, client.send_iv) == (server.receive_key, server.receive_iv)
    assert (client.receive_key, client.receive_iv) == (server.send_key, server.send_iv)
    assert (client.send_hmac, client.receive_hmac) == (server.receive_hmac, server.send_hmac)
    for key, direction in ((client, "client_to_server"), (server, "server_to_client")):
        expected = {"epoch_key_1" if is_epoch else "cipher_key": key.send_key.hex()}
        if is_epoch:
            assert not key.send_iv
        elif cipher.is_cbc:
            expected["hmac_key"] = key.send_hmac.hex()
        else:
            expected["implicit_iv"] = key.send_iv.hex()
        assert case[direction] == expected


@pytest.mark.parametrize("case", cases("dynamic_tls_crypt_key"))
def test_dynamic_tls_crypt_key(case: dict[str, Any]) -> None:
    base = StaticKey(octets(case["wrap_key"])) if case["wrap_key"] else None
    assert dynamic_key(base, octets(case["exporter_output"])).octets.hex() == case["key"]


def assert_seals(case: dict[str, Any], sending: WrapKeys, receiving: WrapKeys) -> None:
    header = ControlHeader(
        Opcode[
            case["opcode"].removeprefix("P_").replace("CONTROL_HARD", "HARD").replace("CONTROL_SOFT", "SOFT")
        ],
        KeyId(case["key_id"]),
        octets(case["session_id"]),
    )
    remote = case["remote_session_id"]
    body = serialize_body(
        ControlBody(
            tuple(case["acks"]),
            octets(remote) if remote else None,
            case["message_id"],
            octets(case["payload"] or ""),
        )
    )
    assert body.hex() == case["clear"]
    ids = case.get("packet_id", 0), case.get("packet_time", 0)
    assert sending.seal(header, *ids, body).hex() == case["packet"]
    behind = len(octets(case.get("wkc", "")))
    assert len(octets(case["packet"])) == 9 + sending.overhead + len(body) + behind
    opened = receiving.open(octets(case["packet"]))
    assert (opened.header, opened.packet_id, opened.packet_time, opened.body) == (header, *ids, body)


@pytest.mark.parametrize("case", cases("control_plain"))
def test_control_plain(case: dict[str, Any]) -> None:
    assert_seals(case, NoWrap(), NoWrap())


@pytest.mark.parametrize("case", cases("tls_crypt"))
def test_tls_crypt(case: dict[str, Any]) -> None:
    key, role = StaticKey(octets(case["key"])), Role(case["sender"])
    if "wkc" in case:
        assert_seals(case, TlsCryptV2Keys(key, role, octets(case["wkc"])), TlsCryptV2Keys(key, role.peer))
        return
    assert_seals(case, TlsCryptKeys(key, role), TlsCryptKeys(key, role.peer))


@pytest.mark.parametrize("case", cases("tls_crypt_v2_wkc"))
def test_tls_crypt_v2_client_key(case: dict[str, Any]) -> None:
    server = ServerWrapKey(octets(case["server_key"]))
    key, wrapped = StaticKey(octets(case["client_key"])), octets(case["wkc"])
    assert server.wrap(key, octets(case["metadata"])) == wrapped
    opened = server.unwrap(wrapped)
    assert opened.key == key
    assert (opened.metadata_type, opened.metadata.hex()) == (case["metadata_type"], case["metadata_value"])
    assert opened.made_at == int(case["metadata_value"], 16)


@pytest.mark.parametrize("case", cases("tls_auth"))
def test_tls_auth(case: dict[str, Any]) -> None:
    key, role, direction = StaticKey(octets(case["key"])), Role(case["sender"]), case["key_direction"]
    assert_seals(
        case,
        TlsAuthKeys(key, direction[role.value], case["digest"]),
        TlsAuthKeys(key, direction[role.peer.value], case["digest"].lower()),
    )


@pytest.mark.parametrize("case", cases("aead_seal"))
def test_aead_seal(case: dict[str, Any]) -> None:
    aead = data_packet.make_aead(Cipher.parse(case["cipher"]), octets(case["cipher_key"]))
    header = data_packet.serialize_data_header(case["key_id"], case["peer_id"])
    iv, plaintext = octets(case["implicit_iv"]), octets(case["plaintext"])
    assert data_packet.seal(aead, iv, header, case["packet_id"], plaintext).hex() == case["packet"]
    assert data_packet.open(aead, iv, octets(case["packet"])).payload == plaintext


@pytest.mark.parametrize("case", cases("cbc_hmac_seal"))
def test_cbc_hmac_seal(case: dict[str, Any]) -> None:
    key = CbcHmac(octets(case["cipher_key"]), case["auth"], octets(case["hmac_key"]))
    header = data_packet.serialize_data_header(case["key_id"], case["peer_id"])
    iv, plaintext = octets(case["iv"]), octets(case["plaintext"])
    assert seal_cbc(key, iv, header, case["packet_id"], plaintext).hex() == case["packet"]
    assert open_cbc(key, octets(case["packet"])).payload == plaintext


@pytest.mark.parametrize("case", cases("static_key_seal"))
def test_static_key_seal(case: dict[str, Any]) -> None:
    cipher, direction = Cipher.parse(case["cipher"]), case["key_direction"][case["direction"].split("-")[0]]
    key = static_data_key(StaticKey(octets(case["static_key"])), direction, cipher, case["auth"], 0)
    assert (key.send_key.hex(), key.send_hmac.hex()) == (case["cipher_key"], case["hmac_key"])
    sealer = CbcHmac(key.send_key, case["auth"], key.send_hmac)
    identity = case["packet_id"], case["packet_time"]
    payload = octets(case["plaintext"])
    assert seal_static(sealer, octets(case["iv"]), *identity, payload).hex() == case["packet"]
    opened = open_static(CbcHmac(key.receive_key, case["auth"], key.receive_hmac), octets(case["packet"]))
    assert (opened.packet_id, opened.packet_time, opened.payload) == (*identity, payload)


@pytest.mark.parametrize("case", cases("epoch_keys"))
def test_epoch_keys(case: dict[str, Any]) -> None:
    role = Role.CLIENT if case["direction"] == "client_to_server" else Role.SERVER
    cipher = Cipher.parse(case["cipher"])
    first = slice_keys(octets(case["key_material"]), role, cipher, KeyId(0), is_epoch=True)
    key = EpochKey(1, bytes(first.send_key), cipher)
    for expected in case["epochs"]:
        while key.epoch < expected["epoch"]:
            key = key.next()
        assert key.secret.hex() == expected["epoch_key"]
        assert key.cipher_key.hex() == expected["cipher_key"]
        assert key.iv.hex() == expected["iv"]


@pytest.mark.parametrize("case", cases("aead_epoch_seal"))
def test_aead_epoch_seal(case: dict[str, Any]) -> None:
    aead = data_packet.make_aead(Cipher.parse(case["cipher"]), octets(case["cipher_key"]))
    header = data_packet.serialize_data_header(case["key_id"], case["peer_id"])
    iv, plaintext = octets(case["iv"]), octets(case["plaintext"])
    sealed = seal_epoch(aead, iv, header, case["epoch"], case["packet_id"], plaintext)
    assert sealed.hex() == case["packet"]
    opened = open_epoch(aead, iv, sealed)
    assert (opened.epoch, opened.counter, opened.payload) == (case["epoch"], case["packet_id"], plaintext)


@pytest.mark.parametrize("case", cases("key_method_2"))
def test_key_method_2(case: dict[str, Any]) -> None:
    data = octets(case["message"])
    if case["direction"] == "client-to-server":
        assert serialize_client_key_message(parse_client_key_message(data)) == data
    else:
        assert serialize_server_key_message(parse_server_key_message(data)) == data


def test_constants() -> None:
    constants = unit_cases()["constants"]
    assert octets(constants["ping_payload"]) == occ.PING
    assert octets(constants["occ_magic"]) == occ.OCC_MAGIC
    types = {kind.name.lower().replace("_", "-"): int(kind) for kind in occ.OccType}
    assert types == constants["occ_messages"]
    assert sorted(constants["opcodes"].values()) == sorted(int(opcode) for opcode in Opcode)
