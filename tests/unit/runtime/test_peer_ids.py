"""Peer ids of a server: oldest first, and never more in use than the limit of the moment."""

from __future__ import annotations

from bridged.runtime.server.server import _PeerIds


def test_the_id_given_back_longest_ago_is_taken_next() -> None:
    ids = _PeerIds(3)
    taken = [ids.take() for _ in range(3)]
    assert taken == [0, 1, 2] and ids.take() is None
    for number in (1, 0):
        ids.release(number)
    assert [ids.take(), ids.take(), ids.take()] == [1, 0, None]


def test_a_lower_limit_admits_nobody_until_enough_have_gone() -> None:
    ids = _PeerIds(5)
    taken = [ids.take() for _ in range(5)]
    ids.limit = 2
    for number in taken[:3]:
        assert number is not None
        ids.release(number)
        assert ids.take() is None
    ids.release(taken[3])
    assert ids.take() == taken[0]
    assert ids.take() is None


def test_a_higher_limit_has_room_at_once() -> None:
    ids = _PeerIds(1)
    assert ids.take() == 0 and ids.take() is None
    ids.limit = 2
    assert ids.take() == 1 and ids.take() is None
