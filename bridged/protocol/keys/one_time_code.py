"""One-time codes by time (TOTP, RFC 6238), as authenticator programs show them.

Pure: callers pass `now` (Unix seconds).
"""

from __future__ import annotations

import base64
import binascii
import hmac
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qs, urlsplit

from cryptography.hazmat.primitives.hashes import SHA1, SHA256, SHA512
from cryptography.hazmat.primitives.twofactor.totp import TOTP

from bridged.errors import ConfigurationError

_DIGESTS: Final[dict[str, type[SHA1] | type[SHA256] | type[SHA512]]] = {
    "SHA1": SHA1,
    "SHA256": SHA256,
    "SHA512": SHA512,
}
_LEAST_OCTETS: Final = 10
_STEPS_AROUND: Final = 1
"""Codes of the step before and after count, too: clocks differ."""


@dataclass(frozen=True, slots=True)
class OneTimeSecret:
    """The secret that both ends share."""

    secret: bytes = field(repr=False)
    digits: int = 6
    seconds: int = 30
    digest: str = "SHA1"

    def code(self, now: float) -> str:
        """The code of this moment."""
        return self._at(int(now) // self.seconds)

    def step_of(self, code: str, now: float) -> int | None:
        """The time step to which the code belongs; None: it is wrong. A step must be used only once."""
        found = None
        latest = self.latest_step(now)
        for step in range(latest - 2 * _STEPS_AROUND, latest + 1):
            if hmac.compare_digest(self._at(step).encode(), code.encode()):
                found = step
        return found

    def latest_step(self, now: float) -> int:
        """The last time step whose code counts now."""
        return int(now) // self.seconds + _STEPS_AROUND

    def _at(self, step: int) -> str:
        made = TOTP(self.secret, self.digits, _DIGESTS[self.digest](), self.seconds, enforce_key_length=False)
        return made.generate(step * self.seconds).decode("ascii")


def parse_one_time_secret(text: str, key: str) -> OneTimeSecret:
    """Base32 as on a set-up page, or its otpauth:// address. `key` names the text in errors.

    Raises:
        ConfigurationError: it is neither; the message does not repeat it.
    """
    text = text.strip()
    options: dict[str, list[str]] = {}
    try:
        if text.startswith("otpauth://"):
            address = urlsplit(text)
            if address.netloc != "totp":
                raise ConfigurationError("is not for codes by time (totp); others are not supported", key=key)
            options = parse_qs(address.query)
            text = options.get("secret", [""])[0]
        plain = "".join(text.split()).replace("-", "").upper().rstrip("=")
        secret = base64.b32decode(plain + "=" * (-len(plain) % 8))
        digits = int(options.get("digits", ["6"])[0])
        seconds = int(options.get("period", ["30"])[0])
    except (binascii.Error, ValueError):
        secret, digits, seconds = b"", 6, 30
    digest = options.get("algorithm", ["SHA1"])[0].upper()
    if (
        len(secret) < _LEAST_OCTETS
        or digits not in (6, 7, 8)
        or not 1 <= seconds <= 3600
        or digest not in _DIGESTS
    ):
        raise ConfigurationError(
            "is no secret for one-time codes: copy the Base32 text (A-Z, 2-7; at least 16 characters) or the "
            "otpauth:// address that the server's owner gave you",
            key=key,
        )
    return OneTimeSecret(secret, digits, seconds, digest)
