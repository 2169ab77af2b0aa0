"""The event queue and the limit by source."""

from __future__ import annotations

import select

from bridged.addresses import Endpoint
from bridged.dataplane.contract import EVENT_QUEUE_EVENTS, PeerExpired
from bridged.dataplane.portable.events import SOURCES_REMEMBERED, EventQueue, SourceLimit
from bridged.units import PeerHandle


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
    event = PeerExpired(PeerHandle(1))
    assert all(queue.put(event) for _ in range(EVENT_QUEUE_EVENTS))
    assert not queue.put(event)
    assert queue.event_depth == EVENT_QUEUE_EVENTS
    assert len(queue.take(10)) == 10
    assert queue.put(event)
    queue.close()
    queue.close()


def test_a_datagram_too_large_for_control_is_refused() -> None:
    queue = EventQueue()
    assert queue.put_control(bytes(4097), Endpoint("127.0.0.1", 1), 0.0, known=True) == "bad_length"
    assert queue.put_control(bytes(4096), Endpoint("127.0.0.1", 1), 0.0, known=True) is None
    assert select.select([queue.fileno()], [], [], 0)[0]
    queue.close()
