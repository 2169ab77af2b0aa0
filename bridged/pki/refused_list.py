"""The list of refused tls-crypt-v2 client keys: a file in the state folder, a line each: `IDENTIFIER NAME`.

Only the identifier counts; behind `#` is a comment. Hold the CA's lock (`lock_state`) while you change it.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from bridged.files import write_atomic
from bridged.protocol.keys.client_wrap_key import IDENTIFIER_OCTETS

_COMMENT: Final = "#"


def add_refused(path: Path, keys: Iterable[tuple[str, str]]) -> int:
    """Put keys on the list, each an identifier and a name for people. Returns how many are new.

    Raises:
        OSError: the list cannot be read or written.
    """
    lines = _lines(path)
    listed = {_identifier(line) for line in lines}
    new = [f"{identifier} {name}".rstrip() for identifier, name in keys if identifier not in listed]
    if new:
        _write(path, [*lines, *new])
    return len(new)


def remove_refused(path: Path, identifier: str) -> bool:
    """Take a key from the list; False if it is not there.

    Raises:
        OSError: the list cannot be read or written.
    """
    lines = _lines(path)
    kept = [line for line in lines if _identifier(line) != identifier]
    if len(kept) < len(lines):
        _write(path, kept)
    return len(kept) < len(lines)


def parse_refused(text: str) -> tuple[frozenset[bytes], str]:
    """The identifiers, and what is wrong with the first line that has none."""
    found: set[bytes] = set()
    problem = ""
    for number, line in enumerate(text.splitlines(), 1):
        word = _identifier(line)
        try:
            octets = bytes.fromhex(word)
        except ValueError:
            octets = b""
        if len(octets) == IDENTIFIER_OCTETS:
            found.add(octets)
        elif word and not problem:
            problem = f"line {number} does not begin with the identifier of a key, and refuses nobody"
    return frozenset(found), problem


def _lines(path: Path) -> list[str]:
    return path.read_text("utf-8", "replace").splitlines() if path.exists() else []


def _write(path: Path, lines: Iterable[str]) -> None:
    write_atomic(path, "".join(f"{line}\n" for line in lines).encode())


def _identifier(line: str) -> str:
    words = line.partition(_COMMENT)[0].split()
    return words[0].lower() if words else ""
