"""Directives of a server's file that have a counterpart here.

Source: docs/protocol/data.md#7; OpenVPN's manual page on `server`, `server-bridge` and `push`.
Pure.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Interface
from typing import Final

from bridged.profiles.draft import Draft, Mapper, Refusal, argument, number_argument, refuse
from bridged.profiles.not_yet import NOT_YET
from bridged.profiles.statements import Statement

PUSH_CHARACTERS_MAX: Final = 256
_POOL: Final = NOT_YET["address_pool"].reason if "address_pool" in NOT_YET else ""
_DONE_BY_KEEPALIVE: Final = frozenset({"ping", "ping-restart"})
_OF_NO_USE: Final = frozenset({"persist-key", "persist-tun"})
_FRAMING: Final = frozenset({"comp-lzo", "compress"})


def _mode(draft: Draft, statement: Statement) -> None:
    if argument(statement, "a mode") != "server":
        refuse("contradicts the lines that make this a server; remove it")


def _nothing(draft: Draft, statement: Statement) -> None:
    """It says what the kind of the file already says."""


def _server_bridge(draft: Draft, statement: Statement) -> None:
    words = statement.arguments
    if not words or words == ("nogw",):
        draft.server.pushes_gateway = "dhcp" if not words else None
        return
    if len(words) != 4:
        refuse("needs no argument, `nogw`, or GATEWAY NETMASK FROM TO")
    gateway, mask, first, last = words
    try:
        network = IPv4Interface(f"{gateway}/{mask}").network
        pool = IPv4Address(first), IPv4Address(last)
    except ValueError:
        refuse("needs GATEWAY NETMASK FROM TO, as 192.0.2.4 255.255.255.0 192.0.2.128 192.0.2.254")
    if pool[0] > pool[1] or pool[0] not in network or pool[1] not in network:
        refuse(f"the addresses {first} to {last} are not a range of {network}")
    draft.server.pushes_gateway = gateway
    draft.note(statement, f"{first} to {last} are not handed out: {_POOL}")


def _server(draft: Draft, statement: Statement) -> None:
    words = statement.arguments
    try:
        network = IPv4Network("/".join(words[:2]))
    except ValueError:
        refuse("needs a network and its mask, as 192.0.2.0 255.255.255.0")
    if len(words) < 2 or network.num_addresses < 4:
        refuse("needs a network with room for clients, as 192.0.2.0 255.255.255.0")
    gateway = network[1]
    draft.set_address(IPv4Interface((gateway, network.prefixlen)))
    draft.server.pushes_gateway = str(gateway)
    draft.note(statement, f"{gateway} becomes an address of the bridge; {_POOL}")


def _server_ipv6(draft: Draft, statement: Statement) -> None:
    text = argument(statement, "a network, as 2001:db8::/64")
    try:
        network = IPv6Interface(text).network
    except ValueError:
        refuse(f"{text!r} is not an IPv6 network, as 2001:db8::/64")
    if network.num_addresses < 4:
        refuse(f"{text!r} has no room for clients")
    draft.set_address(IPv6Interface((network[1], network.prefixlen)))
    draft.note(statement, f"{network[1]} becomes an address of the bridge; {_POOL}")


def _client_to_client(draft: Draft, statement: Statement) -> None:
    draft.server.forwards_between_peers = True


def _duplicate_cn(draft: Draft, statement: Statement) -> None:
    draft.server.allows_duplicate_names = True


def _max_clients(draft: Draft, statement: Statement) -> None:
    draft.server.peers_max = number_argument(statement, 1, 16_000_000)


def _client_config_dir(draft: Draft, statement: Statement) -> None:
    draft.server.client_directory = argument(statement, "a folder")
    if "client_settings" in NOT_YET:
        draft.note(statement, f"not used: {NOT_YET['client_settings'].reason}")


def _verify_client_cert(draft: Draft, statement: Statement) -> None:
    kind = statement.arguments[0] if statement.arguments else "require"
    if kind in ("none", "optional"):
        draft.need("passwords")
    elif kind != "require":
        refuse(f"{kind!r} is none of none, optional, require")


def _push(draft: Draft, statement: Statement) -> None:
    option = " ".join(" ".join(statement.arguments).split())
    words = option.split()
    if not words:
        refuse("needs an option")
    if len(statement.arguments) > 1:
        draft.note(statement, f"read as one option: {option!r}")
    if words[0] in _DONE_BY_KEEPALIVE:
        draft.note(statement, "left out: bridged pushes both from `keepalive`")
    elif words[0] in _OF_NO_USE:
        draft.note(statement, "left out: it has no effect at clients of this server")
    elif words[0] in _FRAMING:
        draft.note(statement, "left out: bridged does not compress, nor does a client of this server then")
    elif "," in option or len(option) > PUSH_CHARACTERS_MAX or not option.isascii():
        refuse(f"must be printable ASCII without comma, of at most {PUSH_CHARACTERS_MAX} characters")
    elif not option.isprintable():
        refuse("has unprintable characters")
    elif option not in draft.server.push:
        draft.server.push.append(option)


def _local(draft: Draft, statement: Statement) -> None:
    words = statement.arguments
    if len(words) > 1 and words[1].isdigit():
        draft.connection.local_port = number_argument(statement, 1, 65535, 1)
    host = argument(statement, "an address")
    try:
        draft.take_local_host(host)
    except Refusal:
        refuse(f"{host!r} is no IP address; write the address to listen on, or remove the line to use all")


SERVER_MAPPERS: Final[dict[str, Mapper]] = {
    "mode": _mode,
    "tls-server": _nothing,
    "server-bridge": _server_bridge,
    "server": _server,
    "server-ipv6": _server_ipv6,
    "client-to-client": _client_to_client,
    "duplicate-cn": _duplicate_cn,
    "max-clients": _max_clients,
    "client-config-dir": _client_config_dir,
    "verify-client-cert": _verify_client_cert,
    "push": _push,
    "local": _local,
}
"""In a server's file, these come before those of a client's."""
