"""Static keys: the 256 bytes of a tls-auth or tls-crypt key, and the file that holds them.

Source: docs/protocol/control.md#2-3, #2-4 and #2-7.
Pure: text in, bytes out; random bytes come from the caller.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from bridged.errors import ConfigurationError

STATIC_KEY_LENGTH: Final = 256
_SLOT: Final = 64
_BEGIN: Final = "-----BEGIN OpenVPN Static key V1-----"
_END: Final = "-----END OpenVPN Static key V1-----"
_HEX: Final = re.compile(r"[0-9a-fA-F]*\Z")


@dataclass(frozen=True, slots=True, eq=False)
class StaticKey:
    """256 secret bytes in four slots of 64; never shown by repr.

    Raises:
        ValueError: not 256 bytes.
    """

    octets: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.octets) != STATIC_KEY_LENGTH:
            raise ValueError(f"a static key has {STATIC_KEY_LENGTH} bytes, not {len(self.octets)}")

    @classmethod
    def generate(cls, random_bytes: Callable[[int], bytes]) -> StaticKey:
        """Make a new key; `random_bytes(n)` must return n bytes of a CSPRNG."""
        return cls(random_bytes(STATIC_KEY_LENGTH))

    @property
    def cipher0(self) -> bytes:
        return self.octets[:_SLOT]

    @property
    def hmac0(self) -> bytes:
        return self.octets[_SLOT : 2 * _SLOT]

    @property
    def cipher1(self) -> bytes:
        return self.octets[2 * _SLOT : 3 * _SLOT]

    @property
    def hmac1(self) -> bytes:
        return self.octets[3 * _SLOT :]

    def serialize(self) -> str:
        """The text of a key file: header, 16 lines of 32 hex digits, footer."""
        digits = self.octets.hex()
        lines = [digits[start : start + 32] for start in range(0, len(digits), 32)]
        return "\n".join(("#", "# 2048 bit OpenVPN static key", "#", _BEGIN, *lines, _END, ""))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StaticKey) and hmac.compare_digest(self.octets, other.octets)

    def __hash__(self) -> int:
        return hash(self.octets)


def parse_static_key(text: str, source_name: str) -> StaticKey:
    """Read a key file. Text before the header and after the footer is ignored.

    `source_name` names the file (or the inline block) in errors.

    Raises:
        ConfigurationError: header or footer is missing, a character is no hex digit, or there are not
            256 bytes. The message names the line, never the digits.
    """
    lines = text.splitlines()
    begin = next((index for index, line in enumerate(lines) if line.strip() == _BEGIN), None)
    if begin is None:
        raise _wrong(f"no line `{_BEGIN}`; is this a static key file?", source_name)
    digits: list[str] = []
    for index, line in enumerate(lines[begin + 1 :], begin + 2):
        content = "".join(line.split())
        if line.strip() == _END:
            break
        if not _HEX.match(content):
            raise _wrong("not a line of hex digits", source_name, index)
        digits.append(content)
    else:
        raise _wrong(f"no line `{_END}`; the key is cut off", source_name)
    joined = "".join(digits)
    if len(joined) != 2 * STATIC_KEY_LENGTH:
        raise _wrong(
            f"{len(joined)} hex digits between header and footer; a key has {2 * STATIC_KEY_LENGTH}",
            source_name,
            begin + 1,
        )
    return StaticKey(bytes.fromhex(joined))


def _wrong(reason: str, source_name: str, line: int | None = None) -> ConfigurationError:
    return ConfigurationError(reason, file=source_name, line=line, code="static_key")
