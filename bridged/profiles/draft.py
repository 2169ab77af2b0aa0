"""A profile while its statements are read, and helpers to read a statement's arguments.

Pure.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Interface, IPv6Interface, ip_address, ip_interface
from typing import Final, Literal, NoReturn

from bridged.addresses import FAMILIES, Family, TransportName
from bridged.profiles.hints import SpellingHints
from bridged.profiles.not_yet import Ability
from bridged.profiles.profile import Material, Notice, Profile, ProxyLine, ServerSettings
from bridged.profiles.report import Seen
from bridged.profiles.statements import Statement

DEFAULT_PORT: Final = 1194
INLINE_MARKER: Final = "[inline]"


FileRole = Literal["client", "server"]


class Refusal(Exception):
    """The directive is wrong or not supported; the text says why, and what to do."""


@dataclass(frozen=True, slots=True)
class RemoteLine:
    """One `remote`, before the defaults for port and protocol are known."""

    line: int
    host: str
    port: int | None
    protocol: str | None


@dataclass(slots=True)
class Connection:
    """How to reach one server, from a `<connection>` block or from the file outside of blocks.

    `mss` and `wan_mtu` as in `Profile`. `refusals`: what is wrong in the block, as (line, directive, reason).
    These and `notices` count only if the block is used.
    """

    line: int = 1
    remote: RemoteLine | None = None
    protocol: str = "udp"
    remote_port: int = DEFAULT_PORT
    local_host: str | None = None
    local_port: int | None = None
    binds: bool = True
    mtu: int | None = None
    fragment: int = 0
    mss: int | None = None
    wan_mtu: int | None = None
    exit_notify: bool | None = None
    proxy: ProxyLine | None = None
    wrap: Literal["none", "tls-auth", "tls-crypt", "tls-crypt-v2", "static-key"] = "none"
    wrap_key: Material | None = None
    wrap_direction: Literal[0, 1] | None = None
    refusals: list[tuple[int, str, str]] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)

    @property
    def transport(self) -> str:
        """The protocol to this server."""
        return (self.remote and self.remote.protocol) or self.protocol

    @property
    def family(self) -> Family:
        word = self.transport.removesuffix("-client").removesuffix("-server")
        return next((family for family in FAMILIES if family == word), "udp")

    @property
    def transport_name(self) -> TransportName:
        return "tcp" if self.family.startswith("tcp") else "udp"

    def for_block(self, line: int) -> Connection:
        """The settings with which a block at `line` begins: all above it, except a wrap."""
        return replace(
            self,
            line=line,
            remote=None,
            wrap="none",
            wrap_key=None,
            wrap_direction=None,
            refusals=[],
            notices=[],
        )


@dataclass(slots=True)
class Draft:
    """A profile while its statements are read.

    `role`: a client's profile or a server's file. `needs`: abilities that the file needs and this version
    lacks. `seen`: each directive that was read. `general` applies outside of blocks; `connection` is where
    the reader is now. `markers`: directives written as `NAME [inline]`, and their lines. `inlined`:
    directives that have a block. `tls_suites` and `tls13_suites`: line of the list, and whether one
    of its suites is ours.
    `fallback_cipher`: that of `data-ciphers-fallback`, which `cipher` does not change. `static_cipher`:
    that of `cipher`. `proxy_login`: that of `http-proxy-user-pass`.
    `device_type` is that of `dev-type`, `device_kind` what the last `dev` begins with. The last of
    several lines counts, as in OpenVPN.
    """

    role: FileRole = "client"
    profile: Profile = field(default_factory=Profile)
    server: ServerSettings = field(default_factory=ServerSettings)
    needs: set[Ability] = field(default_factory=set)
    seen: list[Seen] = field(default_factory=list)
    general: Connection = field(default_factory=Connection)
    connection: Connection = field(init=False)
    blocks: list[Connection] = field(default_factory=list)
    remotes: list[RemoteLine] = field(default_factory=list)
    protocol_force: str | None = None
    is_client: bool = False
    pulls: bool = False
    device_line: int | None = None
    device_type: str | None = None
    device_kind: str | None = None
    device_name: str | None = None
    digest: tuple[int, str] | None = None
    fallback_cipher: str | None = None
    static_cipher: str | None = None
    proxy_login: Material | None = None
    tls_suites: tuple[int, bool] | None = None
    tls13_suites: tuple[int, bool] | None = None
    has_static_key: bool = False
    markers: dict[str, int] = field(default_factory=dict)
    inlined: set[str] = field(default_factory=set)
    ignorable: set[str] = field(default_factory=set)
    is_forward_compatible: bool = False
    spelling: SpellingHints = field(default_factory=SpellingHints)

    def __post_init__(self) -> None:
        self.connection = self.general

    @property
    def is_in_block(self) -> bool:
        return self.connection is not self.general

    def note(self, statement: Statement, text: str) -> None:
        notices = self.connection.notices if self.is_in_block else self.profile.notices
        notices.append(Notice(statement.line, text, statement.name))

    def set_address(self, address: IPv4Interface | IPv6Interface) -> None:
        """Set the bridge's address of this IP version, in place of an earlier one."""
        others = [text for text in self.profile.addresses if ip_interface(text).version != address.version]
        self.profile.addresses = [*others, str(address)]

    def take_local_host(self, host: str) -> None:
        """Set the address to send from or to listen on; raises Refusal."""
        try:
            self.connection.local_host = str(ip_address(host))
        except ValueError:
            reason = f"{host!r} is no IP address; write the address to send from, not a name"
            raise Refusal(reason) from None

    def material(self, statement: Statement, known: Material | None) -> Material | None:
        """The block's text or the named file. For an `[inline]` marker: `known`, the value before."""
        if statement.inline is not None:
            self.inlined.add(statement.name)
            return Material(statement.line, text=statement.inline)
        path = argument(statement, "a file, or a block")
        if path == INLINE_MARKER:
            self.markers.setdefault(statement.name, statement.line)
            return known
        return Material(statement.line, path=path)


Mapper = Callable[[Draft, Statement], None]


def refuse(reason: str) -> NoReturn:
    raise Refusal(reason)


def argument(statement: Statement, what: str) -> str:
    if not statement.arguments or not statement.arguments[0]:
        refuse(f"needs {what}")
    return statement.arguments[0]


def number(text: str, low: int, high: int) -> int:
    """A decimal number within limits; raises Refusal."""
    if not text.isascii() or not text.isdigit() or len(text) > 20 or not low <= int(text) <= high:
        refuse(f"{text!r} is not a number from {low} to {high}")
    return int(text)


def number_argument(statement: Statement, low: int, high: int, index: int = 0) -> int:
    if len(statement.arguments) <= index:
        refuse(f"needs a number from {low} to {high}")
    return number(statement.arguments[index], low, high)
