"""The options string of the key message: built, and compared for warnings.

Source: docs/protocol/control.md#5-1.
Pure: text in, text out. Differences do not matter, except in how frames are packed (`foreign_framing`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from bridged.protocol.keys.cipher import Cipher
from bridged.protocol.keys.digest import digest_length
from bridged.protocol.role import Role
from bridged.protocol.text import printable

TUN_MTU_DEFAULT: Final = 1500
_LINK_OVERHEAD_DEFAULT: Final = 53
_LINK_OVERHEAD_CBC: Final = 69
_LINK_OVERHEAD_AEAD: Final = 81
_TUN_MTU_OF_OLD_TAP: Final = "1532"
_NOT_REPORTED: Final = frozenset({"key-method", "keydir", "proto", "tls-auth", "tun-ipv6"})
_NEGOTIATED: Final = frozenset({"cipher", "auth", "keysize", "link-mtu", "comp-lzo"})
"""They follow from the data cipher and the framing, which are negotiated, or are compared elsewhere."""
_MAX_ENTRIES: Final = 64


@dataclass(frozen=True, slots=True)
class LinkOptions:
    """The contents of our options string.

    `tun_mtu` in bytes. `digest` is the configured `auth`. `key_direction` and `tls_auth` belong to a tls-auth
    wrap. `legacy_cipher`: only in P2P without pull (or if it is in data-ciphers). `wanted_cipher`: what a
    client names for servers that negotiate none (SoftEther); no other entry depends on it.
    """

    role: Role
    tun_mtu: int = TUN_MTU_DEFAULT
    tcp: bool = False
    digest: str = "SHA1"
    tls_auth: bool = False
    key_direction: int | None = None
    legacy_cipher: Cipher | None = None
    fragment: bool = False
    compression: bool = False
    """Compression framing is on. With `compression_octet` it counts one byte (not with stub-v2)."""
    compression_octet: bool = False
    wanted_cipher: Cipher | None = None
    static_key: bool = False
    """There is no TLS (`secret`)."""

    @property
    def link_mtu(self) -> int:
        """Bytes, as OpenVPN counts them for the configured cipher, not the negotiated one."""
        if self.legacy_cipher is None:
            overhead = _LINK_OVERHEAD_DEFAULT + digest_length(self.digest)
        elif self.legacy_cipher.is_cbc:
            overhead = _LINK_OVERHEAD_CBC + digest_length(self.digest)
        else:
            overhead = _LINK_OVERHEAD_AEAD
        return self.tun_mtu + overhead + 4 * self.fragment + self.compression_octet + 2 * self.tcp

    def mirrored(self) -> LinkOptions:
        """What the peer should say: the other role and the other key direction."""
        direction = None if self.key_direction is None else 1 - self.key_direction
        return replace(self, role=self.role.peer, key_direction=direction, wanted_cipher=None)


def build_options_string(options: LinkOptions) -> str:
    """Our options string, for TAP, in OpenVPN's order."""
    cipher = options.legacy_cipher
    parts = [
        "V4",
        "dev-type tap",
        f"link-mtu {options.link_mtu}",
        f"tun-mtu {options.tun_mtu}",
        f"proto {_protocol(options)}",
    ]
    if options.compression:
        parts.append("comp-lzo")
    if options.fragment:
        parts.append("mtu-dynamic")
    if options.key_direction is not None:
        parts.append(f"keydir {options.key_direction}")
    if named := cipher or options.wanted_cipher:
        parts.append(f"cipher {named.value}")
    has_digest = cipher is None or cipher.is_cbc
    parts.append(f"auth {options.digest if has_digest else '[null-digest]'}")
    parts.append(f"keysize {128 if cipher is None else 8 * cipher.key_length}")
    if options.static_key:
        return ",".join([*parts, "secret"])
    if options.tls_auth:
        parts.append("tls-auth")
    parts += ["key-method 2", f"tls-{options.role.value}"]
    return ",".join(parts)


def option_value(text: str, key: str) -> str | None:
    """Value of one key of an options string ("" for a bare key); None if it is absent."""
    return _entries(text).get(key)


def compare_options(expected: str, received: str) -> list[str]:
    """Differences worth a warning between what the peer says and what we expect, one text each.

    Empty if all agree, or if the first two characters (the version) differ.
    """
    if received[:2] != expected[:2]:
        return []
    ours, theirs = _entries(expected), _entries(received)
    differences: list[str] = []
    for key in dict.fromkeys((*ours, *theirs)):
        want, have = ours.get(key), theirs.get(key)
        if key in _NOT_REPORTED or key in _NEGOTIATED or want == have:
            continue
        if key == "tun-mtu" and have == _TUN_MTU_OF_OLD_TAP:
            # For TAP, peers up to 2.5 announce 32 bytes more.
            continue
        differences.append(f"{printable(key, 64)}: expected {_shown(want)}, peer has {_shown(have)}")
    return differences


@dataclass(frozen=True, slots=True)
class ForeignFraming:
    """A way of packing frames that only the peer uses, in words."""

    what: str
    cure: str

    def at(self, peer: str) -> str:
        """A sentence; `peer` is `client` or `server`."""
        other = "server" if peer == "client" else "client"
        differs = "has it" if self.what.startswith("lacks") else "does not"
        return f"the {peer} {self.what}, and this {other} {differs}: {self.cure} at the {peer}"


def foreign_compression(pushed: str | None = None, *, is_unknown: bool = False) -> ForeignFraming:
    """The peer uses compression framing. `pushed`: the option that a server pushes.

    In its options string OpenVPN says `comp-lzo` for every kind of framing, also without compression.
    `is_unknown`: nothing says which kind it uses.
    """
    found = f"pushes `{pushed}`" if pushed is not None else "uses `comp-lzo` or `compress`"
    ours = "`compression_framing: auto`"
    if is_unknown:
        ours = "`compression_framing` to what its file has (`comp-lzo`, `stub` for `compress`, or `stub-v2`)"
    cure = f"set {ours} here, or remove `comp-lzo` and `compress`"
    return ForeignFraming(f"{found} (compression framing)", cure)


def foreign_framing(received: str, *, fragments: bool = False) -> ForeignFraming | None:
    """Why this peer's frames would arrive damaged, by its options string; None if they would not.

    Compression framing is negotiated (`framing_choice`). `fragments`: this end cuts frames.
    """
    entries = _entries(received)
    if "mtu-dynamic" in entries and not fragments:
        return ForeignFraming("uses `fragment`", "set `fragment` here, too, or remove `fragment`")
    if fragments and "mtu-dynamic" not in entries and "V4" in entries:
        return ForeignFraming("lacks `fragment`", "remove `fragment` here, or add it")
    if entries.get("dev-type", "tap") != "tap":
        return ForeignFraming(
            f"uses `dev-type {printable(entries['dev-type'], 16)}`", "set `dev tap` or `dev-type tap`"
        )
    return None


def _entries(text: str) -> dict[str, str]:
    entries: dict[str, str] = {}
    for part in text.split(",", _MAX_ENTRIES)[:_MAX_ENTRIES]:
        key, _, value = part.partition(" ")
        if key:
            entries.setdefault(key, value)
    return entries


def _shown(value: str | None) -> str:
    if value is None:
        return "nothing"
    return printable(value, 64) or "it"


def _protocol(options: LinkOptions) -> str:
    return f"TCPv4_{options.role.name}" if options.tcp else "UDPv4"
