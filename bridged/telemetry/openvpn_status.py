"""OpenVPN's status files, versions 1, 2 and 3, for the tools that read them. Pure: no I/O.

Source: OpenVPN 2.6, multi.c `multi_print_status`, sig.c `print_status`. Version 1 has times as OpenVPN 2.4
wrote them, which is what its parsers expect; versions 2 and 3 as 2.5 and later.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from bridged import __version__
from bridged.addresses import Endpoint
from bridged.units import UnixSeconds

TITLE: Final = f"OpenVPN 2.6 status by bridged {__version__}"
NO_USER: Final = "UNDEF"
_CLIENT_COLUMNS: Final = (
    *("Common Name", "Real Address", "Virtual Address", "Virtual IPv6 Address", "Bytes Received"),
    *("Bytes Sent", "Connected Since", "Connected Since (time_t)", "Username", "Client ID", "Peer ID"),
    "Data Channel Cipher",
)
_ROUTE_COLUMNS: Final = ("Virtual Address", "Common Name", "Real Address", "Last Ref", "Last Ref (time_t)")
_UNFIT = re.compile(r"[\x00-\x1f\x7f,]")


@dataclass(frozen=True, slots=True)
class StatusClient:
    """One session of a server. `number`: the data plane's handle of the peer."""

    name: str
    endpoint: Endpoint
    number: int
    received: int
    sent: int
    since: UnixSeconds
    cipher: str


@dataclass(frozen=True, slots=True)
class StatusStation:
    """A station behind the session `number`. `vlan` 0: untagged."""

    mac: str
    vlan: int
    number: int
    seen: UnixSeconds


@dataclass(frozen=True, slots=True)
class ClientFigures:
    """Bytes of a client's tunnel: frames from and to the LAN, UDP payload received and sent."""

    tap_read: int
    tap_written: int
    wire_read: int
    wire_written: int


def server_status(
    version: int, now: UnixSeconds, clients: Sequence[StatusClient], stations: Iterable[StatusStation]
) -> str:
    """The status file of a server."""
    by_number = {client.number: client for client in clients}
    placed = [(station, by_number[station.number]) for station in stations if station.number in by_number]
    return _version_1(now, clients, placed) if version == 1 else _table(version, now, clients, placed)


def client_status(version: int, now: UnixSeconds, figures: ClientFigures) -> str:
    """The status file of a client, which has one form."""
    lines = [
        "OpenVPN STATISTICS",
        f"Updated,{_moment(version, now)}",
        f"TUN/TAP read bytes,{figures.tap_read}",
        f"TUN/TAP write bytes,{figures.tap_written}",
        f"TCP/UDP read bytes,{figures.wire_read}",
        f"TCP/UDP write bytes,{figures.wire_written}",
        f"Auth read bytes,{figures.tap_written}",
        "END",
    ]
    return _text(lines)


def _version_1(
    now: UnixSeconds,
    clients: Sequence[StatusClient],
    stations: Sequence[tuple[StatusStation, StatusClient]],
) -> str:
    lines = [
        "OpenVPN CLIENT LIST",
        f"Updated,{_moment(1, now)}",
        "Common Name,Real Address,Bytes Received,Bytes Sent,Connected Since",
    ]
    lines += [
        f"{_fit(each.name)},{_real(each.endpoint)},{each.received},{each.sent},{_moment(1, each.since)}"
        for each in clients
    ]
    lines += ["ROUTING TABLE", "Virtual Address,Common Name,Real Address,Last Ref"]
    lines += [
        f"{_virtual(station)},{_fit(client.name)},{_real(client.endpoint)},{_moment(1, station.seen)}"
        for station, client in stations
    ]
    lines += ["GLOBAL STATS", "Max bcast/mcast queue length,0", "END"]
    return _text(lines)


def _table(
    version: int,
    now: UnixSeconds,
    clients: Sequence[StatusClient],
    stations: Sequence[tuple[StatusStation, StatusClient]],
) -> str:
    rows: list[tuple[object, ...]] = [
        ("TITLE", TITLE),
        ("TIME", _moment(version, now), int(now)),
        ("HEADER", "CLIENT_LIST", *_CLIENT_COLUMNS),
    ]
    for each in clients:
        since = (_moment(version, each.since), int(each.since))
        what = (_fit(each.name), _real(each.endpoint), "", "", each.received, each.sent, *since)
        rows.append(("CLIENT_LIST", *what, NO_USER, each.number, each.number, each.cipher))
    rows.append(("HEADER", "ROUTING_TABLE", *_ROUTE_COLUMNS))
    for station, client in stations:
        seen = (_moment(version, station.seen), int(station.seen))
        rows.append(("ROUTING_TABLE", _virtual(station), _fit(client.name), _real(client.endpoint), *seen))
    rows += [("GLOBAL_STATS", "Max bcast/mcast queue length", 0), ("END",)]
    separator = "\t" if version == 3 else ","
    return _text([separator.join(map(str, row)) for row in rows])


def _moment(version: int, moment: UnixSeconds) -> str:
    form = "%a %b %e %H:%M:%S %Y" if version == 1 else "%Y-%m-%d %H:%M:%S"
    return time.strftime(form, time.localtime(moment))


def _real(endpoint: Endpoint) -> str:
    """OpenVPN writes no port behind an IPv6 address."""
    return endpoint.host if ":" in endpoint.host else f"{endpoint.host}:{endpoint.port}"


def _virtual(station: StatusStation) -> str:
    return f"{station.mac}@{station.vlan}" if station.vlan else station.mac


def _fit(name: str) -> str:
    """A name cannot begin another field or line."""
    return _UNFIT.sub("_", name)


def _text(lines: Iterable[str]) -> str:
    return "\n".join(lines) + "\n"
