"""A cookie opens one session; what is left of a session that is over is small and does not last."""

from __future__ import annotations

from bridged.protocol.strangers.used_cookies import (
    ENDED_MAX,
    ENDED_SECONDS,
    LAST_PACKETS_REPEATED,
    USED_COOKIES_MAX,
    UsedCookies,
)


def cookie(number: int) -> bytes:
    return number.to_bytes(8, "big")


def test_a_used_cookie_stays_used_as_long_as_it_would_be_believed() -> None:
    cookies = UsedCookies(90.0)
    cookies.use(cookie(1), 0.0)
    cookies.use(cookie(2), 89.0)
    assert cookie(1) in cookies and cookie(3) not in cookies
    cookies.use(cookie(3), 90.0)
    assert cookie(1) not in cookies and cookie(2) in cookies


def test_used_cookies_are_bounded_and_the_oldest_is_forgotten_first() -> None:
    cookies = UsedCookies(90.0)
    for number in range(USED_COOKIES_MAX + 10):
        cookies.use(cookie(number), 0.0)
    assert len(cookies) == USED_COOKIES_MAX
    assert cookie(9) not in cookies and cookie(10) in cookies


def test_last_packets_are_repeated_a_few_times_and_not_for_long() -> None:
    cookies = UsedCookies(90.0)
    cookies.note_end(cookie(1), (b"alert",), 0.0)
    heard = [cookies.last_packets(cookie(1), 1.0) for _ in range(LAST_PACKETS_REPEATED + 2)]
    assert heard == [(b"alert",)] * LAST_PACKETS_REPEATED + [(), ()]
    cookies.note_end(cookie(2), (b"alert",), 0.0)
    assert cookies.last_packets(cookie(2), ENDED_SECONDS) == ()
    cookies.note_end(cookie(3), (), 0.0)
    assert cookies.last_packets(cookie(3), 0.0) == ()


def test_what_is_kept_of_ended_sessions_is_bounded() -> None:
    cookies = UsedCookies(90.0)
    for number in range(ENDED_MAX + 5):
        cookies.note_end(cookie(number), (b"alert",), 0.0)
    assert cookies.last_packets(cookie(4), 0.0) == ()
    assert cookies.last_packets(cookie(5), 0.0) == (b"alert",)
