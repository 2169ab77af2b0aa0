"""The Internet checksum over many bytes, fast in pure Python.

Source: RFC 1071. A one's complement sum of 16-bit words is a number modulo 65535; byte order only swaps it.
The bytes are read as one long little-endian integer, folded in halves at a word boundary (2^16 = 1 modulo
65535), and only the short rest is divided. Pure: bytes in, numbers out.
"""

from __future__ import annotations

from typing import Final

_WORD: Final = 65535
_FOLD_FROM_OCTETS: Final = 256


def word_sum(data: bytes | bytearray) -> int:
    """Sum of the little-endian 16-bit words of `data` modulo 65535, 0..65534.

    An odd last byte is padded with zero, as the checksum requires.
    """
    number = int.from_bytes(data, "little")
    length = len(data)
    while length > _FOLD_FROM_OCTETS:
        length = (length + 3) // 4 * 2
        bits = length * 8
        number = (number >> bits) + (number & ((1 << bits) - 1))
        length += 2  # the carry
    return number % _WORD


def swapped(value: int) -> int:
    """A big-endian 16-bit number as a little-endian word, and back."""
    return (value & 0xFF) << 8 | value >> 8


def checksum_octets(total: int) -> bytes:
    """The two bytes of the checksum field, for a sum of words (`word_sum`) that leaves out that field."""
    return ((_WORD - total % _WORD) % _WORD).to_bytes(2, "little")


def partial_octets(total: int) -> bytes:
    """The two bytes of a sum that is not complemented, as NEEDS_CSUM wants it in the field."""
    return (total % _WORD or _WORD).to_bytes(2, "little")
