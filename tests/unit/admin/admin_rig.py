"""A real server on a real Unix socket, in front of a daemon that only answers; and who asks it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from bridged.addresses import MacAddress
from bridged.admin.client import AdminClient
from bridged.admin.server import AdminServer
from bridged.admin.state import TunnelStation
from bridged.errors import DataplaneError
from bridged.pki import PkiError
from bridged.runtime.site.trust_keeper import Revocation
from bridged.runtime.snapshot import DaemonSnapshot, ReloadStatus
from bridged.runtime.tunnels.static_stations import StaticStation
from bridged.units import Seconds
from tests.lab.snapshots import daemon
from tests.lab.waiting import in_time

T = TypeVar("T")


class State:
    """What a daemon would be asked; remembers in which thread."""

    def __init__(self, snapshot: DaemonSnapshot | None = None) -> None:
        self.current = snapshot or daemon()
        self.waiting = True
        self.reloaded = ReloadStatus()
        self.threads: set[int] = set()

    def snapshot(self) -> DaemonSnapshot:
        self.threads.add(threading.get_ident())
        return self.current

    def confirm(self) -> bool:
        was, self.waiting = self.waiting, False
        return was

    async def reload(self) -> ReloadStatus:
        return self.reloaded

    def kick(self, name: str, tunnel: str | None) -> int:
        if tunnel not in (None, "sites"):
            raise KeyError(tunnel)
        return 2 if name == "shop" else 0

    async def revoke(self, name: str, keep: str | None, state: str | None) -> Revocation:
        if name != "shop":
            raise PkiError("pki_unknown", f"no valid certificate for {name!r}")
        self.revoked = (name, keep, state)
        return Revocation(1, 2)

    def fdb(self, tunnel: str) -> Sequence[TunnelStation]:
        if tunnel != "sites":
            raise KeyError(tunnel)
        return [
            TunnelStation(MacAddress.parse("02:00:00:00:00:01"), "warehouse", Seconds(1.5)),
            TunnelStation(MacAddress.parse("02:00:00:00:00:02"), None, Seconds(0.0), is_static=True),
        ]

    def static_stations(self, tunnel: str) -> Sequence[StaticStation]:
        return [
            StaticStation(MacAddress.parse("02:00:00:00:00:02"), None, True),
            StaticStation(MacAddress.parse("02:00:00:00:00:03"), "shop", False),
        ]

    def add_station(self, tunnel: str, address: MacAddress, peer: str | None) -> StaticStation:
        if tunnel != "sites":
            raise KeyError(tunnel)
        if peer == "full":
            raise DataplaneError("fdb_full", "no room")
        return StaticStation(address, peer, is_installed=peer is None)

    def remove_station(self, tunnel: str, address: MacAddress) -> bool:
        if tunnel != "sites":
            raise KeyError(tunnel)
        return address == MacAddress.parse("02:00:00:00:00:02")


def served(path: Path, state: State, ask: Callable[[AdminClient], T]) -> T:
    """Run a server, ask it from another thread, stop it."""

    def in_thread() -> T:
        with AdminClient(path) as client:
            return ask(client)

    async def run() -> T:
        server = AdminServer(path, state)
        await server.start()
        try:
            return await asyncio.to_thread(in_thread)
        finally:
            await server.stop()

    return asyncio.run(run())


def asked(path: Path, *requests: bytes, count: int | None = None) -> list[tuple[int, dict[str, str], Any]]:
    """Answers (status, header fields, JSON) in one connection, until it ends or `count` came."""

    async def run() -> list[tuple[int, dict[str, str], Any]]:
        server = AdminServer(path, State())
        await server.start()
        reader, writer = await asyncio.open_unix_connection(str(path))
        answers: list[tuple[int, dict[str, str], Any]] = []
        with contextlib.suppress(ConnectionError):
            writer.write(b"".join(requests))
            await writer.drain()
        async with in_time(5):
            while len(answers) != count:
                try:
                    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                except (EOFError, ConnectionError):
                    break
                fields = dict(line.split(": ", 1) for line in head[1:] if line)
                body = await reader.readexactly(int(fields["Content-Length"]))
                answers.append((int(head[0].split()[1]), fields, json.loads(body)))
            writer.close()
            await server.stop()
        return answers

    return asyncio.run(run())


def request(path: str = "/v1/health", method: str = "GET", *fields: str, body: bytes = b"") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: x", *fields, "", ""]).encode("latin-1") + body
