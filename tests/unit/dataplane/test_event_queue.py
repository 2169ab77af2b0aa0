"""The event queue and the limit by source."""

from __future__ import annotations

import itertools
import select

from bridged.addresses import Endpoint
from bridged.dataplane.contract import (
    EVENT_QUEUE_EVENTS,
    OCC_WAITING,
    DataplaneEvent,
    KeyNearLimit,
    OccReceived,
    PeerExpired,
    PeerFloated,
    Station,
    StationMoved,
    TapFailed,
)
from bridged.dataplane.portable.control.control_queue import (
    SOURCES_REMEMBERED,
    ControlQueue,
    Sender,
    SourceLimit,
)
from bridged.dataplane.portable.control.events import EventQueue
from bridged.units import KeyId, PeerHandle


def test_a_source_has_a_burst_and_then_a_rate() -> None:
    limit = SourceLimit()
    allowed = [limit.allows("a", 0.0, burst=5, rate=2) for _ in range(8)]
    assert allowed == [True] * 5 + [False] * 3
    assert limit.allows("a", 0.5, burst=5, rate=2)
    assert not limit.allows("a", 0.5, burst=5, rate=2)
    assert limit.allows("b", 0.5, burst=5, rate=2)
    assert [limit.allows("a", 100.0, burst=5, rate=2) for _ in range(6)] == [True] * 5 + [False]


def test_the_number_of_sources_is_bounded_and_the_longest_unheard_goes_first() -> None:
    limit = SourceLimit()
    for number in range(SOURCES_REMEMBERED * 2):
        limit.allows(f"source-{number}", 0.0, burst=1, rate=0)
        limit.allows("steady", 0.0, burst=1, rate=0)
    assert len(limit._buckets) == SOURCES_REMEMBERED
    assert not limit.allows("steady", 0.0, burst=1, rate=0)
    assert limit.allows("source-1", 0.0, burst=1, rate=0)


def test_events_beyond_the_capacity_are_refused_and_room_comes_back() -> None:
    queue = EventQueue()
    event = StationMoved(Station(0, b"\2\0\0\0\0\1"), None, PeerHandle(1))
    assert all(queue.put(event) for _ in range(EVENT_QUEUE_EVENTS))
    assert not queue.put(event)
    assert queue.event_depth == EVENT_QUEUE_EVENTS
    assert len(queue.take(10)) == 10
    assert queue.put(event)
    queue.close()
    queue.close()


def test_a_datagram_too_large_for_control_is_refused() -> None:
    queue = EventQueue()
    assert queue.put_control(bytes(4097), Endpoint("127.0.0.1", 1), 0.0, PeerHandle(1)) == "bad_length"
    assert queue.put_control(bytes(4096), Endpoint("127.0.0.1", 1), 0.0, PeerHandle(1)) is None
    assert select.select([queue.fileno()], [], [], 0)[0]
    queue.close()


def test_all_handshakes_of_one_host_have_one_limit() -> None:
    queue = ControlQueue()
    passed = 0
    for port in range(1, 257):
        source = Endpoint("10.0.0.1", port)
        queue.expect(source)
        passed += sum(queue.put(b"x", source, 0.0, Sender.STRANGER) != "source_rate" for _ in range(64))
    assert passed == 8192
    other = Endpoint("10.0.0.2", 1)
    queue.expect(other)
    queue.take(1000)
    assert queue.put(b"x", other, 0.0, Sender.STRANGER) is None


def test_a_peer_gains_nothing_by_floating_from_port_to_port() -> None:
    queue = ControlQueue()

    def says(peer: int, port: int) -> str | None:
        return queue.put(b"x", Endpoint("10.0.0.1", port), 0.0, Sender.PEER, peer=PeerHandle(peer))

    assert sum(says(7, port) is None for port in range(1, 3000)) == 1024
    assert says(7, 1) == "source_rate"
    assert says(8, 1) is None


def test_one_peer_s_occ_messages_leave_room_for_others() -> None:
    queue = EventQueue()
    for _ in range(2):
        assert sum(queue.put(OccReceived(PeerHandle(1), b"occ")) for _ in range(100)) == OCC_WAITING
        assert queue.put(OccReceived(PeerHandle(2), b"occ"))
        assert len(queue.take(1000)) == OCC_WAITING + 1
    queue.close()


def test_state_is_never_refused_nor_lost_and_is_told_once() -> None:
    queue = EventQueue()
    while queue.put(StationMoved(Station(0, b"\2\0\0\0\0\1"), None, PeerHandle(1))):
        pass
    states: list[DataplaneEvent] = []
    for number in range(2000):
        handle = PeerHandle(number)
        states += [PeerExpired(handle), KeyNearLimit(handle, KeyId(1), "bytes")]
    for _ in range(3):
        assert all(queue.put(state) for state in [*states, TapFailed(5), TapFailed(19)])
    assert queue.take(100_000)[EVENT_QUEUE_EVENTS:] == [*states, TapFailed(19)]
    assert queue.event_depth == 0
    assert queue.put(states[0])
    assert queue.take(9) == [states[0]], "the next time it is told again"
    queue.close()


def test_a_peer_that_moves_about_has_one_event_and_none_once_it_is_back() -> None:
    queue = EventQueue()
    there = [Endpoint("10.0.0.1", port) for port in range(1, 5)]

    def moves(*ports: int) -> None:
        for before, now in itertools.pairwise(ports):
            assert queue.put(PeerFloated(PeerHandle(7), there[now], there[before]))

    moves(0, 1, *(2, 3) * 1000)
    assert queue.take(9) == [PeerFloated(PeerHandle(7), there[3], there[0])]
    moves(3, 1, 3)
    assert queue.take(9) == []
    moves(3, 1)
    queue.put(PeerExpired(PeerHandle(8)))
    queue.forget(PeerHandle(7))
    assert queue.take(9) == [PeerExpired(PeerHandle(8))]
    queue.close()


def test_all_addresses_of_an_ipv6_prefix_are_one_stranger() -> None:
    queue = ControlQueue()
    passed = [
        queue.put(b"x", Endpoint(f"2001:db8::{number:x}", 5), 0.0, Sender.STRANGER) is None
        for number in range(1, 3000)
    ]
    assert sum(passed) == 256
