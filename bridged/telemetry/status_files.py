"""Keeps the OpenVPN status files of tunnels that have `status.file`. Asyncio; threads write the files."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from bridged.addresses import MacAddress
from bridged.configuration.schema import Configuration
from bridged.configuration.tunnel import StatusFile
from bridged.files import write_atomic
from bridged.runtime.tunnels.tunnel import RunningTunnel
from bridged.supervision import SUPERVISOR
from bridged.telemetry.openvpn_status import (
    ClientFigures,
    StatusClient,
    StatusStation,
    client_status,
    server_status,
)
from bridged.units import UnixSeconds

DUTY: Final = "status_file"
FILE_MODE: Final = 0o640
"""It names peers and their addresses."""


class StatusFiles:
    """Writes from `apply` to `stop`. `tunnels`: those that run, by name."""

    def __init__(self, tunnels: Callable[[], Mapping[str, RunningTunnel]]) -> None:
        self._tunnels = tunnels
        self._wanted: dict[str, StatusFile] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def apply(self, configuration: Configuration) -> None:
        """Write what this configuration asks for, from now on."""
        wanted = {
            name: tunnel.status
            for name, tunnel in configuration.tunnels.items()
            if tunnel.status.file is not None
        }
        for name in [name for name in self._tasks if wanted.get(name) != self._wanted.get(name)]:
            self._tasks.pop(name).cancel()
        self._wanted = wanted
        for name in wanted.keys() - self._tasks.keys():
            self._tasks[name] = SUPERVISOR.keep(DUTY, partial(self._keep, name), name, endless=True)

    async def stop(self) -> None:
        tasks = list(self._tasks.values())
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _keep(self, name: str) -> None:
        while True:
            settings, tunnel = self._wanted[name], self._tunnels().get(name)
            if tunnel is not None:
                await _write(settings, tunnel)
            await asyncio.sleep(settings.interval_seconds)


async def _write(settings: StatusFile, tunnel: RunningTunnel) -> None:
    """Raises:
    OSError: the file cannot be written.
    """
    now = UnixSeconds(time.time())
    if tunnel.role.name == "client":
        text = client_status(settings.version, now, _figures(tunnel))
    else:
        clients = _clients(tunnel)
        text = await asyncio.to_thread(
            lambda: server_status(settings.version, now, clients, _stations(tunnel, now))
        )
    assert settings.file is not None
    await asyncio.to_thread(
        write_atomic, settings.file, text.encode("utf-8", "replace"), FILE_MODE, durable=False
    )


def _clients(tunnel: RunningTunnel) -> list[StatusClient]:
    found = []
    for peer in tunnel.dataplane.snapshot().peers:
        link = tunnel.links.get(peer.handle)
        if link is None or not link.is_attached:
            continue
        terms, since = link.terms, tunnel.records.book.record(link.name).connected_since
        found.append(
            StatusClient(
                link.name,
                peer.endpoint,
                peer.handle,
                peer.counters.wire_bytes.get("receive", 0),
                peer.counters.wire_bytes.get("transmit", 0),
                since or UnixSeconds(time.time()),
                terms.cipher.value if terms is not None else "",
            )
        )
    return found


def _stations(tunnel: RunningTunnel, now: UnixSeconds) -> list[StatusStation]:
    """In any thread: tens of thousands of them take a while."""
    return [
        StatusStation(
            str(MacAddress(entry.station.mac)), entry.station.vlan, entry.handle, UnixSeconds(now - entry.age)
        )
        for entry in tunnel.dataplane.fdb()
        if entry.handle is not None
    ]


def _figures(tunnel: RunningTunnel) -> ClientFigures:
    """Totals since the tunnel started, over all sessions, as OpenVPN counts them."""
    frames = {"receive": 0, "transmit": 0}
    wire = {"receive": 0, "transmit": 0}
    counters = [record.past for record in tunnel.records.book.records()]
    counters += [peer.counters for peer in tunnel.dataplane.snapshot().peers]
    for each in counters:
        for (direction, _), amount in each.bytes.items():
            frames[direction] += amount
        for way, amount in each.wire_bytes.items():
            wire[way] += amount
    return ClientFigures(frames["transmit"], frames["receive"], wire["receive"], wire["transmit"])
