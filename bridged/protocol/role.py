"""The two ends of a TLS session.

Source: docs/protocol/control.md#1-1.
Pure: a value type.
"""

from __future__ import annotations

from enum import Enum


class Role(Enum):
    """TLS role of one end. It decides the slices of tls-crypt and data keys, whichever end renegotiates."""

    CLIENT = "client"
    SERVER = "server"

    @property
    def peer(self) -> Role:
        """The role of the other end."""
        return Role.SERVER if self is Role.CLIENT else Role.CLIENT
