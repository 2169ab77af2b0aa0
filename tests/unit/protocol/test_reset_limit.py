"""Whose hard resets are answered when there are too many: nobody can use up the answers of the others."""

from __future__ import annotations

import random
from collections.abc import Callable

from bridged.addresses import Endpoint
from bridged.protocol.strangers.reset_limit import (
    BEYOND_BURST,
    BEYOND_PER_SECOND,
    CALM,
    FIRST_BURST,
    FIRST_PER_SECOND,
    NETWORKS_REMEMBERED,
    ONCE_BURST,
    ONCE_PER_SECOND,
    ONCE_REPEAT_BURST,
    ONCE_REPEAT_PER_SECOND,
    REPEAT_BURST,
    REPEAT_PER_SECOND,
    REPEATS_MAX,
    ResetLimit,
)

RATE = 20_000
DRAW = random.Random(7)


def anybody() -> Endpoint:
    return Endpoint(".".join(str(DRAW.randrange(1, 255)) for _ in range(4)), DRAW.randrange(1024, 65536))


def neighbours() -> Endpoint:
    return Endpoint(f"203.0.113.{DRAW.randrange(30, 250)}", DRAW.randrange(1024, 65536))


def one_prefix() -> Endpoint:
    return Endpoint(f"2001:db8::{DRAW.randrange(1, 65536):x}:{DRAW.randrange(1, 65536):x}", 1194)


POOL = [(anybody(), DRAW.randbytes(8)) for _ in range(4096)]


def answered_after(
    forge: Callable[[int], tuple[Endpoint, bytes]], client: Endpoint, pause: float, *, tries: int = 30
) -> list[int]:
    """A flood, and clients that repeat their reset after `pause`; the try at which each was answered."""
    limit = ResetLimit()
    asks = {int((1.0 + 0.05 * number) * RATE): number for number in range(tries)}
    again = {at + int(times * pause * RATE): number for times in (1, 2) for at, number in asks.items()}
    found: dict[int, list[bool]] = {number: [] for number in range(tries)}
    for step in range(int((1.0 + 0.05 * tries + 2 * pause) * RATE) + 1):
        now = step / RATE
        limit.allows(*forge(step), now)
        for schedule in (asks, again):
            number = schedule.get(step)
            if number is not None and not any(found[number]):
                endpoint = Endpoint(client.host, client.port + number)
                found[number].append(limit.allows(endpoint, number.to_bytes(8, "big"), now))
    return [answers.index(True) + 1 if True in answers else 9 for answers in found.values()]


def test_forged_resets_from_everywhere_delay_a_client_until_it_repeats_itself() -> None:
    tries = answered_after(lambda _: (anybody(), DRAW.randbytes(8)), Endpoint("192.0.2.7", 1000), 1.0)
    assert max(tries) <= 3 and sum(at <= 2 for at in tries) >= 29


def test_forged_resets_from_one_network_delay_nobody_elsewhere() -> None:
    tries = answered_after(lambda _: (neighbours(), DRAW.randbytes(8)), Endpoint("192.0.2.7", 1000), 1.0)
    assert max(tries) == 1
    tries = answered_after(lambda _: (one_prefix(), DRAW.randbytes(8)), Endpoint("2001:db9::7", 1000), 1.0)
    assert max(tries) == 1


def test_forged_resets_in_the_name_of_ones_own_network_delay_a_client_until_it_repeats_itself() -> None:
    tries = answered_after(lambda _: (neighbours(), DRAW.randbytes(8)), Endpoint("203.0.113.9", 1000), 1.0)
    assert max(tries) <= 3 and sum(at <= 2 for at in tries) >= 29


def test_the_same_forged_resets_again_and_again_are_not_taken_for_clients() -> None:
    tries = answered_after(lambda step: POOL[step % len(POOL)], Endpoint("192.0.2.7", 1000), 1.0)
    assert max(tries) <= 2


def test_a_thousand_clients_behind_one_address_are_answered_at_once() -> None:
    limit = ResetLimit()
    answers = [
        limit.allows(Endpoint("192.0.2.7", 1024 + number), number.to_bytes(8, "big"), 0.0)
        for number in range(1000)
    ]
    assert all(answers) and CALM[0] >= 1000


def test_one_and_the_same_reset_is_answered_a_few_times() -> None:
    limit = ResetLimit()
    source = Endpoint("192.0.2.7", 1)
    answers = [limit.allows(source, b"the same", step * 0.1) for step in range(20)]
    assert sum(answers) == REPEATS_MAX
    assert limit.allows(source, b"the same", 60.0)


def test_all_answers_together_are_limited() -> None:
    limit = ResetLimit()
    seconds = 5
    answers = sum(limit.allows(anybody(), DRAW.randbytes(8), step / RATE) for step in range(seconds * RATE))
    burst = FIRST_BURST + REPEAT_BURST + BEYOND_BURST
    assert answers <= burst + seconds * (FIRST_PER_SECOND + REPEAT_PER_SECOND + BEYOND_PER_SECOND)


def test_networks_that_are_remembered_are_bounded() -> None:
    limit = ResetLimit()
    for number in range(NETWORKS_REMEMBERED + 100):
        limit.allows(Endpoint(f"10.{number >> 8}.{number & 255}.1", 1), number.to_bytes(8, "big"), 0.0)
    assert len(limit._networks) == NETWORKS_REMEMBERED


def test_a_clock_that_steps_back_gives_nothing_and_breaks_nothing() -> None:
    limit = ResetLimit()
    for _ in range(2 * int(FIRST_BURST)):
        limit.allows(anybody(), DRAW.randbytes(8), 1000.0)
    assert sum(limit.allows(anybody(), DRAW.randbytes(8), 0.0) for _ in range(100)) == 0


def test_resets_that_must_be_remembered_are_few_and_those_of_clients_are_among_them() -> None:
    limit = ResetLimit()
    client, allowed, client_at = Endpoint("192.0.2.7", 1000), 0, 9
    for step in range(RATE * 4):
        now = step / RATE
        allowed += limit.allows_once(anybody(), b"CAPTURED", now)
        if step % (2 * RATE) == RATE and client_at == 9 and limit.allows_once(client, b"CLIENT-1", now):
            client_at = step // (2 * RATE)
    assert client_at <= 1, "the second try at the latest"
    most = ONCE_BURST + ONCE_REPEAT_BURST + 4 * (ONCE_PER_SECOND + ONCE_REPEAT_PER_SECOND)
    assert ONCE_BURST <= allowed <= most


def test_one_network_does_not_use_up_what_may_be_remembered() -> None:
    limit = ResetLimit()
    for step in range(RATE):
        limit.allows_once(neighbours(), b"CAPTURED", step / RATE)
    assert limit.allows_once(Endpoint("192.0.2.7", 1), b"CLIENT-1", 1.0)
