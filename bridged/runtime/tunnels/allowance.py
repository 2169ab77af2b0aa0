"""How much an endpoint may be sent before it has answered.

Source: RFC 9000, section 8.1 (an endpoint that is not validated gets at most three times what it sent).
Pure: no I/O.
"""

from __future__ import annotations

from typing import Final

from bridged.addresses import Endpoint

AMPLIFICATION: Final = 3
LEAST_DATA_PACKET: Final = 25
"""Octets of the smallest data packet: so much surely came from an endpoint that a peer floated to."""
PAYLOAD_OVERHEAD: Final = 24
"""Octets of a data packet around its payload: DATA_V2 header, packet id, tag."""


class Allowance:
    """Octets of control packets for one peer's endpoint; the endpoint that a session began with has answered.

    A peer can claim any address with one data packet. `take` refuses what would be more than AMPLIFICATION
    times what came from there, until a control packet that the session accepts comes from it.
    `is_withholding`: something was refused since then.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._proven = endpoint
        self._left: int | None = None
        self.is_withholding = False

    @property
    def is_proven(self) -> bool:
        """The endpoint has answered: no limit."""
        return self._left is None

    def move(self, endpoint: Endpoint) -> None:
        """The peer was heard at `endpoint` on the data channel; where it last answered needs no proof."""
        self.is_withholding = False
        self._left = None if endpoint == self._proven else AMPLIFICATION * LEAST_DATA_PACKET

    def credit(self, octets: int) -> None:
        """So much came from the endpoint."""
        if self._left is not None:
            self._left += AMPLIFICATION * octets

    def prove(self, endpoint: Endpoint) -> bool:
        """The endpoint has answered; True where something was withheld from it."""
        was_withholding = self.is_withholding
        self._proven, self._left, self.is_withholding = endpoint, None, False
        return was_withholding

    def take(self, octets: int) -> bool:
        """Whether so much may be sent now."""
        if self._left is None:
            return True
        if octets > self._left:
            self.is_withholding = True
            return False
        self._left -= octets
        return True
