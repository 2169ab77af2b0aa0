"""What both ends can do: IV_PROTO bits, peer info, and the choice of the data cipher.

Source: docs/protocol/control.md#5-2 and #7.
Pure: text in, values out. Peer info is hostile input: it has limits and is made safe to print.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntFlag
from typing import Final

from bridged.errors import RemoteProtocolError
from bridged.protocol.keys.cipher import Cipher, normalise_cipher_name
from bridged.protocol.packets.options_string import option_value
from bridged.protocol.text import printable

MAX_PEER_INFO: Final = 4096
MAX_PEER_INFO_LINES: Final = 64
MAX_PEER_INFO_VALUE: Final = 256
_NAME: Final = re.compile(r"[A-Za-z0-9_]{1,64}\Z")


class ProtocolFlags(IntFlag):
    """Bits of IV_PROTO (control.md#5-2)."""

    NONE = 0
    DATA_V2 = 1 << 1
    REQUEST_PUSH = 1 << 2
    """Wants PUSH_REPLY without PUSH_REQUEST."""
    TLS_KEY_EXPORT = 1 << 3
    AUTH_PENDING_KEYWORDS = 1 << 4
    P2P_NEGOTIATION = 1 << 5
    DNS_OPTION_FIRST = 1 << 6
    CC_EXIT = 1 << 7
    """EXIT on the control channel; understands protocol-flags."""
    AUTH_FAILED_TEMP = 1 << 8
    DYNAMIC_TLS_CRYPT = 1 << 9
    AEAD_EPOCH = 1 << 10
    DNS_OPTION = 1 << 11
    PUSH_UPDATE = 1 << 12


@dataclass(frozen=True, slots=True)
class PeerInfo:
    """Lines `NAME=value` of the peer, in their order; names of 1..64 letters, digits and `_`.

    At most MAX_PEER_INFO_LINES lines; values are printable and at most MAX_PEER_INFO_VALUE
    characters.
    """

    entries: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, text: str) -> PeerInfo:
        """Read peer info. Leaves out malformed lines and all that exceeds the limits; never fails."""
        entries: list[tuple[str, str]] = []
        for line in text[:MAX_PEER_INFO].split("\n"):
            name, separator, value = line.partition("=")
            if separator and _NAME.match(name):
                entries.append((name, printable(value.rstrip("\r"), MAX_PEER_INFO_VALUE)))
                if len(entries) == MAX_PEER_INFO_LINES:
                    break
        return cls(tuple(entries))

    def serialize(self) -> str:
        """Text for the key message: each line, the last one too, ends in a line feed."""
        return "".join(f"{name}={value}\n" for name, value in self.entries)

    def get(self, name: str) -> str | None:
        """Value of the first line with this name; None if there is none."""
        return next((value for known, value in self.entries if known == name), None)

    @property
    def version(self) -> str | None:
        """IV_VER, such as `2.6.14`."""
        return self.get("IV_VER")

    @property
    def platform(self) -> str | None:
        """IV_PLAT, such as `linux`."""
        return self.get("IV_PLAT")

    @property
    def protocol(self) -> ProtocolFlags:
        """IV_PROTO; no bits if it is absent or not a number. Unknown bits are kept."""
        return ProtocolFlags(self._number("IV_PROTO") or 0)

    @property
    def ciphers(self) -> tuple[str, ...] | None:
        """IV_CIPHERS, normalised, ciphers unknown to us included; None if absent."""
        text = self.get("IV_CIPHERS")
        return None if text is None else split_cipher_names(text)

    @property
    def ncp(self) -> int:
        """IV_NCP; 0 if absent."""
        return self._number("IV_NCP") or 0

    @property
    def mtu(self) -> int | None:
        """IV_MTU: the largest tun-mtu that the peer accepts, in bytes; None if absent."""
        return self._number("IV_MTU")

    @property
    def accepts_pushed_cipher(self) -> bool:
        """The peer negotiates its cipher, and accepts a pushed one (control.md#7)."""
        return self.ciphers is not None or self.ncp >= 2

    def _number(self, name: str) -> int | None:
        text = self.get(name)
        if text is None or not text.isascii() or not text.isdigit() or len(text) > 9:
            return None
        return int(text)


def client_peer_info(
    *,
    version: str,
    platform: str,
    ciphers: Sequence[Cipher],
    flags: ProtocolFlags,
    max_mtu: int,
    answers_challenges: bool = False,
    abilities: Sequence[tuple[str, str]] = (),
) -> PeerInfo:
    """What a client with pull announces, in the order of 2.6. `max_mtu` in bytes; `abilities` come last."""
    both_gcm = {Cipher.AES_256_GCM, Cipher.AES_128_GCM} <= set(ciphers)
    return PeerInfo(
        (
            ("IV_VER", version),
            ("IV_PLAT", platform),
            ("IV_TCPNL", "1"),
            ("IV_MTU", str(max_mtu)),
            *((("IV_NCP", "2"),) if both_gcm else ()),
            ("IV_CIPHERS", ":".join(cipher.value for cipher in ciphers)),
            ("IV_PROTO", str(int(flags))),
            *((("IV_SSO", "crtext"),) if answers_challenges else ()),
            *abilities,
        )
    )


def point_to_point_peer_info(ciphers: Sequence[Cipher], flags: ProtocolFlags) -> PeerInfo:
    """What either end of a point-to-point link announces, as 2.6 does."""
    names = ":".join(cipher.value for cipher in ciphers)
    return PeerInfo((("IV_CIPHERS", names), ("IV_PROTO", str(int(flags)))))


def choose_cipher_point_to_point(
    ours: Sequence[Cipher],
    info: PeerInfo,
    remote_options: str,
    fallback: Cipher | None,
    order: Sequence[Cipher] | None,
) -> Cipher:
    """The first cipher of the TLS server's list (`order`; None: ours) that both ends have.

    A peer that negotiates none (2.5) uses the one of its options string, which must be one of ours.

    Raises:
        RemoteProtocolError: `cipher_mismatch`.
    """
    announced = info.ciphers
    for cipher in ours if order is None else order:
        if announced is not None and cipher in ours and cipher.value in announced:
            return cipher
    name = option_value(remote_options, "cipher")
    legacy = Cipher.find(name) if name is not None else fallback
    if legacy is not None and legacy in (*ours, fallback):
        return legacy
    raise _mismatch([*(announced or ()), printable(name or "", 64)], ours)


def split_cipher_names(text: str) -> tuple[str, ...]:
    """Normalised names of the peer's list, unknown ones included."""
    return tuple(normalise_cipher_name(name) for name in text.split(":") if name.strip())


def choose_cipher_for_client(
    server_ciphers: Sequence[Cipher], peer_info: PeerInfo, remote_options: str, fallback: Cipher | None = None
) -> Cipher:
    """The server's choice for one client: the first of its own list that the client can use.

    `remote_options` is the client's options string. `fallback`: for clients that negotiate none, and name
    this one or none at all.

    Raises:
        RemoteProtocolError: `cipher_mismatch`; answer AUTH_FAILED,CIPHER_MISMATCH_REASON.
    """
    announced = peer_info.ciphers
    legacy = option_value(remote_options, "cipher")
    if announced is not None:
        usable = set(announced)
    else:
        usable = {"AES-256-GCM", "AES-128-GCM"} if peer_info.ncp >= 2 else set()
        if legacy is not None:
            usable.add(normalise_cipher_name(legacy))
    for cipher in server_ciphers:
        if cipher.value in usable:
            return cipher
    if fallback is not None and not peer_info.accepts_pushed_cipher and usable <= {fallback.value}:
        return fallback
    raise _mismatch(sorted(usable), server_ciphers)


CIPHER_MISMATCH_REASON: Final = "Data channel cipher negotiation failed (no shared cipher)"


def accept_pushed_cipher(
    client_ciphers: Sequence[Cipher],
    pushed: str | None,
    remote_options: str,
    fallback: Cipher | None = None,
) -> Cipher:
    """The client's decision: the pushed cipher, or what the server's options string names, or `fallback`.

    Raises:
        RemoteProtocolError: `cipher_mismatch`; restart the connection.
    """
    name = pushed if pushed is not None else option_value(remote_options, "cipher")
    if name is None:
        if fallback is not None:
            return fallback
        raise RemoteProtocolError("cipher_mismatch", "the server names no cipher; set `fallback_cipher`")
    cipher = Cipher.find(name)
    if cipher is not None and cipher in (*client_ciphers, fallback):
        return cipher
    raise _mismatch([printable(name, 64)], client_ciphers)


def _mismatch(remote: Sequence[str], ours: Sequence[Cipher]) -> RemoteProtocolError:
    own = ":".join(cipher.value for cipher in ours)
    return RemoteProtocolError(
        "cipher_mismatch", f"the peer offers {':'.join(remote)[:200] or 'no cipher'}; ours are {own}"
    )
