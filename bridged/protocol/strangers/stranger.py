"""What a packet that cannot be opened says about its sender: its wrap, or that it uses no TLS.

Source: docs/protocol/control.md#1, #2 and #4-2 (a client's first packet in each wrap).
Pure: bytes in, values out. These are guesses about hostile input, good enough for a message only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from bridged.protocol.keys.digest import DIGESTS
from bridged.protocol.packets.packet import HEADER_LENGTH, Opcode
from bridged.protocol.packets.wrap import TlsCryptV2Server, WrapKeys
from bridged.protocol.packets.wrap.keys import PACKET_ID_LENGTH

_TAIL: Final = bytes(5)
"""The end of a client's first packet: no acknowledgements, message id 0."""
_TLS_CRYPT_TAG: Final = 32
_WRAPPED_KEY_LEAST: Final = 290
_CBC_BLOCK: Final = 16
_MAC_LENGTHS: Final = (20, 32, 64, 48, 28, 16)

WRAP_OTHER_KIND: Final = "wrap_other_kind"
WRAP_MISMATCH: Final = "wrap_mismatch"
TLS_CRYPT_V2: Final = "tls_crypt_v2"
STATIC_KEY: Final = "static_key"


@dataclass(frozen=True, slots=True)
class Stranger:
    """`code` is a drop reason. `advice` says what the sender does wrong, and what to do about it."""

    code: str
    advice: str


def recognise(datagram: bytes, ours: WrapKeys) -> Stranger | None:
    """What is known of the sender of a packet that `ours` could not open; None if nothing."""
    kind = _wrap_of(datagram)
    if kind == TLS_CRYPT_V2 and ours.name == "tls-crypt-v2":
        return Stranger(
            WRAP_MISMATCH, "its tls-crypt-v2 key was made with another server key: invite it again"
        )
    if kind == TLS_CRYPT_V2:
        what = "it wraps with tls-crypt-v2, which is not offered here"
        return Stranger(TLS_CRYPT_V2, f"{what}: {_cure('tls-crypt-v2', ours)}")
    if kind is None:
        return _static_key(datagram)
    if isinstance(ours, TlsCryptV2Server) and ours.old is not None and kind == ours.old.name:
        return Stranger(WRAP_MISMATCH, _other_key(datagram, ours.old))
    if kind == ours.name == "none":
        return None
    if kind == ours.name:
        return Stranger(WRAP_MISMATCH, _other_key(datagram, ours))
    theirs = "does not wrap" if kind == "none" else f"wraps with {kind}"
    here = "does not wrap" if ours.name == "none" else f"wraps with {ours.name}"
    return Stranger(WRAP_OTHER_KIND, f"it {theirs}, and this tunnel {here}: {_cure(kind, ours)}")


def _cure(kind: str, ours: WrapKeys) -> str:
    if ours.name == "none":
        return f"remove `{kind}` from its profile"
    instead = "" if kind == "none" else f" instead of `{kind}`"
    return f"give its profile this tunnel's `{ours.name}` key{instead}"


def _wrap_of(datagram: bytes) -> str | None:
    """The wrap of a client's first packet: a `WrapKeys.name`, or TLS_CRYPT_V2; None: no such packet."""
    opcode = datagram[0] >> 3 if datagram else 0
    if opcode in (Opcode.HARD_RESET_CLIENT_V3, Opcode.CONTROL_WKC_V1):
        room = HEADER_LENGTH + PACKET_ID_LENGTH + _TLS_CRYPT_TAG + len(_TAIL) + _WRAPPED_KEY_LEAST
        is_first = datagram[HEADER_LENGTH : HEADER_LENGTH + 2] in (b"\0\0", b"\x0f\0")
        is_first = is_first or (_is_early_id(datagram, HEADER_LENGTH) and _ends_in_key(datagram))
        return TLS_CRYPT_V2 if len(datagram) >= room and is_first else None
    if opcode != Opcode.HARD_RESET_CLIENT_V2:
        return None
    if len(datagram) == HEADER_LENGTH + len(_TAIL):
        return "none" if datagram.endswith(_TAIL) else None
    if _auth_digests(datagram):
        return "tls-auth"
    is_tls_crypt = len(datagram) == HEADER_LENGTH + PACKET_ID_LENGTH + _TLS_CRYPT_TAG + len(_TAIL)
    return "tls-crypt" if is_tls_crypt and _is_early_id(datagram, HEADER_LENGTH) else None


def _auth_digests(datagram: bytes) -> list[str]:
    """The digests whose length fits the HMAC of a first tls-auth packet; empty if it is no such packet."""
    length = len(datagram) - HEADER_LENGTH - PACKET_ID_LENGTH - len(_TAIL)
    if not datagram.endswith(_TAIL) or not _is_early_id(datagram, HEADER_LENGTH + length):
        return []
    return [name for name, (_, octets) in DIGESTS.items() if octets == length]


def _is_early_id(datagram: bytes, at: int) -> bool:
    """A packet id of a new session: ours begin below 2^24 (decision 124); later 2.6 ones begin with 0F."""
    return datagram[at : at + 1] in (b"\0", b"\x0f")


def _ends_in_key(datagram: bytes) -> bool:
    """The last two bytes are the length of a wrapped key that fits."""
    length = int.from_bytes(datagram[-2:], "big")
    return _WRAPPED_KEY_LEAST <= length <= len(datagram) - HEADER_LENGTH - PACKET_ID_LENGTH - _TLS_CRYPT_TAG


def _other_key(datagram: bytes, ours: WrapKeys) -> str:
    if ours.name != "tls-auth":
        return f"its {ours.name} key is not this tunnel's: compare the keys"
    digests = _auth_digests(datagram)
    own = getattr(ours, "digest", "")
    if own not in digests:
        return f"its `auth` is {' or '.join(digests)}, and this tunnel's is {own}: set the same at both ends"
    return (
        "its tls-auth key or direction does not match: compare the keys; `key-direction` is 0 here, 1 there"
    )


def _static_key(datagram: bytes) -> Stranger | None:
    """Data packets without a header: HMAC, IV and whole blocks. Their first bytes are random."""
    for mac in _MAC_LENGTHS:
        rest = len(datagram) - mac
        if rest >= 2 * _CBC_BLOCK and rest % _CBC_BLOCK == 0:
            return Stranger(
                STATIC_KEY,
                "it seems to use a static key (`secret`), without TLS: it needs certificates, `client` and "
                "`ca`, `cert`, `key` in its profile (see `bridged invite`)",
            )
    return None
