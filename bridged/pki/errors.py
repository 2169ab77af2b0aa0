"""The error of the embedded CA."""

from __future__ import annotations

from bridged.errors import BridgedError


class PkiError(BridgedError):
    """The embedded CA cannot do what was asked; nothing was changed."""
