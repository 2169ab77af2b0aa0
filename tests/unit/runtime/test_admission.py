"""Who may hold a handshake: the waiting room, the places, and what one certificate may have."""

from __future__ import annotations

import random

import pytest

from bridged.addresses import Endpoint
from bridged.errors import RemoteProtocolError
from bridged.protocol.packets.packet import ControlHeader, Opcode
from bridged.protocol.packets.wrap import OpenedControl
from bridged.protocol.session.states import Proof
from bridged.protocol.strangers.listener import NewSession
from bridged.runtime.server.admission import (
    GREEDY_SECONDS,
    IDLE_SECONDS,
    LONGEST_SECONDS,
    PACKETS_EACH,
    STALLED_SECONDS,
    UNFINISHED_PER_SHARED_CERTIFICATE,
    WAITING_MAX,
    WAITING_SECONDS,
    CertificateShares,
    Newcomer,
    Places,
    WaitingRoom,
)
from bridged.units import KeyId, PeerHandle


def knock(number: int, message_id: int | None = 1) -> NewSession:
    session_id = number.to_bytes(8, "big")
    opened = OpenedControl(ControlHeader(Opcode.CONTROL_V1, KeyId(0), session_id), 0, 0, b"")
    return NewSession(b"c" + session_id[1:], session_id, opened, message_id)


def room() -> WaitingRoom:
    return WaitingRoom(random.Random(1).randrange)


def served(waiting: WaitingRoom) -> list[Newcomer]:
    """All who wait, in the order in which they get places."""
    order = []
    while (newcomer := waiting.first()) is not None:
        waiting.remove(newcomer)
        order.append(newcomer)
    return order


def test_who_came_first_is_served_first_and_once_however_often_it_repeats_itself() -> None:
    waiting = room()
    for number in (1, 2, 3, 1, 2):
        waiting.take_in(knock(number), Endpoint("192.0.2.1", 1000 + number), 0.0)
    assert len(waiting) == 3
    assert [newcomer.source.port for newcomer in served(waiting)] == [1001, 1002, 1003]
    assert len(waiting) == 0 and not waiting.has_ready


def test_networks_take_turns_and_so_do_the_hosts_in_one() -> None:
    waiting = room()
    for number in range(100):
        waiting.take_in(knock(number), Endpoint("192.0.2.1", 1000 + number), 0.0)
    waiting.take_in(knock(200), Endpoint("192.0.2.2", 1), 0.0)
    waiting.take_in(knock(201), Endpoint("2001:db8::1", 1), 0.0)
    waiting.take_in(knock(202), Endpoint("2001:db8::2", 1), 0.0)
    hosts = [newcomer.source.host for newcomer in served(waiting)]
    assert hosts[:4] == ["192.0.2.1", "2001:db8::1", "192.0.2.2", "2001:db8::2"]
    assert hosts[4:] == ["192.0.2.1"] * 99


def test_an_acknowledgement_alone_waits_and_the_first_words_may_come_in_any_order() -> None:
    waiting = room()
    source = Endpoint("192.0.2.1", 1)
    waiting.take_in(knock(1, None), source, 0.0)
    assert waiting.first() is None
    assert waiting.cookie_of(source, knock(1).remote_session_id) == knock(1).local_session_id
    waiting.take_in(knock(1, 2), source, 0.0)
    assert waiting.first() is None
    waiting.take_in(knock(1, 1), source, 0.0)
    newcomer = waiting.first()
    assert newcomer is not None and sorted(newcomer.packets) == [1, 2]
    for number in range(3, 12):
        waiting.take_in(knock(1, number), source, 0.0)
    assert len(newcomer.packets) == PACKETS_EACH


def test_who_waits_too_long_is_forgotten() -> None:
    waiting = room()
    waiting.take_in(knock(1), Endpoint("192.0.2.1", 1), 0.0)
    waiting.take_in(knock(2), Endpoint("192.0.2.2", 1), 5.0)
    waiting.expire(WAITING_SECONDS)
    assert [newcomer.source.host for newcomer in served(waiting)] == ["192.0.2.2"]


def test_a_full_room_takes_in_whoever_has_less_and_refuses_whoever_has_most() -> None:
    waiting = room()
    for number in range(WAITING_MAX):
        waiting.take_in(knock(number), Endpoint("192.0.2.1", number), 0.0)
    with pytest.raises(RemoteProtocolError) as refused:
        waiting.take_in(knock(WAITING_MAX), Endpoint("192.0.2.1", WAITING_MAX), 0.0)
    assert refused.value.code == "peer_limit"
    waiting.take_in(knock(1), Endpoint("198.51.100.1", 1), 0.0)
    waiting.take_in(knock(2), Endpoint("192.0.2.9", 1), 0.0)
    assert len(waiting) == WAITING_MAX
    assert {"198.51.100.1", "192.0.2.9"} <= {newcomer.source.host for newcomer in served(waiting)}


def test_who_only_acknowledged_gives_way_in_a_full_room() -> None:
    waiting = room()
    for number in range(WAITING_MAX):
        waiting.take_in(knock(number, None), Endpoint(f"10.{number >> 8}.{number & 255}.1", 1), 0.0)
    for number in range(WAITING_MAX // 2):
        waiting.take_in(knock(number), Endpoint(f"11.{number >> 8}.{number & 255}.1", 1), 0.0)
    assert len(waiting) == WAITING_MAX
    assert len(served(waiting)) == WAITING_MAX // 2


def full(hosts: list[str]) -> Places:
    places = Places(len(hosts))
    for number, host in enumerate(hosts):
        places.enter(PeerHandle(number), Endpoint(host, 1), 0.0)
    assert not places.has_room
    return places


def test_who_goes_on_keeps_its_place_however_many_wait() -> None:
    places = full(["192.0.2.1"] * 4)
    newcomer = Endpoint("192.0.2.1", 9)
    for step in range(1, 60):
        now = step * 0.5
        for number in range(4):
            places.note(PeerHandle(number), Proof.TLS, step, now)
        assert places.who_gives_way(newcomer, now) is None


def test_who_says_its_hello_octet_by_octet_keeps_nobody_out() -> None:
    places = full(["192.0.2.1"] * 4)

    def seconds_until_a_place(newcomer: Endpoint, proof: Proof) -> float:
        now, step = 0.0, 0
        while places.who_gives_way(newcomer, now) is None:
            now, step = now + 0.5, step + 1
            for number in range(4):
                places.note(PeerHandle(number), proof, step, now)
        return now

    elsewhere, same = Endpoint("198.51.100.1", 1), Endpoint("192.0.2.1", 9)
    assert seconds_until_a_place(elsewhere, Proof.COOKIE) == GREEDY_SECONDS
    assert seconds_until_a_place(same, Proof.COOKIE) == LONGEST_SECONDS[Proof.COOKIE]
    assert seconds_until_a_place(same, Proof.TLS) == LONGEST_SECONDS[Proof.TLS]


def test_repeating_itself_is_no_progress() -> None:
    places = full(["192.0.2.1"])
    for step in range(5):
        places.note(PeerHandle(0), Proof.COOKIE, 1, step * 0.5)
    assert places.who_gives_way(Endpoint("192.0.2.1", 2), STALLED_SECONDS[Proof.COOKIE]) == 0


def test_who_proved_less_gives_way_first_and_later_who_speaks_tls_but_does_not_go_on() -> None:
    places = full(["192.0.2.1"] * 3)
    newcomer = Endpoint("192.0.2.1", 9)
    places.note(PeerHandle(0), Proof.TLS, 1, 0.0)
    places.note(PeerHandle(1), Proof.COOKIE, 1, 0.1)
    places.note(PeerHandle(2), Proof.TLS, 1, 0.2)
    assert places.who_gives_way(newcomer, STALLED_SECONDS[Proof.COOKIE] - 0.1) is None
    assert places.who_gives_way(newcomer, STALLED_SECONDS[Proof.COOKIE] + 0.2) == 1
    places.leave(PeerHandle(1))
    assert places.who_gives_way(newcomer, STALLED_SECONDS[Proof.TLS] - 0.1) is None
    assert places.who_gives_way(newcomer, STALLED_SECONDS[Proof.TLS] + 0.1) == 0


def test_an_idle_one_of_a_host_or_network_with_many_gives_way_soon_to_one_with_few() -> None:
    places = full(["192.0.2.1"] * 6 + ["192.0.2.2"] * 2)
    for number in range(8):
        places.note(PeerHandle(number), Proof.TLS, 1, 0.0)
    now = IDLE_SECONDS + 0.1
    assert places.who_gives_way(Endpoint("192.0.2.1", 9), now) is None, "the host with the most"
    assert places.who_gives_way(Endpoint("198.51.100.1", 9), now) is not None, "another network"
    assert places.who_gives_way(Endpoint("192.0.2.2", 9), now) in range(6), "another host of the same"


def test_a_certificate_that_begins_too_many_sessions_ends_its_own_oldest() -> None:
    shares = CertificateShares()
    assert shares.enter("a", PeerHandle(1)) == []
    assert shares.enter("a", PeerHandle(2)) == []
    assert shares.enter("b", PeerHandle(3)) == []
    assert shares.enter("a", PeerHandle(4)) == [1]
    shares.leave(PeerHandle(2))
    assert shares.enter("a", PeerHandle(5)) == []
    for handle in (1, 3, 4, 5, 5):
        shares.leave(PeerHandle(handle))
    assert len(shares) == 0


def test_a_shared_certificate_may_begin_more_but_not_hold_more_than_half_of_the_places() -> None:
    shares = CertificateShares()
    ended = [shares.enter("a", PeerHandle(handle), shared=20) for handle in range(12)]
    assert sum(map(len, ended)) == 2 and len(shares) == 10
    for handle in range(100, 100 + 2 * UNFINISHED_PER_SHARED_CERTIFICATE):
        shares.enter("b", PeerHandle(handle), shared=100_000)
    assert len(shares) == 10 + UNFINISHED_PER_SHARED_CERTIFICATE
