"""Directives about the proxy through which a client reaches its server.

Source: OpenVPN's manual page on `http-proxy`, `http-proxy-option` and `socks-proxy`; its `proxy.c` (methods).
Pure.
"""

from __future__ import annotations

from typing import Final

from bridged.addresses import Endpoint, is_host_name
from bridged.profiles.draft import INLINE_MARKER, Draft, Mapper, argument, number_argument, refuse
from bridged.profiles.profile import Material, ProxyKind, ProxyLine
from bridged.profiles.statements import Statement

SOCKS_PORT: Final = 1080
_ASKED: Final = "stdin"
_ONLY_BASIC: Final = (
    "is not supported: bridged knows Basic only; allow Basic at the proxy, or name a proxy on this machine "
    "that speaks {} with the other one, such as cntlm"
)


def _where(statement: Statement, port: int) -> Endpoint:
    host = argument(statement, "a host")
    try:
        found = Endpoint.of(host, port)
    except ValueError as error:
        refuse(str(error))
    if not found.is_numeric and not is_host_name(host):
        refuse(f"{host!r} is not a host name or an address")
    return found


def _http_proxy(draft: Draft, statement: Statement) -> None:
    where = _where(statement, number_argument(statement, 1, 65535, 1))
    words = statement.arguments
    source = words[2] if len(words) > 2 else ""
    method = words[3].lower() if len(words) > 3 else "basic" if source else "none"
    if source == "auto-nct":
        refuse("allows no Basic, and bridged knows nothing else; write `auto`, or another proxy")
    if method in ("ntlm", "ntlm2", "digest"):
        refuse(f"{method.upper()} {_ONLY_BASIC.format(method.upper())}")
    if method not in ("none", "basic"):
        refuse(f"{words[3]!r} is no method of OpenVPN; write `basic`")
    if source == "auto":
        draft.note(statement, "a proxy that wants Digest or NTLM refuses: bridged knows Basic only")
    _set(draft, statement, "http", where, source if method != "none" else "")


def _socks_proxy(draft: Draft, statement: Statement) -> None:
    words = statement.arguments
    port = number_argument(statement, 1, 65535, 1) if len(words) > 1 else SOCKS_PORT
    _set(draft, statement, "socks5", _where(statement, port), words[2] if len(words) > 2 else "")


def _set(draft: Draft, statement: Statement, kind: ProxyKind, where: Endpoint, source: str) -> None:
    before = draft.connection.proxy
    if before is not None and before.kind != kind and before.in_block == draft.is_in_block:
        refuse("stands beside another proxy; only one of http-proxy and socks-proxy")
    login = None
    if source == INLINE_MARKER:
        draft.markers.setdefault("http-proxy-user-pass", statement.line)
    elif source not in ("", "auto", _ASKED):
        login = Material(statement.line, path=source)
    draft.connection.proxy = ProxyLine(
        kind,
        where,
        login,
        asks=source in (_ASKED, INLINE_MARKER),
        takes_login=bool(source),
        in_block=draft.is_in_block,
    )


def _http_proxy_user_pass(draft: Draft, statement: Statement) -> None:
    draft.proxy_login = draft.material(statement, draft.proxy_login)


def _http_proxy_option(draft: Draft, statement: Statement) -> None:
    kind = argument(statement, "an option").upper()
    if kind == "VERSION":
        draft.note(statement, "the proxy is asked in HTTP/1.1")
    elif kind == "AGENT":
        draft.note(statement, "no name of a program is sent")
    elif kind == "CUSTOM-HEADER":
        draft.note(statement, "this header is not sent; a proxy that insists on it refuses")
    else:
        refuse(f"{statement.arguments[0]!r} is no option of OpenVPN; remove the line")


PROXY_MAPPERS: Final[dict[str, Mapper]] = {
    "http-proxy": _http_proxy,
    "http-proxy-user-pass": _http_proxy_user_pass,
    "http-proxy-option": _http_proxy_option,
    "socks-proxy": _socks_proxy,
}
