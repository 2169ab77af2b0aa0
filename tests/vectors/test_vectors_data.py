"""Every AEAD data packet of the captures, opened with keys sliced from the key material, and sealed again."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import pytest

from bridged.errors import RemoteProtocolError
from bridged.protocol.keys.epoch_keys import EpochKey
from bridged.protocol.packets.cbc_packet import CbcHmac, open_cbc, seal_cbc
from bridged.protocol.packets.epoch_packet import open_epoch, parse_epoch
from tests.lab.epoch_sealing import seal_epoch
from bridged.protocol.packets.static_packet import open_static
from bridged.protocol.keys.cipher import Cipher
from bridged.protocol.keys.key_derivation import DataKey, slice_keys, static_data_key
from bridged.protocol.keys.replay import ReplayWindow
from bridged.protocol.packets import data_packet
from bridged.protocol.packets.fragments import Reassembly
from bridged.protocol.packets.framing import UNWRAPPERS, WRAPPERS, Framing
from bridged.protocol.keys.static_key import StaticKey
from bridged.protocol.packets.occ import PING, OccType, is_occ, parse_occ, serialize_occ
from bridged.protocol.packets.packet import Opcode
from bridged.protocol.role import Role
from bridged.units import KeyId
from tests.vectors.vector_files import SCENARIOS, data_frames, load, sender

# As secrets.json names a framing -> as the contract does.
FRAMINGS: dict[str, Framing] = {
    "none": "none",
    "comp-lzo-no": "comp-lzo",
    "stub": "stub",
    "stub-v2": "stub-v2",
}
# Scenario -> data packets checked here.
COVERED = {
    "a01-tlscrypt-aes256gcm": 89,
    "a02-tlsauth-sha1-aes128gcm-prf": 92,
    "a03-plain-chacha20": 88,
    "a04-tcp-tlscryptv2-aes256gcm": 76,
    "a05-tlsauth-sha256-aes256cbc": 89,
    "a06-fragment-aes256gcm": 117,
    "a08-userpass-authtoken": 67,
    "a09-loss-20-percent": 55,
    "a10-comp-lzo-no": 70,
    "a11-compress-stub-v2": 68,
    "a12-aead-epoch": 63,
    "a13-compress-stub": 64,
    "a14-p2p-tls": 65,
    "a15-key-id-wrap": 266,
    "a16-p2p-tls-data-v1-prf": 66,
}


def keys_of(scenario: str, frame: dict[str, Any], role: Role) -> DataKey:
    secrets = load(scenario, "secrets")
    state = next(state for state in secrets["key_states"] if state["id"] == frame["key_state"])
    cipher = Cipher.parse(secrets["data_channel"]["cipher"])
    return sliced(secrets, state, role, cipher)


def sliced(secrets: dict[str, Any], state: dict[str, Any], role: Role, cipher: Cipher) -> DataKey:
    channel = secrets["data_channel"]
    digest, is_epoch = channel["auth"] or "SHA1", channel["format"] == "aead-epoch"
    material, key_id = bytes.fromhex(state["key2"]), KeyId(state["key_id"])
    return slice_keys(material, role, cipher, key_id, digest=digest, is_epoch=is_epoch)


def epoch_of(key: DataKey, secret: bytes, epoch: int) -> EpochKey:
    found = EpochKey(1, secret, key.cipher)
    while found.epoch < epoch:
        found = found.next()
    return found


def opened(key: DataKey, wire: bytes) -> data_packet.OpenedData:
    if key.is_epoch:
        # What names no epoch of the capture is opened with the last one, and fails.
        epoch = epoch_of(key, bytes(key.receive_key), min(20, parse_epoch(wire)[1]))
        packet = open_epoch(data_packet.make_aead(key.cipher, epoch.cipher_key), epoch.iv, wire)
        return data_packet.OpenedData(packet.header, packet.counter, packet.payload)
    if key.digest is not None:
        return open_cbc(CbcHmac(key.receive_key, key.digest, key.receive_hmac), wire)
    return data_packet.open(data_packet.make_aead(key.cipher, key.receive_key), bytes(key.receive_iv), wire)


def sealed(key: DataKey, header: bytes, packet_id: int, payload: bytes, wire: bytes) -> bytes:
    """`wire`: the packet as it was, of which only the random IV and the epoch are used."""
    if key.is_epoch:
        epoch = epoch_of(key, bytes(key.send_key), parse_epoch(wire)[1])
        aead = data_packet.make_aead(key.cipher, epoch.cipher_key)
        return seal_epoch(aead, epoch.iv, header, epoch.epoch, packet_id, payload)
    if key.digest is not None:
        cbc = CbcHmac(key.send_key, key.digest, key.send_hmac)
        iv_at = len(header) + cbc.mac_length
        return seal_cbc(cbc, wire[iv_at : iv_at + 16], header, packet_id, payload)
    aead = data_packet.make_aead(key.cipher, key.send_key)
    return data_packet.seal(aead, bytes(key.send_iv), header, packet_id, payload)


STATIC = "a07-static-key-aes256cbc"


def test_packets_of_a_static_key_open_to_the_plaintext_and_pass_the_window_once() -> None:
    secrets = load(STATIC, "secrets")
    (state,) = secrets["key_states"]
    window, seen = ReplayWindow(), Counter[str]()
    for frame in data_frames(STATIC):
        key = static_data_key(
            StaticKey(bytes.fromhex(state["static_key"])), None, Cipher.AES_256_CBC, "SHA256", 0
        )
        opened = open_static(CbcHmac(key.receive_key, "SHA256", key.receive_hmac), bytes.fromhex(frame["wire"]))
        assert opened.payload.hex() == frame["plaintext"]
        assert (opened.packet_id, opened.packet_time) == (frame["packet_id"], frame["packet_time"])
        seen[frame["kind"]] += 1
        if sender(frame) is Role.CLIENT:
            assert window.accept(opened.packet_id)
    assert seen["frame"] and seen["ping"] and seen["occ"]


def test_every_scenario_of_the_folder_is_accounted_for() -> None:
    assert set(COVERED) | {STATIC} == set(SCENARIOS)
    assert {name: len(data_frames(name)) for name in COVERED} == COVERED


@pytest.mark.parametrize("scenario", COVERED)
def test_sliced_keys_are_those_that_openvpn_used(scenario: str) -> None:
    secrets = load(scenario, "secrets")
    for state in secrets["key_states"]:
        cipher = Cipher.parse(secrets["data_channel"]["cipher"])
        key = sliced(secrets, state, Role.CLIENT, cipher)
        if key.is_epoch:
            assert key.send_key.hex() == state["client_to_server"]["epoch_key_1"]
            assert key.receive_key.hex() == state["server_to_client"]["epoch_key_1"]
            continue
        second = "hmac_key" if cipher.is_cbc else "implicit_iv"
        sending, receiving = state["client_to_server"], state["server_to_client"]
        assert key.send_key.hex() == sending["cipher_key"]
        assert (key.send_hmac or key.send_iv).hex() == sending[second]
        assert key.receive_key.hex() == receiving["cipher_key"]
        assert (key.receive_hmac or key.receive_iv).hex() == receiving[second]


@pytest.mark.parametrize("scenario", COVERED)
def test_data_packets_open_to_the_plaintext(scenario: str) -> None:
    for frame in data_frames(scenario):
        key = keys_of(scenario, frame, sender(frame).peer)
        packet = opened(key, bytes.fromhex(frame["wire"]))
        assert packet.payload.hex() == frame["plaintext"]
        assert packet.packet_id == frame["packet_id"]
        assert packet.header.key_id == frame["key_id"] == key.key_id
        assert packet.header.opcode == frame["opcode_number"]
        assert packet.header.peer_id == frame.get("peer_id")


@pytest.mark.parametrize("scenario", COVERED)
def test_data_packets_seal_to_the_same_octets(scenario: str) -> None:
    for frame in data_frames(scenario):
        key = keys_of(scenario, frame, sender(frame))
        header = data_packet.serialize_data_header(frame["key_id"], frame.get("peer_id"))
        payload = bytes.fromhex(frame["plaintext"])
        wire = sealed(key, header, frame["packet_id"], payload, bytes.fromhex(frame["wire"]))
        assert wire.hex() == frame["wire"]
        if key.is_epoch:
            assert len(wire) == len(payload) + 28
        if key.cipher.is_cbc or key.is_epoch:
            continue
        overhead = data_packet.OVERHEAD_V1 if len(header) == 1 else data_packet.OVERHEAD_V2
        assert len(wire) == len(payload) + overhead


@pytest.mark.parametrize("scenario", COVERED)
def test_an_octet_changed_is_a_tag_mismatch_except_in_the_first_octet_of_data_v1(scenario: str) -> None:
    for frame in data_frames(scenario)[:10]:
        key = keys_of(scenario, frame, sender(frame).peer)
        wire = bytes.fromhex(frame["wire"])
        other_key_id = bytes((wire[0] ^ 1,)) + wire[1:]
        begin = 1
        if key.cipher.is_cbc:
            # The HMAC does not cover the header.
            begin = 4
        elif frame["opcode_number"] == Opcode.DATA_V1:
            assert opened(key, other_key_id).payload
        else:
            with pytest.raises(RemoteProtocolError) as error:
                opened(key, other_key_id)
            assert error.value.code == "tag_mismatch"
        for position in range(begin, len(wire), max(1, len(wire) // 30)):
            changed = bytearray(wire)
            changed[position] ^= 0x80
            with pytest.raises(RemoteProtocolError) as error:
                opened(key, bytes(changed))
            assert error.value.code == "tag_mismatch"


@pytest.mark.parametrize("scenario", COVERED)
def test_packet_ids_pass_the_replay_window_once(scenario: str) -> None:
    windows: dict[tuple[int, str, int], ReplayWindow] = {}
    for frame in data_frames(scenario):
        window = windows.setdefault(
            (frame["key_state"], frame["direction"], frame.get("epoch", 0)), ReplayWindow()
        )
        assert window.accept(frame["packet_id"])
        assert window.verdict(frame["packet_id"]) == "replay"


def unframed(scenario: str, plaintext: bytes) -> bytes:
    framing = FRAMINGS[load(scenario, "secrets")["data_channel"]["compression"]]
    return plaintext if framing == "none" else UNWRAPPERS[framing](plaintext)


@pytest.mark.parametrize("scenario", ["a10-comp-lzo-no", "a11-compress-stub-v2", "a13-compress-stub"])
def test_payloads_are_framed_to_the_same_octets_but_for_an_escape_that_openvpn_gets_wrong(
    scenario: str,
) -> None:
    wrap = WRAPPERS[FRAMINGS[load(scenario, "secrets")["data_channel"]["compression"]]]
    escapes = 0
    for frame in data_frames(scenario):
        plaintext = bytes.fromhex(frame["plaintext"])
        framed = wrap(unframed(scenario, plaintext))
        if "stub_v2_escape" in frame:
            # OpenVPN writes 50 0A, and drops what it wrote; every receiver takes 50 00.
            escapes += 1
            plaintext = b"\x50\x00" + plaintext[2:]
        assert framed == plaintext
    assert escapes == (3 if scenario == "a11-compress-stub-v2" else 0)


@pytest.mark.parametrize("scenario", COVERED)
def test_pings_and_occ_messages_are_told_from_frames(scenario: str) -> None:
    kinds: Counter[str] = Counter()
    cuts = load(scenario, "secrets")["data_channel"]["fragment"]
    joined: defaultdict[str, Reassembly] = defaultdict(Reassembly)
    for frame in data_frames(scenario):
        plaintext = bytes.fromhex(frame["plaintext"])
        whole = joined[frame["direction"]].take(plaintext, frame["time"]) if cuts else plaintext
        assert (whole is None) == (frame["kind"] == "fragment")
        if whole is None:
            continue
        payload = unframed(scenario, whole)
        assert frame["kind"] != "frame" or payload.hex() == frame["frame"]
        kinds[frame["kind"]] += 1
        assert (payload == PING) == (frame["kind"] == "ping")
        assert is_occ(payload) == (frame["kind"] == "occ")
        if frame["kind"] == "occ":
            message = parse_occ(payload)
            assert message.type.name.lower().replace("_", "-") == frame["occ"]
            assert serialize_occ(message) == payload
            assert message.type is OccType.EXIT
    assert kinds["frame"] and kinds["ping"]
