"""Session ids of a stateless server: a client must return one before it costs us memory.

Source: docs/protocol/control.md, section 4.2.
Pure: the secret and `now` are arguments.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from typing import Final

from bridged.addresses import Endpoint
from bridged.errors import LocalProtocolError
from bridged.protocol.packet import SESSION_ID_LENGTH

COOKIE_SECRET_LENGTH: Final = 32
_SLOTS_ACCEPTED: Final = 3
_NEVER_ZERO: Final = bytes(SESSION_ID_LENGTH - 1) + b"\1"


class CookieJar:
    """Makes and checks 8-octet server session ids bound to endpoint, client session and time.

    `secret`: COOKIE_SECRET_LENGTH or more octets of a CSPRNG, drawn at start, at most 64;
    `hand_window` in seconds. `now` may be any clock that does not go back, in seconds; a cookie
    holds for two to three slots of (hand_window + 1) // 2 seconds.
    """

    def __init__(self, secret: bytes, hand_window: int = 60) -> None:
        if not COOKIE_SECRET_LENGTH <= len(secret) <= hashlib.blake2b.MAX_KEY_SIZE:
            raise LocalProtocolError("a cookie secret has 32 to 64 octets")
        self._secret = bytes(secret)
        self._slot_seconds = max(1, int(hand_window + 1) // 2)

    def make(self, endpoint: Endpoint, client_session_id: bytes, now: float) -> bytes:
        """The session id to answer a hard reset with; never all zero."""
        return self._cookie(endpoint, client_session_id, self._slot(now))

    def check(self, cookie: bytes, endpoint: Endpoint, client_session_id: bytes, now: float) -> bool:
        """The cookie is ours, for this endpoint and session, and not too old. Constant time."""
        slot = self._slot(now)
        good = False
        for age in range(_SLOTS_ACCEPTED):
            good |= hmac.compare_digest(cookie, self._cookie(endpoint, client_session_id, slot - age))
        return good

    def _slot(self, now: float) -> int:
        return int(now // self._slot_seconds)

    def _cookie(self, endpoint: Endpoint, client_session_id: bytes, slot: int) -> bytes:
        # Every field but the last has a fixed length, so that no two inputs read the same.
        text = struct.pack(">qH", slot, endpoint.port) + client_session_id.ljust(SESSION_ID_LENGTH, b"\0")
        mac = hashlib.blake2b(
            text + endpoint.host.encode(),
            digest_size=SESSION_ID_LENGTH,
            key=self._secret,
            person=b"session id",
        ).digest()
        return mac if any(mac) else _NEVER_ZERO
