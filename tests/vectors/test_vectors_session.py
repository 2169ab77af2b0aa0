"""Captured sessions of real OpenVPN, packet by packet through the receiving side of our sessions."""

from __future__ import annotations

import pytest

from bridged.addresses import Endpoint
from bridged.errors import RemoteProtocolError
from bridged.protocol.packets.packet import Opcode
from bridged.protocol.packets.wrap import WrapChannel
from bridged.protocol.role import Role
from bridged.protocol.session.reliable import ReceiveVerdict, ReceiveWindow
from bridged.protocol.session.wire import SessionWire
from bridged.protocol.strangers.cookie import CookieJar
from bridged.protocol.strangers.listener import Listener, ResetAnswer
from tests.vectors.vector_files import SCENARIOS, control_frames, sender, wrap_keys

SOURCE = Endpoint("192.0.2.1", 40000)
UDP_WITH_HARD_RESET_V2 = [name for name in SCENARIOS if not name.startswith(("a04", "a07"))]


class Receiver:
    """The receiving half of one end of one captured session."""

    def __init__(self, scenario: str, role: Role, local: bytes, remote: bytes | None) -> None:
        self.scenario = scenario
        self.role = role
        self.wire: SessionWire | None = None
        self.ids = local, remote
        self.inboxes: dict[int, ReceiveWindow] = {}
        self.has_dynamic = False

    def take(self, frame: dict) -> None:
        channel = WrapChannel(wrap_keys(self.scenario, frame, self.role), 0)
        if self.wire is None:
            self.wire = SessionWire(self.role, channel, *self.ids, send=lambda _: None)
        if frame["wrap"] == "dynamic-tls-crypt" and not self.has_dynamic:
            self.has_dynamic = True
            self.wire.use_dynamic_wrap(channel)
        opened = self.wire.unwrap(bytes.fromhex(frame["wire"]))
        body = self.wire.take(opened, frame["time"])
        assert list(body.acks) == frame["acks"]
        if body.message_id is None:
            return
        first = 1 if self.role is Role.SERVER and frame["key_id"] == 0 else 0
        inbox = self.inboxes.setdefault(frame["key_id"], ReceiveWindow(first))
        assert (
            inbox.receive(body.message_id, opened.header.opcode, body.payload) is not ReceiveVerdict.OUTSIDE
        )
        while inbox.pop() is not None:
            pass


def pairs(scenario: str) -> dict[str, str]:
    """Session id -> the other end's, from the ack blocks."""
    found: dict[str, str] = {}
    for frame in control_frames(scenario):
        if frame.get("remote_session_id"):
            found[frame["session_id"]] = frame["remote_session_id"]
            found[frame["remote_session_id"]] = frame["session_id"]
    return found


@pytest.mark.parametrize("scenario", UDP_WITH_HARD_RESET_V2)
def test_every_captured_packet_is_accepted_by_the_session_it_belongs_to(scenario: str) -> None:
    peers = pairs(scenario)
    receivers: dict[str, Receiver] = {}
    taken = 0
    for frame in control_frames(scenario):
        own = frame["session_id"]
        if frame["opcode_number"] == Opcode.HARD_RESET_CLIENT_V2 or own not in peers:
            continue
        role = sender(frame).peer
        if own not in receivers:
            remote = bytes.fromhex(own) if role is Role.SERVER else None
            receivers[own] = Receiver(scenario, role, bytes.fromhex(peers[own]), remote)
        receivers[own].take(frame)
        taken += 1
    assert taken >= 18
    assert {receiver.role for receiver in receivers.values()} == {Role.CLIENT, Role.SERVER}


@pytest.mark.parametrize("scenario", UDP_WITH_HARD_RESET_V2)
def test_a_captured_packet_that_comes_again_is_a_replay_where_the_wrap_counts(scenario: str) -> None:
    peers = pairs(scenario)
    frame = next(f for f in control_frames(scenario) if f["opcode_number"] == Opcode.HARD_RESET_SERVER_V2)
    receiver = Receiver(scenario, Role.CLIENT, bytes.fromhex(peers[frame["session_id"]]), None)
    receiver.take(frame)
    if frame["wrap"] == "none":
        receiver.take(frame)
        return
    with pytest.raises(RemoteProtocolError) as caught:
        receiver.take(frame)
    assert caught.value.code == "replay"


@pytest.mark.parametrize("scenario", UDP_WITH_HARD_RESET_V2)
def test_our_listener_answers_a_captured_hard_reset_as_openvpn_did_but_for_ids_and_time(
    scenario: str,
) -> None:
    frames = control_frames(scenario)
    request = next(f for f in frames if f["opcode_number"] == Opcode.HARD_RESET_CLIENT_V2)
    theirs = next(f for f in frames if f["opcode_number"] == Opcode.HARD_RESET_SERVER_V2)
    keys = wrap_keys(scenario, request, Role.SERVER)
    listener = Listener(keys, CookieJar(bytes(32)))
    made = listener.receive(bytes.fromhex(request["wire"]), SOURCE, 0.0, theirs.get("packet_time", 0))
    assert isinstance(made, ResetAnswer)
    opened = wrap_keys(scenario, theirs, Role.CLIENT).open(made.datagram)
    assert opened.body.hex() == theirs["clear"]
    assert (opened.header.opcode, opened.header.key_id) == (theirs["opcode_number"], 0)
    assert (opened.packet_id, opened.packet_time) == (
        theirs.get("packet_id", 0),
        theirs.get("packet_time", 0),
    )
