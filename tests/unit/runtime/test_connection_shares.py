"""Places for TCP connections that have proved nothing."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from bridged.addresses import Endpoint
from bridged.runtime.server.connection_shares import ConnectionShares


def at(host: str, port: int) -> Endpoint:
    return Endpoint(host, port, "tcp")


def test_a_host_that_opens_many_connections_makes_room_with_its_own_oldest() -> None:
    shares = ConnectionShares(capacity=10)
    assert shares.enter(at("192.0.2.1", 1), 0.0) is None
    gone = [shares.enter(at("198.51.100.7", port), 1.0) for port in range(20)]
    assert gone == [None] * 9 + [at("198.51.100.7", port) for port in range(11)]
    assert at("192.0.2.1", 1) in shares
    assert len(shares) == 10


def test_a_network_that_sends_from_many_addresses_counts_as_one() -> None:
    shares = ConnectionShares(capacity=10)
    for number in range(9):
        shares.enter(at(f"2001:db8::{number:x}", 1), 0.0)
    shares.enter(at("2001:db8:1::1", 1), 1.0)
    assert shares.enter(at("192.0.2.1", 1), 2.0) == at("2001:db8::0", 1)


def test_who_has_left_takes_no_place() -> None:
    shares = ConnectionShares(capacity=2)
    for port in range(100):
        assert shares.enter(at("192.0.2.1", port), port) is None
        shares.leave(at("192.0.2.1", port))
    shares.leave(at("192.0.2.1", 1))
    assert len(shares) == 0


def test_old_ones_are_found_in_their_order() -> None:
    shares = ConnectionShares()
    for port in range(5):
        shares.enter(at("192.0.2.1", port), float(port))
    assert shares.older_than(2.0) == [at("192.0.2.1", 0), at("192.0.2.1", 1)]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5), st.booleans()), max_size=200))
def test_whoever_gives_way_is_the_oldest_of_a_network_that_has_most(
    steps: list[tuple[int, int, bool]],
) -> None:
    shares, known = ConnectionShares(capacity=6), list[Endpoint]()
    for number, (network, port, leaves) in enumerate(steps):
        endpoint = at(f"192.0.{network}.1", port)
        if endpoint in known:
            known.remove(endpoint)
        if leaves:
            shares.leave(endpoint)
            assert endpoint not in shares
            continue
        gone = shares.enter(endpoint, float(number))
        known.append(endpoint)
        counts = Counter(one.host for one in known)
        if len(known) <= 6:
            assert gone is None
            continue
        assert gone is not None and counts[gone.host] == max(counts.values())
        assert gone == next(one for one in known if one.host == gone.host)
        known.remove(gone)
        assert len(shares) == len(known) == 6
