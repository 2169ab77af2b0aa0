"""Text from the peer, made safe to keep and to show.

Source: docs/protocol/control.md, section 10, trap 13.
Pure: octets in, text out.
"""

from __future__ import annotations


def decode_text(data: bytes) -> str:
    """UTF-8, with octets that are none written as `\\xNN`; never fails, never gives surrogates."""
    return data.decode("utf-8", "backslashreplace")


def printable(text: str, limit: int) -> str:
    """`text` with unprintable characters written as escapes, cut to `limit` characters.

    Safe for terminals, logs and labels: no control, no direction marks, no line breaks.
    """
    cut = text[:limit]
    if cut.isprintable():
        return cut
    shown = "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in cut
    )
    return shown[:limit]
