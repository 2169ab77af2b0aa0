"""MAC addresses, endpoints and remotes as values."""

from __future__ import annotations

import ipaddress
import re
import socket
from dataclasses import dataclass, replace
from typing import Final, Literal

from bridged_tap import MacAddress

__all__ = [
    "FAMILIES",
    "Endpoint",
    "Family",
    "MacAddress",
    "Remote",
    "TransportName",
    "is_host_name",
    "network_of",
    "packed_address",
]

TransportName = Literal["udp", "tcp"]
"""What carries a tunnel's packets."""
Family = Literal["udp", "udp4", "udp6", "tcp", "tcp4", "tcp6"]
"""How a tunnel reaches a server: by UDP or TCP, over IPv4, over IPv6, or over whichever answers first."""
FAMILIES: Final[tuple[Family, ...]] = ("udp", "udp4", "udp6", "tcp", "tcp4", "tcp6")

_MAPPED = bytes(10) + b"\xff\xff"
_HOST_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_.])?")
_DIGITS_AND_DOTS = re.compile(r"[0-9.]+")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A transport address of a peer: IP address text without brackets, and port 0..65535.

    IPv4-mapped IPv6 addresses become IPv4: one peer has one endpoint, whatever the family of our socket.
    IPv6 link-local addresses keep their `%zone`. A TCP connection is never the same endpoint as a UDP port.
    """

    host: str
    port: int
    transport: TransportName = "udp"

    @classmethod
    def of(cls, host: str, port: int, transport: TransportName = "udp") -> Endpoint:
        """Build from what a socket reports; turn IPv4-mapped IPv6 addresses into IPv4."""
        if host.startswith("::ffff:") and "." in host:
            host = host[7:]
        return cls(host, port, transport)

    @classmethod
    def parse(cls, text: str, default_port: int | None = None) -> Endpoint:
        """Read `host:port`, `[v6]:port`, or a bare host where `default_port` is given.

        The host may be a name; see `is_numeric`. IPv6 addresses become what a socket would report: an answer
        is recognised by its source, however the address was written.

        Raises:
            ValueError: no port and no default, a port outside 1..65535, or a mistyped IPv4 address.
        """
        host, port = _split(text.strip(), default_port)
        if not host:
            raise ValueError(f"{text!r} has no host")
        endpoint = cls.of(_canonical(host), port)
        # No name ends in a number; resolvers would read `10.1` as 10.0.0.1.
        if _DIGITS_AND_DOTS.fullmatch(host) and not endpoint.is_numeric:
            raise ValueError(f"{text!r}: {host} is not an IP address")
        return endpoint

    @property
    def is_numeric(self) -> bool:
        try:
            ipaddress.ip_address(self.host)
        except ValueError:
            return False
        return True

    @property
    def is_ipv6(self) -> bool:
        return ":" in self.host

    @property
    def address(self) -> str:
        """Host and port, without the transport."""
        return f"[{self.host}]:{self.port}" if self.is_ipv6 else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        return self.address if self.transport == "udp" else f"{self.address}/{self.transport}"


@dataclass(frozen=True, slots=True)
class Remote:
    """A server to connect to: a name or an address, the transport and the IP family to use.

    Written `host:port`, or `host:port/udp4` or `host:port/udp6` to use one family only; with `/tcp`, `/tcp4`
    or `/tcp6` by TCP. `server` has the transport of `family`.
    """

    server: Endpoint
    family: Family = "udp"

    @classmethod
    def parse(cls, text: str, default_port: int | None = None) -> Remote:
        """Read `host:port` with an optional `/` and one of FAMILIES; the host as in `Endpoint.parse`.

        Raises:
            ValueError: an unknown family, an address of the other family, or what `Endpoint.parse` refuses.
        """
        where, separator, word = text.strip().partition("/")
        family: Family | None = next((known for known in FAMILIES if known == word), None)
        if separator and family is None:
            raise ValueError(
                f"{text!r}: after `/` comes udp4, udp6, tcp, tcp4 or tcp6, as in vpn.example.net:443/tcp"
            )
        family = family or "udp"
        server = Endpoint.parse(where, default_port)
        remote = cls(replace(server, transport=_transport_of(family)), family)
        if remote.server.is_numeric and not remote.admits(remote.server):
            kind = "IPv6" if remote.server.is_ipv6 else "IPv4"
            raise ValueError(f"{text!r}: {remote.family} cannot reach an {kind} address")
        return remote

    def admits(self, endpoint: Endpoint) -> bool:
        """Whether `endpoint`, which is numeric, is of the wanted family."""
        return self.family in ("udp", "tcp") or self.family.endswith("6") is endpoint.is_ipv6

    def __str__(self) -> str:
        return self.server.address if self.family == "udp" else f"{self.server.address}/{self.family}"


def _transport_of(family: Family) -> TransportName:
    return "tcp" if family.startswith("tcp") else "udp"


def is_host_name(text: str) -> bool:
    """Whether `text` can be a name in DNS; international names only in their ASCII form (`xn--…`)."""
    return _HOST_NAME.fullmatch(text) is not None


def packed_address(host: str) -> bytes:
    """The 16 bytes of an IPv6 address, or of the IPv4-mapped one, without zone.

    Raises:
        ValueError: not an IP address.
    """
    try:
        if ":" not in host:
            return _MAPPED + socket.inet_pton(socket.AF_INET, host)
        return socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
    except OSError:
        raise ValueError(f"{host!r} is no IP address") from None


def network_of(host: str) -> bytes:
    """The network whose hosts share limits: the /24 of an IPv4 address, the /64 of an IPv6 address.

    Whoever has such a network can send from all its addresses.

    Raises:
        ValueError: not an IP address.
    """
    packed = packed_address(host)
    return packed[:15] if packed.startswith(_MAPPED) else packed[:8]


def _canonical(host: str) -> str:
    try:
        address = ipaddress.IPv6Address(host)
    except ValueError:
        return host
    return str(address.ipv4_mapped or address)


def _split(text: str, default_port: int | None) -> tuple[str, int]:
    if text.startswith("["):
        host, closed, rest = text[1:].partition("]")
        if not closed or (rest and not rest.startswith(":")):
            raise ValueError(f"{text!r}: write IPv6 endpoints as [address]:port")
        port_text = rest[1:]
    elif text.count(":") > 1:
        host, port_text = text, ""
    else:
        host, _, port_text = text.partition(":")
    if not port_text:
        if default_port is None:
            raise ValueError(f"{text!r} has no port")
        return host, default_port
    if not port_text.isascii() or not port_text.isdigit() or not 0 < int(port_text) < 65536:
        raise ValueError(f"{text!r}: the port must be a number from 1 to 65535")
    return host, int(port_text)
