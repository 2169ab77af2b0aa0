"""Turns `remote` lines and `<connection>` blocks into the servers of one tunnel.

A block's options apply to it alone, and mistakes in blocks that are not used do not matter. A tunnel has one
wrap and one MTU: a block in which these differ from the first usable one is left out (docs/decisions/0050).
Pure.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from bridged.addresses import Endpoint, Remote
from bridged.errors import ConfigurationError
from bridged.profiles.draft import DEFAULT_PORT, Connection, Draft
from bridged.profiles.profile import Notice, Profile

REMOTES_MAX: Final = 64
_DEFAULT_MTU: Final = 1500


def settle_connections(draft: Draft, source: str) -> list[ConfigurationError]:
    """Put the usable servers, and the settings that they share, into the profile."""
    profile = draft.profile
    asked = draft.blocks or [replace(draft.general, remote=one, line=one.line) for one in draft.remotes]
    if not asked:
        return [_error("missing: which server?", source, None, "remote")]
    if len(asked) > REMOTES_MAX:
        return [_error(f"more than {REMOTES_MAX} servers", source, asked[REMOTES_MAX].line, "remote")]
    if draft.blocks and draft.remotes:
        text = "ignored: the file has `<connection>` blocks, and only those count"
        profile.notices.append(Notice(draft.remotes[0].line, text, "remote"))
    used = [connection for connection in asked if _reason_against(connection, draft) is None]
    broken = [connection for connection in used if connection.refusals]
    used = [connection for connection in used if not connection.refusals]
    if not used:
        return _nothing_left(asked, broken, draft, source)
    for connection in used:
        _inherit_wrap(connection, draft.general)
    for connection in used:
        _complete_proxy(connection, draft)
    proxied = next((connection for connection in used if connection.transport_name == "tcp"), None)
    fitting = [
        connection
        for connection in used
        if _difference(used[0], connection) is None and _same_proxy(proxied, connection)
    ]
    for connection in asked:
        _note(connection, fitting, used[0], draft)
    _apply(profile, fitting)
    _settle_proxy(profile, fitting)
    return []


def settle_listening(draft: Draft, source: str) -> list[ConfigurationError]:
    """Put the address to listen on, and the settings of a server's connections, into the profile."""
    general, profile = draft.general, draft.profile
    _apply_shared(profile, general)
    if general.exit_notify is not None:
        profile.exit_notify = general.exit_notify
    profile.mss, profile.wan_mtu = general.mss, general.wan_mtu
    port = general.local_port or DEFAULT_PORT
    anywhere = "0.0.0.0" if general.family.endswith("4") else "::"
    host = general.local_host or anywhere
    if (host, port) != ("::", DEFAULT_PORT):
        draft.server.listen = Endpoint.of(host, port)
    errors = [_error("belongs in a client's profile", source, one.line, "connection") for one in draft.blocks]
    if general.transport.startswith("tcp"):
        draft.server.transport = "tcp"
    return errors


def _reason_against(connection: Connection, draft: Draft) -> str | None:
    """Why this server is not used; None if it can be."""
    remote = connection.remote
    if remote is None:
        return "it names no `remote`"
    where = _remote(connection)
    if draft.protocol_force not in (None, where.server.transport):
        return f"`proto-force {draft.protocol_force}`"
    if connection.proxy is not None and connection.transport_name == "udp":
        name = "http-proxy" if connection.proxy.kind == "http" else "socks-proxy"
        return f"bridged uses `{name}` over TCP only: write `proto tcp-client`, or remove the line"
    if where.server.is_numeric and not where.admits(where.server):
        return f"{where.family} cannot reach this address"
    return None


def _nothing_left(
    asked: list[Connection], broken: list[Connection], draft: Draft, source: str
) -> list[ConfigurationError]:
    if broken:
        return [
            _error(reason, source, line, name)
            for connection in broken
            for line, name, reason in connection.refusals
        ]
    reasons = {_reason_against(connection, draft) for connection in asked}
    reason = "; ".join(sorted(str(text) for text in reasons))
    return [_error(reason, source, asked[0].line, "remote")]


def _inherit_wrap(connection: Connection, general: Connection) -> None:
    """A block without a wrap takes the file's, wherever in the file that is."""
    if connection.wrap == "none":
        connection.wrap, connection.wrap_key = general.wrap, general.wrap_key
        connection.wrap_direction = general.wrap_direction


def _difference(first: Connection, other: Connection) -> str | None:
    """Why two servers cannot belong to one tunnel; None if they can."""
    if _wrap_of(first) != _wrap_of(other):
        return "its tls-auth or tls-crypt differs"
    if (first.mtu or _DEFAULT_MTU) != (other.mtu or _DEFAULT_MTU):
        return "its tun-mtu differs"
    if first.fragment != other.fragment:
        return "its fragment differs"
    return None


def _complete_proxy(connection: Connection, draft: Draft) -> None:
    """`http-proxy-user-pass` may stand anywhere in the file."""
    proxy = connection.proxy
    if draft.proxy_login is not None and proxy is not None and proxy.kind == "http" and proxy.takes_login:
        connection.proxy = replace(proxy, login=draft.proxy_login, asks=False)


def _same_proxy(first: Connection | None, other: Connection) -> bool:
    """A tunnel has one, or none, for all its servers over TCP."""
    return first is None or other.transport_name == "udp" or _proxy_of(first) == _proxy_of(other)


def _proxy_of(connection: Connection) -> tuple[object, ...]:
    proxy = connection.proxy
    if proxy is None:
        return ()
    login = proxy.login
    return proxy.kind, proxy.where, proxy.asks, login and login.path, login and login.text


def _settle_proxy(profile: Profile, used: list[Connection]) -> None:
    found = [connection.proxy for connection in used if connection.transport_name == "tcp"]
    profile.proxy = found[0] if found else None


def _wrap_of(connection: Connection) -> tuple[str, str | None, str | None, int | None]:
    key = connection.wrap_key
    text = "".join(key.text.split()) if key and key.text else None
    direction = connection.wrap_direction if connection.wrap == "tls-auth" else None
    return connection.wrap, text, key.path if key else None, direction


def _note(connection: Connection, fitting: list[Connection], first: Connection, draft: Draft) -> None:
    """Add the notices of a server that is used, or the one that says why it is not."""
    notices = draft.profile.notices
    if connection in fitting:
        notices.extend(connection.notices)
        return
    reason = _reason_against(connection, draft)
    line = connection.remote.line if connection.remote else connection.line
    if reason is None and connection.refusals:
        line, name, text = connection.refusals[0]
        reason = f"`{name}` {text}"
    if reason is None:
        differs = _difference(first, connection) or "its proxy differs"
        reason = f"{differs} from the first server's; give it a profile of its own"
    host = connection.remote.host if connection.remote else "a block"
    notices.append(Notice(line, f"{host} is left out: {reason}", "remote"))


def _apply(profile: Profile, used: list[Connection]) -> None:
    first = used[0]
    profile.remotes = list(dict.fromkeys(_remote(connection) for connection in used))
    _apply_shared(profile, first)
    if any(connection.exit_notify is not None for connection in used):
        profile.exit_notify = any(connection.exit_notify for connection in used)
    if first.binds and (first.local_host is not None or first.local_port is not None):
        profile.local = Endpoint.of(first.local_host or "::", first.local_port or first.remote_port)
    _apply_sizes(profile, used)


def _apply_shared(profile: Profile, connection: Connection) -> None:
    profile.wrap, profile.wrap_key = connection.wrap, connection.wrap_key
    profile.wrap_direction = connection.wrap_direction
    profile.mtu = connection.mtu
    profile.fragment = connection.fragment or None


def _apply_sizes(profile: Profile, used: list[Connection]) -> None:
    """Set the tunnel's sizes if all servers have the same ones, else those of each server."""
    sizes = {(connection.mss, connection.wan_mtu) for connection in used}
    if len(sizes) == 1:
        profile.mss, profile.wan_mtu = sizes.pop()
        return
    for connection in used:
        own = (connection.mss, connection.wan_mtu)
        if own != (None, None):
            profile.remote_sizes.setdefault(_remote(connection), own)


def _remote(connection: Connection) -> Remote:
    remote = connection.remote
    assert remote is not None
    port = remote.port or connection.remote_port
    return Remote(Endpoint.of(remote.host, port, connection.transport_name), connection.family)


def _error(reason: str, source: str, line: int | None, key: str) -> ConfigurationError:
    return ConfigurationError(reason, file=source, line=line, key=key[:64], code="profile")
