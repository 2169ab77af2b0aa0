"""Every AEAD data packet of the captures, opened with keys sliced from the key material, and sealed again."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from tests.vectors.vector_files import DATA_NOT_YET, FRAMING_NOT_YET, SCENARIOS, data_frames, load, sender

from bridged.errors import RemoteProtocolError
from bridged.protocol.packets import data_packet
from bridged.protocol.keys.cipher import Cipher
from bridged.protocol.keys.key_derivation import DataKey, slice_keys
from bridged.protocol.packets.occ import PING, OccType, is_occ, parse_occ, serialize_occ
from bridged.protocol.packets.packet import Opcode
from bridged.protocol.keys.replay import ReplayWindow
from bridged.protocol.role import Role
from bridged.units import KeyId

# Scenario -> data packets checked here; the others are in DATA_NOT_YET.
COVERED = {
    "a01-tlscrypt-aes256gcm": 89,
    "a02-tlsauth-sha1-aes128gcm-prf": 92,
    "a03-plain-chacha20": 88,
    "a04-tcp-tlscryptv2-aes256gcm": 76,
    "a06-fragment-aes256gcm": 117,
    "a08-userpass-authtoken": 67,
    "a09-loss-20-percent": 55,
    "a10-comp-lzo-no": 70,
    "a11-compress-stub-v2": 68,
    "a13-compress-stub": 64,
    "a14-p2p-tls": 65,
    "a15-key-id-wrap": 266,
    "a16-p2p-tls-data-v1-prf": 66,
}


def keys_of(scenario: str, frame: dict[str, Any], role: Role) -> DataKey:
    secrets = load(scenario, "secrets")
    state = next(state for state in secrets["key_states"] if state["id"] == frame["key_state"])
    cipher = Cipher.parse(secrets["data_channel"]["cipher"])
    return slice_keys(bytes.fromhex(state["key2"]), role, cipher, KeyId(state["key_id"]))


def test_every_scenario_of_the_folder_is_accounted_for() -> None:
    assert set(COVERED) | set(DATA_NOT_YET) == set(SCENARIOS)
    assert not set(COVERED) & set(DATA_NOT_YET)
    assert set(FRAMING_NOT_YET) <= set(COVERED)
    assert {name: len(data_frames(name)) for name in COVERED} == COVERED
    for scenario in DATA_NOT_YET:
        assert load(scenario, "secrets")["data_channel"]["format"] != "aead"


@pytest.mark.parametrize("scenario", COVERED)
def test_sliced_keys_are_those_that_openvpn_used(scenario: str) -> None:
    secrets = load(scenario, "secrets")
    for state in secrets["key_states"]:
        cipher = Cipher.parse(secrets["data_channel"]["cipher"])
        key = slice_keys(bytes.fromhex(state["key2"]), Role.CLIENT, cipher, KeyId(state["key_id"]))
        assert key.send_key.hex() == state["client_to_server"]["cipher_key"]
        assert key.send_iv.hex() == state["client_to_server"]["implicit_iv"]
        assert key.receive_key.hex() == state["server_to_client"]["cipher_key"]
        assert key.receive_iv.hex() == state["server_to_client"]["implicit_iv"]


@pytest.mark.parametrize("scenario", COVERED)
def test_data_packets_open_to_the_plaintext(scenario: str) -> None:
    for frame in data_frames(scenario):
        key = keys_of(scenario, frame, sender(frame).peer)
        aead = data_packet.make_aead(key.cipher, key.receive_key)
        opened = data_packet.open(aead, bytes(key.receive_iv), bytes.fromhex(frame["wire"]))
        assert opened.payload.hex() == frame["plaintext"]
        assert opened.packet_id == frame["packet_id"]
        assert opened.header.key_id == frame["key_id"] == key.key_id
        assert opened.header.opcode == frame["opcode_number"]
        assert opened.header.peer_id == frame.get("peer_id")


@pytest.mark.parametrize("scenario", COVERED)
def test_data_packets_seal_to_the_same_octets(scenario: str) -> None:
    for frame in data_frames(scenario):
        key = keys_of(scenario, frame, sender(frame))
        aead = data_packet.make_aead(key.cipher, key.send_key)
        header = data_packet.serialize_data_header(frame["key_id"], frame.get("peer_id"))
        payload = bytes.fromhex(frame["plaintext"])
        wire = data_packet.seal(aead, bytes(key.send_iv), header, frame["packet_id"], payload)
        assert wire.hex() == frame["wire"]
        overhead = data_packet.OVERHEAD_V1 if len(header) == 1 else data_packet.OVERHEAD_V2
        assert len(wire) == len(payload) + overhead


@pytest.mark.parametrize("scenario", COVERED)
def test_an_octet_changed_is_a_tag_mismatch_except_in_the_first_octet_of_data_v1(scenario: str) -> None:
    for frame in data_frames(scenario)[:10]:
        key = keys_of(scenario, frame, sender(frame).peer)
        aead = data_packet.make_aead(key.cipher, key.receive_key)
        wire = bytes.fromhex(frame["wire"])
        other_key_id = bytes((wire[0] ^ 1,)) + wire[1:]
        if frame["opcode_number"] == Opcode.DATA_V1:
            assert data_packet.open(aead, bytes(key.receive_iv), other_key_id).payload
        else:
            with pytest.raises(RemoteProtocolError) as error:
                data_packet.open(aead, bytes(key.receive_iv), other_key_id)
            assert error.value.code == "tag_mismatch"
        for position in range(1, len(wire), max(1, len(wire) // 30)):
            changed = bytearray(wire)
            changed[position] ^= 0x80
            with pytest.raises(RemoteProtocolError) as error:
                data_packet.open(aead, bytes(key.receive_iv), bytes(changed))
            assert error.value.code == "tag_mismatch"


@pytest.mark.parametrize("scenario", COVERED)
def test_packet_ids_pass_the_replay_window_once(scenario: str) -> None:
    windows: dict[tuple[int, str], ReplayWindow] = {}
    for frame in data_frames(scenario):
        window = windows.setdefault((frame["key_state"], frame["direction"]), ReplayWindow())
        assert window.accept(frame["packet_id"])
        assert window.verdict(frame["packet_id"]) == "replay"


@pytest.mark.parametrize("scenario", [name for name in COVERED if name not in FRAMING_NOT_YET])
def test_pings_and_occ_messages_are_told_from_frames(scenario: str) -> None:
    kinds: Counter[str] = Counter()
    for frame in data_frames(scenario):
        payload = bytes.fromhex(frame["plaintext"])
        kinds[frame["kind"]] += 1
        assert (payload == PING) == (frame["kind"] == "ping")
        assert is_occ(payload) == (frame["kind"] == "occ")
        if frame["kind"] == "occ":
            message = parse_occ(payload)
            assert message.type.name.lower().replace("_", "-") == frame["occ"]
            assert serialize_occ(message) == payload
            assert message.type is OccType.EXIT
    assert kinds["frame"] and kinds["ping"]
