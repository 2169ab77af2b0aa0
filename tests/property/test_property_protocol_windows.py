"""Replay windows against a slow reference; reliability windows over a wire that loses and reorders."""

from __future__ import annotations

import random

from hypothesis import example, given, settings
from hypothesis import strategies as st

from bridged.protocol.keys.replay import ReplayWindow
from bridged.protocol.packets.packet import Opcode
from bridged.protocol.packets.wrap.channel import WrapReplayWindow
from bridged.protocol.session.reliable import (
    RECEIVE_WINDOW,
    SEND_WINDOW,
    ReceiveVerdict,
    ReceiveWindow,
    SendWindow,
)


class SlowWindow:
    """Remembers every id: the rule of data.md#3-2 as it reads."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.seen: set[int] = set()

    def verdict(self, packet_id: int) -> str | None:
        highest = max(self.seen, default=0)
        if packet_id in (0, highest):
            return "replay"
        if packet_id > highest:
            return None
        if highest - packet_id >= self.size:
            return "replay_too_old"
        return "replay" if packet_id in self.seen else None


@given(
    st.sampled_from([0, 1, 2, 8, 64, 1024]),
    st.lists(st.integers(0, 40) | st.integers(0, 3000), max_size=120),
)
def test_the_bitmap_decides_as_the_slow_reference(size: int, packet_ids: list[int]) -> None:
    fast, slow = ReplayWindow(size), SlowWindow(size)
    for packet_id in packet_ids:
        expected = slow.verdict(packet_id)
        assert fast.verdict(packet_id) == expected
        assert fast.check(packet_id) is (expected is None)
        assert fast.accept(packet_id) is (expected is None)
        if expected is None:
            slow.seen.add(packet_id)


@given(
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, 3), st.floats(0, 4, width=16)), max_size=100),
)
def test_the_wrap_window_never_takes_an_id_twice_nor_a_late_one(
    arrivals: list[tuple[int, int, float]],
) -> None:
    window = WrapReplayWindow()
    taken: dict[tuple[int, int], float] = {}
    now = 0.0
    for packet_id, time, pause in arrivals:
        now += pause
        newest = max((seen for _, seen in taken), default=-1)
        current = {seen_id: when for (seen_id, seen), when in taken.items() if seen == newest}
        reason = window.accept(packet_id, time, now)
        if reason is None:
            assert packet_id > 0 and (packet_id, time) not in taken and time >= newest
            if time == newest:
                highest = max(current)
                assert packet_id > highest - 64
                later = [when for seen_id, when in current.items() if seen_id > packet_id]
                assert not later or now - min(later) <= 15.0
            taken[packet_id, time] = now
        elif packet_id and time == newest and packet_id > max(current, default=0):
            raise AssertionError("a new highest id was refused")


@settings(max_examples=60, deadline=None)
@example(seed=151350321, loss=0.4, count=34)
@given(
    seed=st.integers(0, 1 << 32),
    loss=st.sampled_from([0.0, 0.1, 0.4]),
    count=st.integers(1, 40),
)
def test_messages_cross_a_noisy_wire_in_order_and_once(seed: int, loss: float, count: int) -> None:
    noise = random.Random(seed)
    sender, receiver = SendWindow(), ReceiveWindow()
    now, pushed = 0.0, 0
    delivered: list[bytes] = []
    wire: list[tuple[float, int, Opcode, bytes]] = []
    acks: list[tuple[float, tuple[int, ...]]] = []
    # Repeats are up to a minute apart: a wire that is bad for long needs hours of this clock.
    for _ in range(100_000):
        while pushed < count and sender.has_room:
            sender.push(Opcode.CONTROL_V1, bytes((pushed,)), now)
            pushed += 1
        for packet in sender.due(now):
            for _ in range(1 + (noise.random() < 0.1)):
                if noise.random() >= loss:
                    arrival = now + noise.random()
                    wire.append((arrival, packet.message_id, packet.opcode, packet.payload))
        wire.sort()
        while wire and wire[0][0] <= now:
            _, message_id, opcode, payload = wire.pop(0)
            assert receiver.receive(message_id, opcode, payload) is not ReceiveVerdict.OUTSIDE
            while (received := receiver.pop()) is not None:
                delivered.append(received.payload)
        if receiver.has_new_acks and noise.random() >= loss:
            acks.append((now + noise.random(), receiver.take_acks(8)))
        acks.sort()
        while acks and acks[0][0] <= now:
            sender.acknowledge(acks.pop(0)[1], now)
        if pushed == count and sender.is_empty:
            break
        now += 0.25
    assert delivered == [bytes((number,)) for number in range(count)]
    assert sender.is_empty and sender.next_message_id == receiver.next_message_id == count


@given(st.lists(st.integers(0, 60), max_size=120), st.integers(0, 1))
def test_the_receive_window_is_bounded_and_acks_only_what_it_took(arrivals: list[int], first: int) -> None:
    window = ReceiveWindow(first)
    stored: set[int] = set()
    for message_id in arrivals:
        verdict = window.receive(message_id, Opcode.CONTROL_V1, b"")
        if message_id >= window.next_message_id + RECEIVE_WINDOW:
            assert verdict is ReceiveVerdict.OUTSIDE
        elif message_id < first or message_id in stored:
            assert verdict is ReceiveVerdict.DUPLICATE
        else:
            assert verdict is ReceiveVerdict.STORED
            stored.add(message_id)
        while (packet := window.pop()) is not None:
            assert packet.message_id in stored
        acks = window.take_acks(8)
        assert len(acks) == len(set(acks)) <= 8
        assert set(acks) <= stored | {0}
        if verdict is not ReceiveVerdict.OUTSIDE:
            assert acks[0] == message_id
        held = [number for number in stored if number >= window.next_message_id]
        assert len(held) < RECEIVE_WINDOW


@given(st.lists(st.sampled_from(["push", "ack", "old", "due"]), max_size=100), st.randoms())
def test_the_send_window_never_exceeds_its_size(actions: list[str], noise: random.Random) -> None:
    window, now = SendWindow(), 0.0
    outstanding: set[int] = set()
    for action in actions:
        now += 0.5
        if action == "push" and window.has_room:
            outstanding.add(window.push(Opcode.CONTROL_V1, b"", now))
        elif action == "ack" and outstanding:
            chosen = noise.choice(sorted(outstanding))
            window.acknowledge([chosen], now)
            outstanding.discard(chosen)
        elif action == "old":
            window.acknowledge([noise.randrange(window.next_message_id, 1 << 32)], now)
        elif action == "due":
            sent = [packet.message_id for packet in window.due(now)]
            assert sent == sorted(sent) and set(sent) <= outstanding
        oldest = min(outstanding, default=window.next_message_id)
        assert window.next_message_id - oldest <= SEND_WINDOW
        assert window.has_room is (window.next_message_id - oldest < SEND_WINDOW)
        assert window.is_empty is (not outstanding) is (window.next_timeout() is None)
