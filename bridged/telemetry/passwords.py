"""Compares passwords with bcrypt hashes, as `htpasswd -B` writes them (decision 67).

The host's libcrypt does the work, otherwise the package `bcrypt`. Both let other threads run meanwhile.
"""

from __future__ import annotations

import ctypes
import hmac
import re
from collections.abc import Callable
from functools import cache
from typing import Any, Final

PASSWORD_OCTETS_MAX: Final = 72
"""bcrypt ignores what comes after."""
COST_MAX: Final = 15
"""Two seconds for one comparison."""

_HASH = re.compile(r"\$2[aby]\$([0-9]{2})\$[./A-Za-z0-9]{53}")
_LIBRARIES: Final = ("libcrypt.so.1", "libcrypt.so.2", None)
"""Debian's, Fedora's; None: the C library itself, as in Alpine."""
_WORK_OCTETS: Final = 1 << 18
"""More than `struct crypt_data` of any of them (32 to 128 KiB)."""
_KNOWN: Final = (
    b"U*U",
    b"$2b$05$CCCCCCCCCCCCCCCCCCCCC.",
    b"$2b$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",
)
"""Password, salt and result from the test vectors of bcrypt's author: does this library know bcrypt?"""

_Hasher = Callable[[bytes, bytes], bytes]


def bad_hash(text: str) -> str | None:
    """Why the text cannot be a user's hash; None: it can."""
    found = _HASH.fullmatch(text)
    if found is None:
        return "is not a bcrypt hash; make one with `htpasswd -nBC 10 NAME`"
    if not 4 <= int(found[1]) <= COST_MAX:
        return f"has cost {int(found[1])}; 4 to {COST_MAX} are possible, 10 is usual"
    return None


def is_available() -> bool:
    """Whether this host can compare bcrypt hashes."""
    return _hasher() is not None


def matches(password: bytes, stored: str) -> bool:
    """Whether the password has this hash. Takes 50 ms and more; may be called in any thread.

    Raises:
        RuntimeError: this host cannot (see `is_available`).
    """
    hasher = _hasher()
    if hasher is None:
        raise RuntimeError("no bcrypt")
    if len(password) > PASSWORD_OCTETS_MAX or b"\0" in password:
        return False
    expected = stored.encode("ascii")
    return hmac.compare_digest(hasher(password, expected), expected)


@cache
def _hasher() -> _Hasher | None:
    password, salt, result = _KNOWN
    for make in (*(lambda name=name: _of_library(name) for name in _LIBRARIES), _of_package):
        try:
            hasher = make()
            if hasher(password, salt) == result:
                return hasher
        except (OSError, AttributeError, ImportError, ValueError):
            continue
    return None


def _of_library(name: str | None) -> _Hasher:
    crypt_r: Any = ctypes.CDLL(name).crypt_r
    crypt_r.restype = ctypes.c_char_p
    crypt_r.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p)

    def hashed(password: bytes, salt: bytes) -> bytes:
        work = ctypes.create_string_buffer(_WORK_OCTETS)
        try:
            return crypt_r(password, salt, work) or b""
        finally:
            ctypes.memset(work, 0, _WORK_OCTETS)

    return hashed


def _of_package() -> _Hasher:
    import bcrypt  # type: ignore[import-not-found, unused-ignore]

    hashed: _Hasher = bcrypt.hashpw
    return hashed
