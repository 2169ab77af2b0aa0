"""How much may be sent to an endpoint that has not answered yet.

Source: RFC 9000, section 8.1 (an endpoint that is not validated gets at most three times what it sent).
Pure: no I/O.
"""

from __future__ import annotations

from typing import Final

from bridged.addresses import Endpoint

AMPLIFICATION: Final = 3
LEAST_DATA_PACKET: Final = 25
"""Bytes of the smallest data packet: at least this much came from an endpoint that a peer floated to."""
PAYLOAD_OVERHEAD: Final = 24
"""Bytes of a data packet around its payload: DATA_V2 header, packet id, tag."""


class AmplificationLimit:
    """Limits control packets to one peer's endpoint. The endpoint that a session began with has answered.

    A peer can claim any address with one data packet. Until the session accepts a control packet from there,
    `take` refuses whatever exceeds AMPLIFICATION times the bytes that came from it. `is_withholding`:
    something was refused since then.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._proven = endpoint
        self._left: int | None = None
        self.is_withholding = False

    @property
    def is_proven(self) -> bool:
        """The endpoint has answered: there is no limit."""
        return self._left is None

    def move(self, endpoint: Endpoint) -> None:
        """A data packet of the peer came from `endpoint`. The one that last answered needs no new proof."""
        self.is_withholding = False
        self._left = None if endpoint == self._proven else AMPLIFICATION * LEAST_DATA_PACKET

    def credit(self, octets: int) -> None:
        """This many bytes came from the endpoint."""
        if self._left is not None:
            self._left += AMPLIFICATION * octets

    def prove(self, endpoint: Endpoint) -> bool:
        """The endpoint has answered. True where something was withheld from it."""
        was_withholding = self.is_withholding
        self._proven, self._left, self.is_withholding = endpoint, None, False
        return was_withholding

    def take(self, octets: int) -> bool:
        """Whether this many bytes may be sent now; they count as sent."""
        if self._left is None:
            return True
        if octets > self._left:
            self.is_withholding = True
            return False
        self._left -= octets
        return True
