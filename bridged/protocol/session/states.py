"""The states of a session, and the table of what moves it from one to another.

Pure: values only.
"""

from __future__ import annotations

from enum import Enum, IntEnum
from typing import Final


class SessionState(Enum):
    """Where a session is. `DRAINING`: traffic has ended; the last control packets are still repeated."""

    HANDSHAKE = "handshake"
    ESTABLISHED = "established"
    DRAINING = "draining"
    CLOSED = "closed"


class Proof(IntEnum):
    """What a server's peer has proved: its address, that it speaks TLS, its identity."""

    COOKIE = 0
    TLS = 1
    CERTIFICATE = 2


class SessionInput(Enum):
    """What moves a session from one state to another."""

    KEYS_READY = "keys ready"
    FAILED = "failed"
    PEER_LEFT = "peer left"
    CLOSE_REQUESTED = "close requested"
    DRAINED = "drained"


TRANSITIONS: Final[dict[tuple[SessionState, SessionInput], SessionState]] = {
    (SessionState.HANDSHAKE, SessionInput.KEYS_READY): SessionState.ESTABLISHED,
    (SessionState.HANDSHAKE, SessionInput.FAILED): SessionState.DRAINING,
    (SessionState.HANDSHAKE, SessionInput.PEER_LEFT): SessionState.DRAINING,
    (SessionState.HANDSHAKE, SessionInput.CLOSE_REQUESTED): SessionState.DRAINING,
    (SessionState.ESTABLISHED, SessionInput.FAILED): SessionState.DRAINING,
    (SessionState.ESTABLISHED, SessionInput.PEER_LEFT): SessionState.DRAINING,
    (SessionState.ESTABLISHED, SessionInput.CLOSE_REQUESTED): SessionState.DRAINING,
    (SessionState.DRAINING, SessionInput.DRAINED): SessionState.CLOSED,
}
