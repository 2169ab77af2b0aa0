"""Every control packet that real OpenVPN sent in the captures, opened and made again byte for byte."""

from __future__ import annotations

from collections import Counter, defaultdict

import pytest

from bridged.errors import RemoteProtocolError
from bridged.protocol.packets.packet import Opcode, parse_body, parse_header, serialize_body
from bridged.protocol.packets.wrap import WrapChannel
from bridged.protocol.session.reliable import ReceiveVerdict, ReceiveWindow
from tests.vectors.vector_files import SCENARIOS, control_frames, load, sender, wrap_keys

# Scenario -> control packets checked here. README.md has the same numbers.
COVERED = {
    "a01-tlscrypt-aes256gcm": 42,
    "a02-tlsauth-sha1-aes128gcm-prf": 22,
    "a03-plain-chacha20": 31,
    "a04-tcp-tlscryptv2-aes256gcm": 27,
    "a05-tlsauth-sha256-aes256cbc": 45,
    "a06-fragment-aes256gcm": 31,
    "a07-static-key-aes256cbc": 0,
    "a08-userpass-authtoken": 46,
    "a09-loss-20-percent": 55,
    "a10-comp-lzo-no": 41,
    "a11-compress-stub-v2": 31,
    "a12-aead-epoch": 31,
    "a13-compress-stub": 31,
    "a14-p2p-tls": 26,
    "a15-key-id-wrap": 136,
    "a16-p2p-tls-data-v1-prf": 26,
}


def test_every_scenario_of_the_folder_is_accounted_for() -> None:
    assert set(COVERED) == set(SCENARIOS)
    assert {name: len(control_frames(name)) for name in SCENARIOS} == COVERED
    wrapped = sum("wrap" in frame for name in SCENARIOS for frame in load(name, "frames"))
    assert wrapped == sum(COVERED.values()) == 621


@pytest.mark.parametrize("scenario", [name for name, count in COVERED.items() if count])
def test_control_packets_unwrap_to_what_was_recorded(scenario: str) -> None:
    for frame in control_frames(scenario):
        opened = wrap_keys(scenario, frame, sender(frame).peer).open(bytes.fromhex(frame["wire"]))
        assert opened.header.opcode == frame["opcode_number"]
        assert opened.header.key_id == frame["key_id"]
        assert opened.header.session_id.hex() == frame["session_id"]
        assert opened.body.hex() == frame["clear"]
        assert (opened.packet_id, opened.packet_time) == (
            frame.get("packet_id", 0),
            frame.get("packet_time", 0),
        )
        body = parse_body(opened.header.opcode, opened.body)
        assert list(body.acks) == frame["acks"]
        assert (body.remote_session_id.hex() if body.remote_session_id else None) == frame.get(
            "remote_session_id"
        )
        assert body.message_id == frame.get("message_id")
        assert body.payload.hex() == (frame.get("payload") or "")


@pytest.mark.parametrize("scenario", [name for name, count in COVERED.items() if count])
def test_control_packets_serialize_and_seal_to_the_same_octets(scenario: str) -> None:
    for frame in control_frames(scenario):
        wire = bytes.fromhex(frame["wire"])
        opened = wrap_keys(scenario, frame, sender(frame).peer).open(wire)
        body = serialize_body(parse_body(opened.header.opcode, opened.body))
        keys = wrap_keys(scenario, frame, sender(frame))
        assert keys.seal(opened.header, opened.packet_id, opened.packet_time, body) == wire


@pytest.mark.parametrize("scenario", [name for name, count in COVERED.items() if count])
def test_an_octet_changed_anywhere_in_a_wrapped_packet_is_noticed(scenario: str) -> None:
    for frame in control_frames(scenario)[:12]:
        if frame["wrap"] == "none":
            continue
        keys = wrap_keys(scenario, frame, sender(frame).peer)
        wire = bytes.fromhex(frame["wire"])
        for position in range(0, len(wire), max(1, len(wire) // 40)):
            changed = bytearray(wire)
            changed[position] ^= 0x10
            with pytest.raises(RemoteProtocolError):
                keys.open(bytes(changed))


@pytest.mark.parametrize("scenario", [name for name, count in COVERED.items() if count])
def test_the_replay_window_takes_a_captured_session_once_and_refuses_it_the_second_time(
    scenario: str,
) -> None:
    channels: dict[tuple[str, str], WrapChannel] = {}
    verdicts: Counter[str] = Counter()
    frames = [frame for frame in control_frames(scenario) if frame["wrap"] != "none"]
    for frame in frames:
        dynamic = frame["wrap"] == "dynamic-tls-crypt"
        # A session has its client's key; the listener has that of the server.
        in_session = {name: value for name, value in frame.items() if name != "wkc"}
        channel = channels.setdefault(
            (frame["session_id"], str(dynamic)),
            WrapChannel(wrap_keys(scenario, in_session, sender(frame).peer), packet_time=0),
        )
        channel.record(channel.keys.open(bytes.fromhex(frame["wire"])), now=frame["time"])
    for frame in frames:
        channel = channels[frame["session_id"], str(frame["wrap"] == "dynamic-tls-crypt")]
        try:
            channel.record(channel.keys.open(bytes.fromhex(frame["wire"])), now=frame["time"])
        except RemoteProtocolError as error:
            verdicts[error.code] += 1
    assert verdicts.total() == len(frames)
    assert set(verdicts) <= {"replay", "replay_too_old"}


@pytest.mark.parametrize("scenario", [name for name, count in COVERED.items() if count])
def test_the_receive_window_delivers_each_message_once_in_order(scenario: str) -> None:
    windows: dict[tuple[str, int, float], ReceiveWindow] = {}
    delivered: dict[tuple[str, int, float], list[int]] = defaultdict(list)
    wanted: dict[tuple[str, int, float], set[int]] = defaultdict(set)
    generation: Counter[tuple[str, int]] = Counter()
    for frame in control_frames(scenario):
        if frame.get("delivered") is False or frame.get("message_id") is None:
            continue
        stream = (frame["session_id"], frame["key_id"])
        opcode = Opcode(frame["opcode_number"])
        if opcode is Opcode.SOFT_RESET_V1 and (
            # Key ids come round again (a15): message id 0 then starts a new stream.
            max(delivered.get((*stream, generation[stream]), [0])) > 0
        ):
            generation[stream] += 1
        key = (*stream, generation[stream])
        window = windows.setdefault(key, ReceiveWindow())
        verdict = window.receive(frame["message_id"], opcode, bytes.fromhex(frame.get("payload") or ""))
        assert verdict is not ReceiveVerdict.OUTSIDE
        wanted[key].add(frame["message_id"])
        while (packet := window.pop()) is not None:
            delivered[key].append(packet.message_id)
    assert delivered
    for key, ids in wanted.items():
        assert delivered[key] == sorted(ids), key


@pytest.mark.parametrize("scenario", [name for name, count in COVERED.items() if count])
def test_the_header_reads_the_same_without_any_key(scenario: str) -> None:
    for frame in control_frames(scenario):
        header = parse_header(bytes.fromhex(frame["wire"]))
        assert (int(header.opcode), header.key_id, header.session_id.hex()) == (
            frame["opcode_number"],
            frame["key_id"],
            frame["session_id"],
        )
