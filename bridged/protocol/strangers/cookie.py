"""Session ids of a server that keeps no state: a client must return one before it costs memory.

Source: docs/protocol/control.md#4-2.
Pure: the secret and `now` are arguments.
"""

from __future__ import annotations

import hmac
import struct
from typing import Final

from bridged.addresses import Endpoint, packed_address
from bridged.errors import LocalProtocolError
from bridged.protocol.packets.packet import SESSION_ID_LENGTH

COOKIE_SECRET_LENGTH: Final = 32
_SLOTS_ACCEPTED: Final = 3
_PURPOSE: Final = b"session id"
_NEVER_ZERO: Final = bytes(SESSION_ID_LENGTH - 1) + b"\1"


class CookieJar:
    """Makes and checks 8-byte server session ids bound to endpoint, client session and time.

    HMAC-SHA256, which both data planes have. `secret`: COOKIE_SECRET_LENGTH bytes of a CSPRNG, new at each
    start. `hand_window` in seconds. `now` is any clock that does not go back, in seconds. A cookie is valid
    for two to three slots of (hand_window + 1) // 2 seconds.
    """

    def __init__(self, secret: bytes, hand_window: int = 60) -> None:
        if len(secret) != COOKIE_SECRET_LENGTH:
            raise LocalProtocolError(f"a cookie secret has {COOKIE_SECRET_LENGTH} bytes")
        self._secret = bytes(secret)
        self.slot_seconds = max(1, int(hand_window + 1) // 2)

    @property
    def lifetime(self) -> float:
        """Seconds after which a cookie made now is not accepted any more."""
        return float(_SLOTS_ACCEPTED * self.slot_seconds)

    def make(self, endpoint: Endpoint, client_session_id: bytes, now: float) -> bytes:
        """The session id for the answer to a hard reset; never all zero."""
        return self._cookie(endpoint, client_session_id, self._slot(now))

    def check(self, cookie: bytes, endpoint: Endpoint, client_session_id: bytes, now: float) -> bool:
        """Whether we made this cookie for this endpoint and session, not too long ago. Constant time."""
        slot = self._slot(now)
        good = False
        for age in range(_SLOTS_ACCEPTED):
            good |= hmac.compare_digest(cookie, self._cookie(endpoint, client_session_id, slot - age))
        return good

    def _slot(self, now: float) -> int:
        return int(now // self.slot_seconds)

    def _cookie(self, endpoint: Endpoint, client_session_id: bytes, slot: int) -> bytes:
        # Every field has a fixed length: different inputs give different texts.
        text = struct.pack(">qH", slot, endpoint.port) + client_session_id.ljust(SESSION_ID_LENGTH, b"\0")
        mac = hmac.digest(self._secret, _PURPOSE + text + packed_address(endpoint.host), "sha256")
        cookie = mac[:SESSION_ID_LENGTH]
        return cookie if any(cookie) else _NEVER_ZERO
