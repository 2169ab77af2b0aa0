"""Directives that have a counterpart here: one function each, from words to fields of `Profile`.

Source: docs/protocol/data.md, section 7 (rows "Map").
Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Interface, ip_address, ip_interface
from typing import Final, NoReturn

from bridged.addresses import Endpoint, MacAddress
from bridged.profiles.profile import Material, Notice, Profile
from bridged.profiles.statements import Statement

CIPHERS: Final = ("AES-256-GCM", "AES-128-GCM", "CHACHA20-POLY1305")
DIGESTS: Final = ("SHA1", "SHA256", "SHA384", "SHA512")
DEFAULT_PORT: Final = 1194
_UDP: Final = frozenset({"udp", "udp4", "udp6"})
_TCP: Final = frozenset(
    f"tcp{family}{end}" for family in ("", "4", "6") for end in ("", "-client", "-server")
)
_EKU_SERVER: Final = frozenset({"TLS Web Server Authentication", "serverAuth", "1.3.6.1.5.5.7.3.1"})
_EKU_CLIENT: Final = frozenset({"TLS Web Client Authentication", "clientAuth", "1.3.6.1.5.5.7.3.2"})
_INTERFACE: Final = re.compile(r"[!-.0-9;-~]{1,15}")
_UDP_IP_OVERHEAD: Final = 28
_TCP_IP_HEADERS: Final = 40


class Refusal(Exception):
    """The directive cannot be taken; the text says why and what to do."""


@dataclass(slots=True)
class RemoteLine:
    """One `remote` before the file's defaults for port and protocol are known."""

    line: int
    host: str
    port: int | None
    protocol: str | None


@dataclass(slots=True)
class Draft:
    """A profile while its statements are read."""

    profile: Profile = field(default_factory=Profile)
    remotes: list[RemoteLine] = field(default_factory=list)
    protocol: str = "udp"
    remote_port: int = DEFAULT_PORT
    local_host: str | None = None
    local_port: int | None = None
    is_client: bool = False
    pulls: bool = False
    binds: bool = True
    device_line: int | None = None
    device_type: str | None = None
    device_name: str | None = None
    digest: tuple[int, str] | None = None
    legacy_cipher: str | None = None

    def note(self, statement: Statement, text: str) -> None:
        self.profile.notices.append(Notice(statement.line, f"`{statement.name}`: {text}"))


Mapper = Callable[[Draft, Statement], None]


def _refuse(reason: str) -> NoReturn:
    raise Refusal(reason)


def _argument(statement: Statement, what: str) -> str:
    if not statement.arguments or not statement.arguments[0]:
        _refuse(f"needs {what}")
    return statement.arguments[0]


def number(text: str, low: int, high: int) -> int:
    """A decimal number within limits; raises Refusal."""
    if not text.isascii() or not text.isdigit() or len(text) > 20 or not low <= int(text) <= high:
        _refuse(f"{text!r} is not a number from {low} to {high}")
    return int(text)


def _number(statement: Statement, low: int, high: int, index: int = 0) -> int:
    if len(statement.arguments) <= index:
        _refuse(f"needs a number from {low} to {high}")
    return number(statement.arguments[index], low, high)


def _material(statement: Statement) -> Material:
    if statement.inline is not None:
        return Material(statement.line, text=statement.inline)
    path = _argument(statement, "a file, or an inline block")
    if path == "[inline]":
        _refuse(f"`[inline]` needs a block `<{statement.name}>`; the file has none")
    return Material(statement.line, path=path)


# Transport


def _client(draft: Draft, statement: Statement) -> None:
    draft.is_client = draft.pulls = True


def _pull(draft: Draft, statement: Statement) -> None:
    draft.pulls = True


def _tls_client(draft: Draft, statement: Statement) -> None:
    draft.is_client = True


def _mode(draft: Draft, statement: Statement) -> None:
    if _argument(statement, "a mode") != "p2p":
        _refuse("this is a server's file; make a server with `bridged init`")


def _remote(draft: Draft, statement: Statement) -> None:
    host = _argument(statement, "a host")
    try:
        Endpoint.parse(f"[{host}]" if ":" in host else host, DEFAULT_PORT)
    except ValueError as error:
        _refuse(str(error))
    if not host.isprintable() or len(host) > 253:
        _refuse(f"{host!r} is not a host name or an address")
    words = statement.arguments
    port = _number(statement, 1, 65535, 1) if len(words) > 1 else None
    protocol = _protocol(words[2]) if len(words) > 2 else None
    draft.remotes.append(RemoteLine(statement.line, host, port, protocol))


def _protocol(word: str) -> str:
    if word not in _UDP and word not in _TCP:
        _refuse(f"{word!r} is not a protocol that OpenVPN has")
    return word


def _proto(draft: Draft, statement: Statement) -> None:
    draft.protocol = _protocol(_argument(statement, "a protocol"))


def _port(draft: Draft, statement: Statement) -> None:
    draft.remote_port = draft.local_port = _number(statement, 1, 65535)


def _rport(draft: Draft, statement: Statement) -> None:
    draft.remote_port = _number(statement, 1, 65535)


def _lport(draft: Draft, statement: Statement) -> None:
    draft.local_port = _number(statement, 0, 65535) or None


def _local(draft: Draft, statement: Statement) -> None:
    host = _argument(statement, "an address")
    try:
        draft.local_host = str(ip_address(host))
    except ValueError:
        raise Refusal(f"{host!r} is no IP address; write the address to send from, not a name") from None


def _nobind(draft: Draft, statement: Statement) -> None:
    draft.binds = False


# TAP


def _dev(draft: Draft, statement: Statement) -> None:
    name = _argument(statement, "a device")
    draft.device_line = statement.line
    if name.startswith("tun") or name == "null":
        draft.device_type = draft.device_type or "tun"
    elif name.startswith("tap"):
        draft.device_type = draft.device_type or "tap"
    if name not in ("tap", "tun"):
        if not _INTERFACE.fullmatch(name):
            _refuse(f"{name!r} cannot be an adapter's name (1 to 15 printable characters without `/`, `:`)")
        draft.device_name = name


def _dev_type(draft: Draft, statement: Statement) -> None:
    kind = _argument(statement, "tap")
    if kind not in ("tap", "tun"):
        _refuse(f"{kind!r} is neither tap nor tun")
    draft.device_line = statement.line
    draft.device_type = kind


def _lladdr(draft: Draft, statement: Statement) -> None:
    try:
        address = MacAddress.parse(_argument(statement, "a MAC address"))
    except ValueError as error:
        _refuse(str(error))
    if address.is_multicast or address.is_zero:
        _refuse(f"{address} cannot be an adapter's address (multicast or all zero)")
    draft.profile.tap_mac = address


def _tun_mtu(draft: Draft, statement: Statement) -> None:
    draft.profile.mtu = _number(statement, 576, 65521)


def _mssfix(draft: Draft, statement: Statement) -> None:
    words = statement.arguments
    size = number(words[0], 0, 65535) if words else 1492
    profile, mode = draft.profile, words[1] if len(words) > 1 else ("" if words else "mtu")
    if mode not in ("", "mtu", "fixed"):
        _refuse(f"{mode!r} is neither mtu nor fixed")
    if size == 0:
        profile.mss = 0
    elif mode == "fixed":
        if size <= _TCP_IP_HEADERS + 88:
            _refuse(f"{size} leaves no room for TCP")
        profile.mss = size - _TCP_IP_HEADERS
    else:
        outer = size + (0 if mode == "mtu" else _UDP_IP_OVERHEAD)
        if not 576 <= outer <= 65535:
            _refuse(f"{size} is not a packet size from 576 to 65507")
        profile.wan_mtu = outer


def _ifconfig(draft: Draft, statement: Statement) -> None:
    if len(statement.arguments) < 2:
        _refuse("needs an address and a netmask")
    try:
        address = IPv4Interface("/".join(statement.arguments[:2]))
    except ValueError:
        _refuse("needs an IPv4 address and a netmask, as 192.0.2.2 255.255.255.0")
    draft.profile.addresses.append(str(address))


def _ifconfig_ipv6(draft: Draft, statement: Statement) -> None:
    text = _argument(statement, "an address with its prefix length")
    try:
        address = ip_interface(text)
    except ValueError:
        _refuse(f"{text!r} is not an IPv6 address with its prefix length, as 2001:db8::2/64")
    draft.profile.addresses.append(str(address))


# Trust


def _ca(draft: Draft, statement: Statement) -> None:
    draft.profile.ca = _material(statement)


def _cert(draft: Draft, statement: Statement) -> None:
    draft.profile.certificate = _material(statement)


def _extra_certs(draft: Draft, statement: Statement) -> None:
    draft.profile.extra_certificates = _material(statement)


def _key(draft: Draft, statement: Statement) -> None:
    draft.profile.key = _material(statement)


def _crl_verify(draft: Draft, statement: Statement) -> None:
    if len(statement.arguments) > 1:
        _refuse("a folder of serial numbers is not supported; name a file with the list in PEM form")
    draft.profile.crl = _material(statement)


def _peer_fingerprint(draft: Draft, statement: Statement) -> None:
    if statement.inline is None:
        texts = [_argument(statement, "a SHA-256 fingerprint")]
    else:
        texts = [line.strip() for line in statement.inline.splitlines()]
        texts = [text for text in texts if text and text[0] not in "#;"]
    for text in texts:
        digits = text.replace(":", "").lower()
        if not re.fullmatch(r"[0-9a-f]{64}", digits):
            _refuse(f"{text!r} is not a SHA-256 fingerprint (64 hex digits)")
        draft.profile.peer_fingerprints.append(digits)


def _verify_x509_name(draft: Draft, statement: Statement) -> None:
    name = _argument(statement, "a name")
    kind = statement.arguments[1] if len(statement.arguments) > 1 else "subject"
    if kind == "name":
        draft.profile.peer_name = name
    elif kind == "name-prefix":
        draft.profile.peer_name_prefix = name
    elif kind == "subject" and re.fullmatch(r"CN ?= ?[^,=]+", name):
        draft.profile.peer_name = name.partition("=")[2].strip()
    elif kind == "subject":
        _refuse("only the common name is compared here: write `verify-x509-name COMMON-NAME name`")
    else:
        _refuse(f"{kind!r} is none of subject, name, name-prefix")


def _remote_cert_tls(draft: Draft, statement: Statement) -> None:
    role = _argument(statement, "client or server")
    if role == "server":
        draft.profile.peer_role = "server"
    elif role == "client":
        draft.profile.peer_role = "client"
    else:
        _refuse(f"{role!r} is neither client nor server")


def _remote_cert_eku(draft: Draft, statement: Statement) -> None:
    usage = _argument(statement, "an extended key usage")
    if usage in _EKU_SERVER:
        draft.profile.peer_role = "server"
    elif usage in _EKU_CLIENT:
        draft.profile.peer_role = "client"
    else:
        _refuse(f"{usage!r} is not known here; use `remote-cert-tls server`")


def _tls_auth(draft: Draft, statement: Statement) -> None:
    _set_wrap(draft, statement, "tls-auth")
    if len(statement.arguments) > 1:
        draft.profile.wrap_direction = 1 if _number(statement, 0, 1, 1) else 0


def _tls_crypt(draft: Draft, statement: Statement) -> None:
    _set_wrap(draft, statement, "tls-crypt")


def _set_wrap(draft: Draft, statement: Statement, mode: str) -> None:
    profile = draft.profile
    if profile.wrap not in ("none", mode):
        _refuse(f"only one of tls-auth and tls-crypt; {profile.wrap} is above")
    profile.wrap = "tls-auth" if mode == "tls-auth" else "tls-crypt"
    profile.wrap_key = _material(statement)


def _key_direction(draft: Draft, statement: Statement) -> None:
    draft.profile.wrap_direction = 1 if _number(statement, 0, 1) else 0


def _x509_username_field(draft: Draft, statement: Statement) -> None:
    if _argument(statement, "a field").upper() != "CN":
        _refuse("peers are told apart by their common name; only CN is supported")


# Cryptography


def _cipher(draft: Draft, statement: Statement) -> None:
    name = _argument(statement, "a cipher").upper()
    if name == "NONE":
        _refuse("would carry frames in the clear; remove the line")
    draft.legacy_cipher = name
    if name not in CIPHERS:
        draft.note(
            statement,
            f"{name} is not used: {CIPHERS[0]} and others are negotiated, as every server from 2.4 on can",
        )


def _data_ciphers(draft: Draft, statement: Statement) -> None:
    known: list[str] = []
    for name in _argument(statement, "a list of ciphers").upper().split(":"):
        bare = name.removeprefix("?")
        if bare not in CIPHERS:
            draft.note(statement, f"{bare} is not supported and left out")
        elif bare not in known:
            known.append(bare)
    if not known:
        _refuse(f"none of these ciphers is supported; the server must have one of {', '.join(CIPHERS)}")
    draft.profile.ciphers = known


def _auth(draft: Draft, statement: Statement) -> None:
    draft.digest = (statement.line, _argument(statement, "a digest").upper().replace("SHA-", "SHA"))


def _tls_version_min(draft: Draft, statement: Statement) -> None:
    version = _argument(statement, "a TLS version")
    if version in ("1.0", "1.1"):
        draft.note(statement, "TLS below 1.2 is never used")
    elif version == "1.2":
        draft.profile.version_min = "1.2"
    elif version == "1.3":
        draft.profile.version_min = "1.3"
    else:
        _refuse(f"{version!r} is not a TLS version")


def _tls_version_max(draft: Draft, statement: Statement) -> None:
    version = _argument(statement, "a TLS version")
    if version == "1.2":
        draft.profile.version_max = "1.2"
    elif version == "1.3":
        draft.profile.version_max = "1.3"
    else:
        _refuse("TLS below 1.2 is not safe and not supported; remove the line")


def _key_derivation(draft: Draft, statement: Statement) -> None:
    if _argument(statement, "tls-ekm") != "tls-ekm":
        _refuse("only tls-ekm is known")


def _key_method(draft: Draft, statement: Statement) -> None:
    if _argument(statement, "2") != "2":
        _refuse("key method 1 is obsolete and not supported; remove the line at both ends")


def _limit(attribute: str, low: int, high: int) -> Mapper:
    """The first argument, brought within our limits with a notice, becomes `attribute`."""

    def mapper(draft: Draft, statement: Statement) -> None:
        asked = _number(statement, 0, 1 << 62)
        taken = min(max(asked, low), high)
        if taken != asked:
            draft.note(statement, f"{taken} is used in place of {asked}")
        setattr(draft.profile, attribute, taken)

    return mapper


# Life


def _keepalive(draft: Draft, statement: Statement) -> None:
    draft.profile.ping_seconds = _number(statement, 1, 86400)
    draft.profile.restart_seconds = _number(statement, 1, 86400, 1)


def _ping_exit(draft: Draft, statement: Statement) -> None:
    draft.profile.restart_seconds = _number(statement, 0, 86400)
    draft.note(statement, "the tunnel is set up again, the program does not end")


def _explicit_exit_notify(draft: Draft, statement: Statement) -> None:
    draft.profile.exit_notify = _number(statement, 0, 1000) > 0 if statement.arguments else True


def _cd(draft: Draft, statement: Statement) -> None:
    draft.profile.directory = _argument(statement, "a folder")


MAPPERS: Final[dict[str, Mapper]] = {
    "client": _client,
    "pull": _pull,
    "tls-client": _tls_client,
    "mode": _mode,
    "remote": _remote,
    "proto": _proto,
    "port": _port,
    "rport": _rport,
    "lport": _lport,
    "local": _local,
    "nobind": _nobind,
    "dev": _dev,
    "dev-type": _dev_type,
    "lladdr": _lladdr,
    "tun-mtu": _tun_mtu,
    "mssfix": _mssfix,
    "ifconfig": _ifconfig,
    "ifconfig-ipv6": _ifconfig_ipv6,
    "ca": _ca,
    "cert": _cert,
    "extra-certs": _extra_certs,
    "key": _key,
    "crl-verify": _crl_verify,
    "peer-fingerprint": _peer_fingerprint,
    "verify-x509-name": _verify_x509_name,
    "remote-cert-tls": _remote_cert_tls,
    "ns-cert-type": _remote_cert_tls,
    "remote-cert-eku": _remote_cert_eku,
    "tls-auth": _tls_auth,
    "tls-crypt": _tls_crypt,
    "key-direction": _key_direction,
    "x509-username-field": _x509_username_field,
    "cipher": _cipher,
    "data-ciphers": _data_ciphers,
    "ncp-ciphers": _data_ciphers,
    "auth": _auth,
    "tls-version-min": _tls_version_min,
    "tls-version-max": _tls_version_max,
    "key-derivation": _key_derivation,
    "key-method": _key_method,
    "reneg-sec": _limit("renegotiate_seconds", 0, 1 << 31),
    "reneg-bytes": _limit("renegotiate_bytes", 0, 1 << 62),
    "reneg-pkts": _limit("renegotiate_packets", 0, 1 << 62),
    "hand-window": _limit("handshake_seconds", 5, 3600),
    "tran-window": _limit("transition_seconds", 1, 1 << 31),
    "replay-window": _limit("replay_window", 64, 65536),
    "keepalive": _keepalive,
    "ping": _limit("ping_seconds", 0, 86400),
    "ping-restart": _limit("restart_seconds", 0, 86400),
    "ping-exit": _ping_exit,
    "explicit-exit-notify": _explicit_exit_notify,
    "cd": _cd,
}

INLINE: Final = frozenset(
    {"ca", "cert", "key", "extra-certs", "crl-verify", "peer-fingerprint", "tls-auth", "tls-crypt"}
)
"""Mapped directives that may be written as a block; `connection` is taken apart before."""
