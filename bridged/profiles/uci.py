"""Reads `/etc/config/openvpn` of OpenWrt: each section of it is one OpenVPN configuration.

Source: OpenWrt's UCI file syntax (`config TYPE NAME`, `option KEY VALUE`, `list KEY VALUE`), and the option
names of its openvpn package: OpenVPN's, with `_` for `-`.
Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from bridged.errors import ConfigurationError
from bridged.profiles.statements import STATEMENTS_MAX, Statement, split_words

_HEAD: Final = re.compile(r"^\s*config\s+['\"]?openvpn['\"]?(\s|$)", re.MULTILINE)
_TRUE: Final = frozenset({"1", "on", "true", "yes", "enabled"})
_OWN: Final = frozenset({"enabled", "enable"})
_WHOLE: Final = frozenset(
    {"push", "up", "down", "route-up", "tls-verify", "client-connect", "client-disconnect"}
)
"""Their value is one word, whatever blanks it has."""
_FLAGS: Final = frozenset(
    """allow-recursive-routing auth-nocache auth-user-pass-optional bind ccd-exclusive client client-to-client
    comp-noadapt disable disable-occ down-pre duplicate-cn fast-io float http-proxy-retry ifconfig-noexec
    ifconfig-nowarn management-forget-disconnect management-hold management-query-passwords management-signal
    mlock mtu-test multihome mute-replay-warnings nobind opt-verify passtos persist-key persist-local-ip
    persist-remote-ip persist-tun ping-timer-rem pull push-reset remote-random route-noexec route-nopull
    single-session socks-proxy-retry suppress-timestamps tcp-nodelay tls-client tls-exit tls-server tun-ipv6
    up-delay up-restart username-as-common-name""".split()  # noqa: SIM905
)
"""Options without an argument: `1` says that they are set."""
_JOINED: Final = frozenset({"data-ciphers", "ncp-ciphers", "tls-cipher", "tls-ciphersuites", "tls-groups"})
"""Lists whose elements OpenWrt joins by colons."""
_MAYBE_FLAGS: Final = frozenset({"server-bridge", "comp-lzo", "compress", "auth-user-pass"})
"""Options whose argument may be missing: a bare `1` for these is the option alone."""


@dataclass(slots=True)
class UciSection:
    """One `config openvpn NAME`; `name` may be empty. `is_enabled` is None if the section does not say."""

    name: str
    line: int
    statements: list[Statement] = field(default_factory=list)
    is_enabled: bool | None = None


def looks_like_uci(text: str) -> bool:
    """Whether the text has a section of OpenVPN in UCI syntax."""
    return _HEAD.search(text) is not None


def read_uci(text: str, source: str) -> list[UciSection]:
    """All sections of OpenVPN; other sections are left out.

    Raises:
        ConfigurationError: a line that is not UCI, open quotes, or too much.
    """
    sections: list[UciSection] = []
    current: UciSection | None = None
    count = 0
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
        words = split_words(line, source, number)
        if not words:
            continue
        kind, *rest = words
        count += 1
        if count > STATEMENTS_MAX:
            raise _wrong(f"more than {STATEMENTS_MAX} lines", source, number)
        if kind == "config":
            current = (
                UciSection(rest[1] if len(rest) > 1 else "", number) if rest[:1] == ["openvpn"] else None
            )
            sections += [current] if current else []
        elif kind in ("option", "list") and rest:
            if current is not None:
                name = rest[0].replace("_", "-")
                if kind == "list" and name in _JOINED:
                    _join(current, name, " ".join(rest[1:]), number)
                else:
                    _take(current, name, " ".join(rest[1:]), number, source)
        elif kind != "package":
            raise _wrong("is not UCI: a line begins with `config`, `option` or `list`", source, number)
    return sections


def choose_section(sections: list[UciSection], wanted: str | None, source: str) -> UciSection:
    """The section named `wanted`, or the only one, or the only one that is enabled.

    Raises:
        ConfigurationError: none, or several; names them.
    """
    names = ", ".join(section.name or f"(line {section.line})" for section in sections)
    if wanted is not None:
        found = [section for section in sections if section.name == wanted]
        if not found:
            raise _wrong(f"no section {wanted!r} in it; it has {names}", source, None)
        return found[0]
    candidates = [section for section in sections if section.statements]
    if len(candidates) > 1:
        candidates = [section for section in candidates if section.is_enabled] or candidates
    if len(candidates) != 1:
        reason = f"has several configurations; choose one by `--section NAME`: {names}"
        raise _wrong(reason if candidates else "has no options in its sections", source, None)
    return candidates[0]


def _take(section: UciSection, name: str, value: str, line: int, source: str) -> None:
    word = value.strip().lower()
    if name in _OWN:
        section.is_enabled = word in _TRUE
    elif name in _FLAGS:
        if word in _TRUE:
            section.statements.append(Statement((name,), line))
    elif name in _MAYBE_FLAGS and word == "1":
        section.statements.append(Statement((name,), line))
    elif name in _WHOLE:
        section.statements.append(Statement((name, value), line))
    elif word:
        section.statements.append(Statement((name, *split_words(value, source, line)), line))


def _join(section: UciSection, name: str, value: str, line: int) -> None:
    """Add an element of a list to its one statement."""
    for at, known in enumerate(section.statements):
        if known.name == name:
            section.statements[at] = Statement((name, f"{known.arguments[0]}:{value}"), known.line)
            return
    section.statements.append(Statement((name, value), line))


def _wrong(reason: str, source: str, line: int | None) -> ConfigurationError:
    return ConfigurationError(reason, file=source, line=line, code="profile")
