"""Counters that outlive sessions."""

from __future__ import annotations

import pytest

from bridged.addresses import Endpoint
from bridged.dataplane.contract import PeerCounters, PeerSnapshot
from bridged.protocol.keys.cipher import Cipher
from bridged.protocol.session.terms import Negotiated
from bridged.protocol.session.tls_session import TlsSummary
from bridged.runtime.snapshot import finish
from bridged.runtime.tunnels.statistics import (
    DURATION_BOUNDS,
    PEER_NAMES_MAX,
    Durations,
    PeerBook,
    TunnelStatistics,
    add_counters,
)
from bridged.units import PeerHandle, UnixSeconds

SUMMARY = TlsSummary(
    "TLSv1.3", "TLS_AES_256_GCM_SHA384", "X25519MLKEM768", "site", "00" * 32, UnixSeconds(9.0)
)
TERMS = Negotiated(Cipher.AES_256_GCM, None, 10, 60, 1500, "exporter", False, True, True, SUMMARY)


def figures(frames: int, *, handle: int = 1, seen: float | None = 5.0, port: int = 1) -> PeerSnapshot:
    return PeerSnapshot(
        handle=PeerHandle(handle),
        endpoint=Endpoint("192.0.2.1", port),
        counters=PeerCounters(frames={("receive", "unicast"): frames}, wire_bytes={"receive": 100 * frames}),
        last_seen=None if seen is None else UnixSeconds(seen),
        fdb_entries=2,
        packet_id_used_ratio=frames / 100,
    )


def test_a_duration_on_a_bound_belongs_to_the_bucket_below() -> None:
    durations = Durations()
    for seconds in (0.0, DURATION_BOUNDS[0], 0.02, 1.0, 60.0, 61.0, 1e9):
        durations.observe(seconds)
    histogram = durations.snapshot()
    assert histogram.bounds == DURATION_BOUNDS
    assert len(histogram.counts) == len(DURATION_BOUNDS) + 1
    assert (histogram.counts[0], histogram.counts[1], histogram.counts[-2], histogram.counts[-1]) == (
        2,
        1,
        1,
        2,
    )
    assert sum(histogram.counts) == 7
    assert histogram.total == pytest.approx(1e9 + 122.03)


def test_only_established_handshakes_have_a_duration() -> None:
    statistics = TunnelStatistics()
    statistics.note_handshake("initial", "timeout", 60.0)
    statistics.note_handshake("initial", "established", 0.2)
    statistics.note_handshake("renegotiation", "established", 0.3)
    assert statistics.handshakes["initial", "timeout"] == 1
    assert sum(statistics.durations["initial"].snapshot().counts) == 1
    assert sum(statistics.durations["renegotiation"].snapshot().counts) == 1


def test_a_configured_peer_that_never_came_is_listed_as_not_connected() -> None:
    book = PeerBook(["branch"])
    (status,) = finish(book.statuses({}, "tls-crypt", "udp"))
    assert (status.name, status.connected, status.connections, status.last_seen) == ("branch", False, 0, None)
    assert status.endpoint is None and status.cipher is None


def test_figures_of_past_and_present_sessions_add_up_and_never_fall() -> None:
    book = PeerBook([])
    book.note_established("site", TERMS, "192.0.2.1:1", UnixSeconds(100.0))
    (one,) = finish(book.statuses({"site": [figures(3)]}, "none", "udp"))
    book.record("site").retire(figures(4, seen=7.0))
    (two,) = finish(book.statuses({}, "none", "udp"))
    book.note_established("site", TERMS, "192.0.2.1:2", UnixSeconds(200.0))
    (three,) = finish(book.statuses({"site": [figures(1, handle=2, seen=9.0, port=2)]}, "none", "udp"))
    assert [status.counters.frames["receive", "unicast"] for status in (one, two, three)] == [3, 4, 5]
    assert [status.connected for status in (one, two, three)] == [True, False, True]
    assert [status.last_seen for status in (one, two, three)] == [5.0, 7.0, 9.0]
    assert [status.connected_since for status in (one, two, three)] == [100.0, None, 200.0]
    assert three.connections == 2 and three.endpoint == "192.0.2.1:2"


def test_a_peer_that_is_away_keeps_what_is_known_of_it() -> None:
    book = PeerBook([])
    book.note_established("site", TERMS, "192.0.2.1:1", UnixSeconds(100.0))
    (status,) = finish(book.statuses({}, "tls-auth", "udp"))
    assert status.cipher == Cipher.AES_256_GCM.value and status.key_group == "X25519MLKEM768"
    assert status.endpoint == "192.0.2.1:1" and status.certificate_not_after == 9.0
    assert status.key_established is None and not status.connected


def test_two_sessions_of_one_name_are_summed() -> None:
    book = PeerBook([])
    book.note_established("site", TERMS, "192.0.2.1:1", UnixSeconds(1.0))
    live = [figures(3, port=1), figures(20, handle=2, port=2, seen=None)]
    (status,) = finish(book.statuses({"site": live}, "none", "udp"))
    assert status.sessions == 2 and status.counters.wire_bytes["receive"] == 2300
    assert status.fdb_entries == 4 and status.packet_id_used_ratio == 0.2
    assert status.last_seen == 5.0


def test_a_renegotiation_moves_the_age_of_the_key_and_nothing_else() -> None:
    book = PeerBook([])
    book.note_established("site", TERMS, "192.0.2.1:1", UnixSeconds(1.0))
    book.note_renegotiated("site", TERMS, UnixSeconds(50.0))
    (status,) = finish(book.statuses({"site": [figures(1)]}, "none", "udp"))
    assert (status.key_established, status.connected_since, status.connections) == (50.0, 1.0, 1)


def test_names_beyond_the_limit_share_one_record() -> None:
    book = PeerBook(f"peer{number}" for number in range(PEER_NAMES_MAX))
    assert book.record("one more") is book.record("and another")
    assert book.record("one more").name == "_other"
    assert book.record("peer7").name == "peer7"
    assert len(finish(book.statuses({}, "none", "udp"))) == PEER_NAMES_MAX + 1


def test_counters_are_added_series_by_series() -> None:
    first = PeerCounters(frames={("receive", "unicast"): 1}, drops={("receive", "replay"): 2})
    second = PeerCounters(frames={("receive", "unicast"): 5, ("transmit", "unicast"): 7})
    total = add_counters(first, second)
    assert total.frames == {("receive", "unicast"): 6, ("transmit", "unicast"): 7}
    assert total.drops == {("receive", "replay"): 2}
    assert first.frames == {("receive", "unicast"): 1}


def test_a_name_is_forgotten_after_its_time_of_retention() -> None:
    book = PeerBook(["branch"], retention=60.0)
    for name in ("branch", "laptop", "phone"):
        book.record(name)
    for name in ("branch", "laptop"):
        book.note_gone(name, UnixSeconds(1000.0))
    book.forget_expired((), UnixSeconds(1060.0))
    assert names(book) == ["branch", "laptop", "phone"]
    book.forget_expired({"laptop"}, UnixSeconds(1061.0))
    assert names(book) == ["branch", "laptop", "phone"]
    book.forget_expired((), UnixSeconds(1061.0))
    assert names(book) == ["branch", "phone"]


def names(book: PeerBook) -> list[str]:
    return [status.name for status in finish(book.statuses({}, "none", "udp"))]
