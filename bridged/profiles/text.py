"""Decodes profiles, certificates and key files, as tolerantly as OpenVPN.

Pure.
"""

from __future__ import annotations

from typing import Final

from bridged.errors import ConfigurationError

_UTF16_MARKS: Final = (b"\xff\xfe", b"\xfe\xff")
_SAMPLE_OCTETS: Final = 512


def decode_text(content: bytes, source: str) -> str:
    """Decode UTF-8, or UTF-16 with a byte order mark; lines that are not UTF-8 are read as Latin-1.

    Latin-1 occurs in comments and names.

    Raises:
        ConfigurationError: it looks like UTF-16 and has no mark, or is cut off.
    """
    is_marked = content.startswith(_UTF16_MARKS)
    try:
        if is_marked:
            return content.decode("utf-16")
        if not _is_utf16(content):
            return content.decode("utf-8")
    except UnicodeDecodeError:
        if not is_marked:
            return "\n".join(_decode_line(line) for line in content.split(b"\n"))
    raise ConfigurationError(
        "is UTF-16 text without a mark, or cut off; save it as UTF-8 (Notepad: Save as, Encoding: UTF-8), or "
        "convert it: `iconv -f UTF-16LE -t UTF-8 OLD > NEW`",
        file=source,
        line=1,
        code="profile",
    )


def _decode_line(line: bytes) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        return line.decode("latin-1")


def _is_utf16(content: bytes) -> bool:
    """Nearly every other byte of its beginning is NUL."""
    sample = content[:_SAMPLE_OCTETS]
    halves = (sample[0::2], sample[1::2])
    return any(
        half.count(0) > 0.9 * len(half) and other.count(0) < 0.1 * len(other)
        for half, other in (halves, halves[::-1])
        if len(sample) >= 8
    )
