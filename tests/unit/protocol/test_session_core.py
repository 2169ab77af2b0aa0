"""What the parts of a session share, and how the session presents itself."""

from __future__ import annotations

import inspect
import re

import pytest

from bridged.errors import LocalProtocolError
from bridged.protocol.keys.cipher import DEFAULT_CIPHERS
from bridged.protocol.role import Role
from bridged.protocol.session.core import SessionCore
from bridged.protocol.session.events import SessionDown, SessionEnded
from bridged.protocol.session.session import Session
from bridged.protocol.session.settings import SessionSettings
from bridged.protocol.session.states import SessionInput, SessionState
from bridged.protocol.session.timers import Deadline, SessionTimer
from bridged.units import MonotonicSeconds, Seconds


def core(role: Role = Role.CLIENT) -> SessionCore:
    return SessionCore(SessionSettings(role, DEFAULT_CIPHERS), bytes, 100.0)


def test_the_kinds_of_methods_in_the_docstring_are_all_methods() -> None:
    named = re.findall(r"`(\w+)`", inspect.getdoc(Session) or "")
    methods = {
        name for name, _ in inspect.getmembers(Session, inspect.isfunction) if not name.startswith("_")
    }
    assert methods - {"elapsed"} <= set(named), "elapsed is a property but for its argument"


def test_leaving_is_said_once_and_leaves_retransmissions_and_the_drain() -> None:
    session = core()
    session.timers.set(SessionTimer.RENEGOTIATION, 101.0)
    session.timers.set(SessionTimer.RETRANSMISSION, 103.0)
    assert session.next_deadline() == Deadline(MonotonicSeconds(101.0), "renegotiation")
    session.leave(SessionInput.FAILED, "tls_failed", "first", 102.0, drain=0.5)
    session.leave(SessionInput.FAILED, "timeout", "second", 102.0)
    assert session.next_event() == SessionDown("tls_failed", "first", False, Seconds(2.0))
    assert session.next_event() is None
    assert session.next_deadline() == Deadline(MonotonicSeconds(102.5), "drain")


def test_a_closed_session_waits_for_nothing() -> None:
    session = core()
    session.leave(SessionInput.CLOSE_REQUESTED, "shutdown", "", 101.0)
    session.timers.set(SessionTimer.RETRANSMISSION, 102.0)
    session.finish()
    assert session.state is SessionState.CLOSED and session.next_deadline() is None
    assert isinstance(session.next_event(), SessionDown) and session.next_event() == SessionEnded()


def test_a_step_that_is_no_row_of_the_table_is_refused() -> None:
    session = core()
    with pytest.raises(LocalProtocolError, match="'drained' while 'handshake'"):
        session.finish()
    session.establish()
    with pytest.raises(LocalProtocolError, match="'keys ready' while 'established'"):
        session.establish()


@pytest.mark.parametrize(
    ("role", "given", "expected"),
    [
        (Role.CLIENT, SessionInput.FAILED, True),
        (Role.SERVER, SessionInput.FAILED, False),
        (Role.SERVER, SessionInput.CLOSE_REQUESTED, True),
        (Role.CLIENT, SessionInput.PEER_LEFT, False),
    ],
)
def test_who_may_end_once_all_is_acknowledged(role: Role, given: SessionInput, *, expected: bool) -> None:
    session = core(role)
    session.leave(given, "tls_failed", "", 101.0)
    assert session.ends_once_acknowledged is expected


def test_a_peer_that_leaves_before_it_was_connected_has_reset_us() -> None:
    before, after = core(), core()
    after.establish()
    for session, reason in ((before, "reset_by_peer"), (after, "exit_notify")):
        session.leave(SessionInput.PEER_LEFT, "exit_notify", "", 101.0)
        down = session.next_event()
        assert isinstance(down, SessionDown) and down.reason == reason
