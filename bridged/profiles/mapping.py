"""Directives that have a counterpart here: one function for each, from words to fields of `Profile`.

Source: docs/protocol/data.md#7 (rows "Map"). Those about trust are in `mapping_trust`, those about reaching a
server in `mapping_connection`.
Pure.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Interface, IPv6Interface
from typing import Final

from bridged.addresses import MacAddress
from bridged.catalogue.settings import limits_of_key
from bridged.profiles.draft import Draft, Mapper, argument, number_argument, refuse
from bridged.profiles.mapping_connection import CONNECTION_MAPPERS
from bridged.profiles.mapping_login import LOGIN_MAPPERS
from bridged.profiles.mapping_proxy import PROXY_MAPPERS
from bridged.profiles.mapping_trust import TRUST_MAPPERS
from bridged.profiles.scripts import bridge_in_command
from bridged.profiles.statements import Statement
from bridged.protocol.packets.framing_choice import PUSHED, framing_of_directive

_FRAMING_ONLY: Final = frozenset((*PUSHED.values(), "compress", "compress migrate"))
_INTERFACE: Final = re.compile(r"[!-.0-9;-~]{1,15}")


# Role


def _client(draft: Draft, statement: Statement) -> None:
    draft.is_client = draft.pulls = True


def _pull(draft: Draft, statement: Statement) -> None:
    draft.pulls = True


def _tls_client(draft: Draft, statement: Statement) -> None:
    draft.is_client = True


def _mode(draft: Draft, statement: Statement) -> None:
    if argument(statement, "a mode") != "p2p":
        refuse("this is a server's file; make a server with `bridged init`")


# TAP


def _dev(draft: Draft, statement: Statement) -> None:
    name = argument(statement, "a device")
    draft.device_line = statement.line
    draft.device_kind = next((kind for kind in ("tap", "tun") if name.startswith(kind)), None)
    if name not in ("tap", "tun") and not _INTERFACE.fullmatch(name):
        refuse(f"{name!r} cannot be an adapter's name (1 to 15 printable characters without `/`, `:`)")
    draft.device_name = None if name in ("tap", "tun") else name


def _dev_type(draft: Draft, statement: Statement) -> None:
    kind = argument(statement, "tap")
    if kind not in ("tap", "tun"):
        refuse(f"{kind!r} is neither tap nor tun")
    draft.device_line = statement.line
    draft.device_type = kind


def _lladdr(draft: Draft, statement: Statement) -> None:
    try:
        address = MacAddress.parse(argument(statement, "a MAC address"))
    except ValueError as error:
        refuse(str(error))
    if address.is_multicast or address.is_zero:
        refuse(f"{address} cannot be an adapter's address (multicast or all zero)")
    draft.profile.tap_mac = address


def _ifconfig(draft: Draft, statement: Statement) -> None:
    if len(statement.arguments) < 2:
        refuse("needs an address and a netmask")
    try:
        address = IPv4Interface("/".join(statement.arguments[:2]))
    except ValueError:
        refuse("needs an IPv4 address and a netmask, as 192.0.2.2 255.255.255.0")
    draft.set_address(address)


def _ifconfig_ipv6(draft: Draft, statement: Statement) -> None:
    text = argument(statement, "an address with its prefix length")
    try:
        address = IPv6Interface(text)
    except ValueError:
        refuse(f"{text!r} is not an IPv6 address with its prefix length, as 2001:db8::2/64")
    draft.set_address(address)


def _compression(draft: Draft, statement: Statement) -> None:
    """The framing of it. A server's file needs none: each client gets what it asks for."""
    framing = framing_of_directive(statement.words)
    if framing is None:
        refuse("is no compression that OpenVPN has; remove the line at both ends")
    if draft.role == "server":
        draft.note(statement, "nothing is compressed; each client gets the framing that it asks for")
        return
    draft.profile.compression_framing = None if framing == "none" else framing
    if " ".join(statement.words) not in _FRAMING_ONLY:
        draft.note(statement, "only its framing is used: bridged compresses nothing")


# Life


def _keepalive(draft: Draft, statement: Statement) -> None:
    draft.profile.ping_seconds = number_argument(statement, 1, 86400)
    draft.profile.restart_seconds = number_argument(statement, 1, 86400, 1)


def _ping_exit(draft: Draft, statement: Statement) -> None:
    draft.profile.restart_seconds = number_argument(statement, 0, 86400)
    draft.note(statement, "the tunnel is set up again; the program does not exit")


def _up(draft: Draft, statement: Statement) -> None:
    bridge = bridge_in_command(" ".join(statement.arguments))
    draft.profile.bridge = bridge or draft.profile.bridge
    where = f"the bridge {bridge}; `--bridge` chooses another" if bridge else "the bridge itself"
    draft.note(statement, f"the script is not run; bridged puts the adapter into {where}")


def _plugin(draft: Draft, statement: Statement) -> None:
    file = argument(statement, "a file")
    if "down-root" in file:
        draft.note(statement, "the plug-in is not loaded; what its script undoes, bridged undoes itself")
        return
    refuse("plug-ins are not loaded; remove the line if the tunnel works without")


def _cd(draft: Draft, statement: Statement) -> None:
    draft.profile.directory = argument(statement, "a folder")


def _limit(attribute: str, low: int, high: int) -> Mapper:
    """A mapper that sets `attribute` to the first argument, moved into our limits with a notice."""

    def mapper(draft: Draft, statement: Statement) -> None:
        asked = number_argument(statement, 0, 1 << 62)
        taken = min(max(asked, low), high)
        if taken != asked:
            draft.note(statement, f"{taken} is used in place of {asked}")
        setattr(draft.profile, attribute, taken)

    return mapper


def _limit_of_key(attribute: str, path: str) -> Mapper:
    """`_limit` with the limits of this key of the configuration."""
    least, most = limits_of_key(path)
    return _limit(attribute, int(least or 0), 1 << 62 if most is None else int(most))


MAPPERS: Final[dict[str, Mapper]] = {
    **TRUST_MAPPERS,
    **CONNECTION_MAPPERS,
    **LOGIN_MAPPERS,
    **PROXY_MAPPERS,
    "client": _client,
    "pull": _pull,
    "tls-client": _tls_client,
    "mode": _mode,
    "dev": _dev,
    "dev-type": _dev_type,
    "lladdr": _lladdr,
    "ifconfig": _ifconfig,
    "ifconfig-ipv6": _ifconfig_ipv6,
    "comp-lzo": _compression,
    "compress": _compression,
    "reneg-sec": _limit("renegotiate_seconds", 0, 1 << 31),
    "reneg-bytes": _limit_of_key("renegotiate_bytes", "renegotiate.bytes"),
    "reneg-pkts": _limit_of_key("renegotiate_packets", "renegotiate.packets"),
    "hand-window": _limit("handshake_seconds", 5, 3600),
    "tran-window": _limit("transition_seconds", 1, 1 << 31),
    "replay-window": _limit_of_key("replay_window", "replay_window"),
    "keepalive": _keepalive,
    "ping": _limit("ping_seconds", 0, 86400),
    "ping-restart": _limit("restart_seconds", 0, 86400),
    "ping-exit": _ping_exit,
    "cd": _cd,
    "up": _up,
    "plugin": _plugin,
}

INLINE: Final = frozenset(
    (
        "ca",
        "cert",
        "key",
        "askpass",
        "auth-user-pass",
        "extra-certs",
        "http-proxy-user-pass",
        "pkcs12",
        "crl-verify",
        "peer-fingerprint",
        "tls-auth",
        "tls-crypt",
        "secret",
        "tls-crypt-v2",
    )
)
"""Mapped directives that can be written as a block, except `connection`, which is read separately."""
