"""Directives about reaching a server; they can also be used in a `<connection>` block.

Source: docs/protocol/data.md#7 (rows "Map").
Pure.
"""

from __future__ import annotations

import re
from typing import Final, Literal

from bridged.addresses import Endpoint, is_host_name
from bridged.profiles.draft import (
    DEFAULT_PORT,
    Draft,
    Mapper,
    RemoteLine,
    argument,
    number,
    number_argument,
    refuse,
)
from bridged.profiles.statements import Statement
from bridged.protocol.packets.fragments import FRAGMENT_LEAST

_UDP: Final = frozenset({"udp", "udp4", "udp6"})
_TCP: Final = frozenset(
    f"tcp{family}{end}" for family in ("", "4", "6") for end in ("", "-client", "-server")
)
_JOINED: Final = re.compile(
    r"(?:\[(?P<address>[0-9A-Fa-f:.]+)\]|(?P<name>[^\[\]:/,]+))(?:[:,](?P<port>[0-9]{1,5}))?/?"
)
_UDP_IP_OVERHEAD: Final = 28
_TCP_IP_HEADERS: Final = 40
_LEAST_MSS: Final = 88


def _remote(draft: Draft, statement: Statement) -> None:
    host = argument(statement, "a host")
    _refuse_joined(host)
    try:
        endpoint = Endpoint.parse(f"[{host}]" if ":" in host else host, DEFAULT_PORT)
    except ValueError as error:
        refuse(str(error))
    if not endpoint.is_numeric and not is_host_name(host):
        ascii_only = "" if host.isascii() else "; write an international name in its ASCII form (xn--…)"
        refuse(f"{host!r} is not a host name or an address{ascii_only}")
    words = statement.arguments
    port = number_argument(statement, 1, 65535, 1) if len(words) > 1 else None
    protocol = _protocol(words[2]) if len(words) > 2 else None
    remote = RemoteLine(statement.line, host, port, protocol)
    if draft.is_in_block:
        draft.connection.remote = remote
    else:
        draft.remotes.append(remote)


def _refuse_joined(host: str) -> None:
    """Refuse `host:port` in one word, brackets, and what a URL has: OpenVPN would look up all of it."""
    bare = re.sub(r"^[a-z0-9]{1,8}://", "", host)
    found = _JOINED.fullmatch(bare)
    if found is None or (bare == host and found["name"] == host):
        return
    name, port = found["address"] or found["name"], found["port"]
    if port:
        refuse(f"{host!r} is one word; write host and port as two: `remote {name} {port}`")
    refuse(f"{host!r} has more than a name or an address; write `remote {name}`, and the port after it")


def _protocol(word: str) -> str:
    if word not in _UDP and word not in _TCP:
        refuse(f"{word!r} is not a protocol of OpenVPN")
    return word


def _proto(draft: Draft, statement: Statement) -> None:
    draft.connection.protocol = _protocol(argument(statement, "a protocol"))


def _proto_force(draft: Draft, statement: Statement) -> None:
    draft.protocol_force = _protocol(argument(statement, "a protocol"))[:3]


def _port(draft: Draft, statement: Statement) -> None:
    draft.connection.remote_port = draft.connection.local_port = number_argument(statement, 1, 65535)


def _rport(draft: Draft, statement: Statement) -> None:
    draft.connection.remote_port = number_argument(statement, 1, 65535)


def _lport(draft: Draft, statement: Statement) -> None:
    draft.connection.local_port = number_argument(statement, 0, 65535) or None


def _local(draft: Draft, statement: Statement) -> None:
    draft.take_local_host(argument(statement, "an address"))


def _nobind(draft: Draft, statement: Statement) -> None:
    draft.connection.binds = False


def _tun_mtu(draft: Draft, statement: Statement) -> None:
    draft.connection.mtu = number_argument(statement, 576, 65521)


def _fragment(draft: Draft, statement: Statement) -> None:
    size, words = number_argument(statement, 0, 65535), statement.arguments
    if len(words) > 1:
        if words[1] != "mtu":
            refuse(f"{words[1]!r} is not `mtu`")
        size -= _UDP_IP_OVERHEAD if size else 0
    if size and size < FRAGMENT_LEAST:
        refuse(f"{size} is too small; both ends need at least {FRAGMENT_LEAST}")
    draft.connection.fragment = size


def _mssfix(draft: Draft, statement: Statement) -> None:
    words = statement.arguments
    size = number(words[0], 0, 65535) if words else 1492
    connection, mode = draft.connection, words[1] if len(words) > 1 else ("" if words else "mtu")
    if mode not in ("", "mtu", "fixed"):
        refuse(f"{mode!r} is neither mtu nor fixed")
    connection.mss = connection.wan_mtu = None
    if size == 0:
        connection.mss = 0
    elif mode == "fixed":
        if size <= _TCP_IP_HEADERS + _LEAST_MSS:
            refuse(f"{size} leaves no room for TCP")
        connection.mss = size - _TCP_IP_HEADERS
    else:
        outer = size + (0 if mode == "mtu" else _UDP_IP_OVERHEAD)
        if not 576 <= outer <= 65535:
            refuse(f"{size} is not a packet size from 576 to 65507")
        connection.wan_mtu = outer


def _explicit_exit_notify(draft: Draft, statement: Statement) -> None:
    draft.connection.exit_notify = number_argument(statement, 0, 1000) > 0 if statement.arguments else True


def _tls_auth(draft: Draft, statement: Statement) -> None:
    _set_wrap(draft, statement, "tls-auth")
    if len(statement.arguments) > 1:
        draft.connection.wrap_direction = 1 if number_argument(statement, 0, 1, 1) else 0


def _tls_crypt(draft: Draft, statement: Statement) -> None:
    _set_wrap(draft, statement, "tls-crypt")


def _tls_crypt_v2(draft: Draft, statement: Statement) -> None:
    # Behind the file, a server may write `force-cookie` or `allow-noncookie`: both are taken here.
    _set_wrap(draft, statement, "tls-crypt-v2")


def _secret(draft: Draft, statement: Statement) -> None:
    _set_wrap(draft, statement, "static-key")
    if len(statement.arguments) > 1:
        draft.connection.wrap_direction = 1 if number_argument(statement, 0, 1, 1) else 0
    draft.note(statement, _NO_SECRECY)


_NO_SECRECY: Final = (
    "has no forward secrecy: who gets the key can read all that was ever sent. OpenVPN 2.7 refuses it; "
    "move to certificates soon: `bridged init` makes them"
)


def _set_wrap(
    draft: Draft,
    statement: Statement,
    mode: Literal["tls-auth", "tls-crypt", "tls-crypt-v2", "static-key"],
) -> None:
    connection = draft.connection
    if draft.role == "server" and _set_both(draft, statement, mode):
        return
    if connection.wrap not in ("none", mode):
        refuse(f"only one of tls-auth, tls-crypt, tls-crypt-v2 and secret; {connection.wrap} is above")
    connection.wrap_key = draft.material(statement, connection.wrap_key)
    connection.wrap = mode


def _set_both(draft: Draft, statement: Statement, mode: str) -> bool:
    """A server may have tls-crypt-v2, and beside it one other wrap for old clients."""
    connection, server = draft.connection, draft.server
    if mode == "tls-crypt-v2" and connection.wrap in ("tls-auth", "tls-crypt"):
        server.old_wrap = "tls-auth" if connection.wrap == "tls-auth" else "tls-crypt"
        server.old_wrap_key = connection.wrap_key
        connection.wrap, connection.wrap_key = "tls-crypt-v2", None
        return False
    if connection.wrap != "tls-crypt-v2" or mode not in ("tls-auth", "tls-crypt"):
        return False
    if server.old_wrap not in (None, mode):
        refuse(f"only one of tls-auth and tls-crypt beside tls-crypt-v2; {server.old_wrap} is above")
    server.old_wrap = "tls-auth" if mode == "tls-auth" else "tls-crypt"
    server.old_wrap_key = draft.material(statement, server.old_wrap_key)
    return True


def _key_direction(draft: Draft, statement: Statement) -> None:
    draft.connection.wrap_direction = 1 if number_argument(statement, 0, 1) else 0


def _remote_random(draft: Draft, statement: Statement) -> None:
    draft.profile.remotes_order = "shuffled"


CONNECTION_MAPPERS: Final[dict[str, Mapper]] = {
    "remote": _remote,
    "remote-random": _remote_random,
    "proto": _proto,
    "proto-force": _proto_force,
    "port": _port,
    "rport": _rport,
    "lport": _lport,
    "local": _local,
    "nobind": _nobind,
    "tun-mtu": _tun_mtu,
    "fragment": _fragment,
    "mssfix": _mssfix,
    "explicit-exit-notify": _explicit_exit_notify,
    "tls-auth": _tls_auth,
    "tls-crypt": _tls_crypt,
    "secret": _secret,
    "tls-crypt-v2": _tls_crypt_v2,
    "key-direction": _key_direction,
}
