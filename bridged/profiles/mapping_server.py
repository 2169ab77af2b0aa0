"""Directives of a server's file that have a counterpart here.

Source: docs/protocol/data.md#7; OpenVPN's manual page on `server`, `server-bridge` and `push`.
Pure.
"""

from __future__ import annotations

import shlex
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Interface, ip_interface
from typing import Final

from bridged.addresses import Endpoint
from bridged.profiles.draft import Draft, Mapper, Refusal, argument, number, number_argument, refuse
from bridged.profiles.mapping_server_login import SERVER_LOGIN_MAPPERS
from bridged.profiles.profile import Pool
from bridged.profiles.statements import Statement
from bridged.protocol.packets.framing_choice import is_framing_option

PUSH_CHARACTERS_MAX: Final = 256
_NO_IPV6: Final = "clients get no IPv6 addresses from bridged: let router advertisements of the LAN do it"
_DONE_BY_KEEPALIVE: Final = frozenset({"ping", "ping-restart"})
_OF_NO_USE: Final = frozenset({"persist-key", "persist-tun"})
_NEGOTIATED: Final = frozenset(
    {"cipher", "auth", "peer-id", "protocol-flags", "key-derivation", "auth-token", "auth-token-user"}
)


def _mode(draft: Draft, statement: Statement) -> None:
    if argument(statement, "a mode") != ("p2p" if draft.profile.point_to_point else "server"):
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
    draft.server.pool = Pool(*pool, network.prefixlen, gateway)


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
    if "nopool" not in words[2:]:
        draft.server.pool = Pool(network[2], network[-2], network.prefixlen, str(gateway))
    draft.note(statement, f"{gateway} becomes an address of the bridge")


def _ifconfig_pool(draft: Draft, statement: Statement) -> None:
    words = statement.arguments
    if len(words) < 2:
        refuse("needs two addresses and a netmask, as 192.0.2.100 192.0.2.200 255.255.255.0")
    mask = words[2] if len(words) > 2 else _mask(draft)
    if mask is None:
        refuse("needs the netmask as third argument, as 255.255.255.0")
    try:
        first, last = IPv4Address(words[0]), IPv4Address(words[1])
        network = IPv4Interface(f"{first}/{mask}").network
    except ValueError:
        refuse("needs two addresses and a netmask, as 192.0.2.100 192.0.2.200 255.255.255.0")
    if first > last or last not in network:
        refuse(f"{first} to {last} is not a range of {network}")
    draft.server.pool = Pool(first, last, network.prefixlen, draft.server.pushes_gateway)


def _mask(draft: Draft) -> str | None:
    """The netmask of the server's own address."""
    for text in draft.profile.addresses:
        address = ip_interface(text)
        if isinstance(address, IPv4Interface):
            return str(address.netmask)
    return None


def _persist(draft: Draft, statement: Statement) -> None:
    draft.note(
        statement,
        "its content is not taken over; bridged keeps addresses in its state folder, and `clients: {NAME: "
        "{address: …}}` fixes one",
    )


def _ccd_exclusive(draft: Draft, statement: Statement) -> None:
    draft.server.only_known_clients = True


def _server_ipv6(draft: Draft, statement: Statement) -> None:
    text = argument(statement, "a network, as 2001:db8::/64")
    try:
        network = IPv6Interface(text).network
    except ValueError:
        refuse(f"{text!r} is not an IPv6 network, as 2001:db8::/64")
    if network.num_addresses < 4:
        refuse(f"{text!r} has no room for clients")
    draft.set_address(IPv6Interface((network[1], network.prefixlen)))
    draft.note(statement, f"{network[1]} becomes an address of the bridge; {_NO_IPV6}")


def _client_to_client(draft: Draft, statement: Statement) -> None:
    draft.server.forwards_between_peers = True


def _duplicate_cn(draft: Draft, statement: Statement) -> None:
    draft.server.allows_duplicate_names = True


def _max_clients(draft: Draft, statement: Statement) -> None:
    draft.server.peers_max = number_argument(statement, 1, 16_000_000)


def _max_age(draft: Draft, statement: Statement) -> None:
    draft.server.wrap_max_age_days = number_argument(statement, 1, 36_500)


def _verify_keys(draft: Draft, statement: Statement) -> None:
    try:
        words = shlex.split(argument(statement, "a command"))
    except ValueError as error:
        refuse(f"cannot be read: {error}")
    if not words or not words[0].startswith("/"):
        refuse("needs the whole path of the program, as /usr/local/bin/check-key")
    draft.server.wrap_verify_command = words
    draft.note(statement, "the program is run as `wrap.verify_command`, by the user of bridged")


def _client_config_dir(draft: Draft, statement: Statement) -> None:
    draft.server.client_directory = argument(statement, "a folder")


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
    elif words[0] in _NEGOTIATED:
        draft.note(statement, "left out: bridged agrees on it with each client")
    elif is_framing_option(option):
        draft.note(statement, "left out: each client is pushed the framing that it asks for")
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


def _port_share(draft: Draft, statement: Statement) -> None:
    """A folder behind host and port gets the clients' addresses there; ours does not."""
    if len(statement.arguments) < 2:
        refuse("needs the host and the port of another server, as 127.0.0.1 8443")
    host, port = statement.arguments[0], number(statement.arguments[1], 1, 65535)
    try:
        where = f"[{host}]" if ":" in host else host
        draft.server.shares_port_with = Endpoint.parse(f"{where}:{port}")
    except ValueError as error:
        refuse(str(error))


SERVER_MAPPERS: Final[dict[str, Mapper]] = {
    **SERVER_LOGIN_MAPPERS,
    "mode": _mode,
    "tls-server": _nothing,
    "server-bridge": _server_bridge,
    "server": _server,
    "server-ipv6": _server_ipv6,
    "client-to-client": _client_to_client,
    "duplicate-cn": _duplicate_cn,
    "max-clients": _max_clients,
    "tls-crypt-v2-max-age": _max_age,
    "tls-crypt-v2-verify": _verify_keys,
    "client-config-dir": _client_config_dir,
    "ccd-exclusive": _ccd_exclusive,
    "ifconfig-pool": _ifconfig_pool,
    "ifconfig-pool-persist": _persist,
    "push": _push,
    "local": _local,
    "port-share": _port_share,
}
"""In a server's file, these come before those of a client's."""
