"""Session ids of a stateless server."""

from __future__ import annotations

import pytest

from bridged.addresses import Endpoint
from bridged.errors import LocalProtocolError
from bridged.protocol.strangers.cookie import CookieJar

JAR = CookieJar(bytes(range(32)))
CLIENT = Endpoint("192.0.2.1", 1194)
SESSION = b"SESSION1"


def test_a_cookie_holds_for_its_slot_and_the_two_after() -> None:
    cookie = JAR.make(CLIENT, SESSION, 30.0)
    assert len(cookie) == 8
    assert all(JAR.check(cookie, CLIENT, SESSION, now) for now in (30.0, 59.9, 60.0, 119.9))
    assert not JAR.check(cookie, CLIENT, SESSION, 120.0)
    assert not JAR.check(cookie, CLIENT, SESSION, 29.9), "cookies of the future are forged"


def test_repeated_in_the_same_slot_the_cookie_is_the_same() -> None:
    assert JAR.make(CLIENT, SESSION, 30.0) == JAR.make(CLIENT, SESSION, 59.0)
    assert JAR.make(CLIENT, SESSION, 30.0) != JAR.make(CLIENT, SESSION, 60.0)


@pytest.mark.parametrize(
    ("endpoint", "session_id"),
    [
        (Endpoint("192.0.2.2", 1194), SESSION),
        (Endpoint("192.0.2.1", 1195), SESSION),
        (Endpoint("2001:db8::1", 1194), SESSION),
        (CLIENT, b"SESSION2"),
    ],
)
def test_a_cookie_is_bound_to_endpoint_and_client_session(endpoint: Endpoint, session_id: bytes) -> None:
    assert not JAR.check(JAR.make(CLIENT, SESSION, 0.0), endpoint, session_id, 0.0)


def test_another_secret_makes_other_cookies() -> None:
    assert not CookieJar(bytes(32)).check(JAR.make(CLIENT, SESSION, 0.0), CLIENT, SESSION, 0.0)


@pytest.mark.parametrize("cookie", [b"", bytes(8), b"x" * 9])
def test_anything_else_is_no_cookie(cookie: bytes) -> None:
    assert not JAR.check(cookie, CLIENT, SESSION, 0.0)


def test_slots_follow_the_hand_window() -> None:
    jar = CookieJar(bytes(32), hand_window=10)
    cookie = jar.make(CLIENT, SESSION, 0.0)
    assert jar.check(cookie, CLIENT, SESSION, 14.9) and not jar.check(cookie, CLIENT, SESSION, 15.0)


@pytest.mark.parametrize("length", [0, 31, 33, 65])
def test_secrets_of_another_length_are_refused(length: int) -> None:
    with pytest.raises(LocalProtocolError):
        CookieJar(bytes(length))
