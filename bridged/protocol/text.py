"""Makes text from the peer safe to keep and to show.

Source: docs/protocol/control.md#10, trap 13.
Pure: bytes in, text out.
"""

from __future__ import annotations


def decode_text(data: bytes) -> str:
    """Decode UTF-8; other bytes become `\\xNN`. Never fails, never gives surrogates."""
    return data.decode("utf-8", "backslashreplace")


def visible(text: str, *, lines: bool = False) -> str:
    """`text` with every unprintable character as an escape; `lines` keeps line feeds and tabs.

    Safe for terminals, logs and labels: no control characters, no direction marks.
    """
    if text.isprintable():
        return text
    kept = "\n\t" if lines else ""
    return "".join(
        char
        if char.isprintable() or char in kept
        else char.encode("unicode_escape", "surrogatepass").decode("ascii")
        for char in text
    )


def printable(text: str, limit: int) -> str:
    """As `visible`, cut to `limit` characters."""
    return visible(text[:limit])[:limit]
