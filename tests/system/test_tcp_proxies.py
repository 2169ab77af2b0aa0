"""Clients that reach their server through a proxy: HTTP CONNECT and SOCKS5, with and without a password."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable
from typing import Literal

import pytest

from bridged.addresses import Endpoint, Remote
from bridged.runtime.tunnels.proxy import ProxySettings
from tests.lab.waiting import until
from tests.system.loopback_lab import Lab, crosses, pass_on, run

USER, PASSWORD = "site-b", "pass word:1"
Kind = Literal["http", "socks5"]
Asked = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[tuple[str, int] | None]]


async def _http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[str, int] | None:
    lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    verb, target, _ = lines[0].split()
    assert verb == "CONNECT"
    token = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    if not any(line.lower() == f"proxy-authorization: basic {token}".lower() for line in lines):
        writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
        return None
    writer.write(b"HTTP/1.1 200 Connection established\r\nVia: test\r\n\r\n")
    host, _, port = target.rpartition(":")
    return host, int(port)


async def _socks5(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[str, int] | None:
    _, count = await reader.readexactly(2)
    methods = await reader.readexactly(count)
    if 2 not in methods:
        writer.write(b"\x05\xff")
        return None
    writer.write(b"\x05\x02")
    _, length = await reader.readexactly(2)
    user = (await reader.readexactly(length)).decode()
    (length,) = await reader.readexactly(1)
    password = (await reader.readexactly(length)).decode()
    if (user, password) != (USER, PASSWORD):
        writer.write(b"\x01\x01")
        return None
    writer.write(b"\x01\x00")
    _, command, _, kind = await reader.readexactly(4)
    assert (command, kind) == (1, 1)
    host = ".".join(map(str, await reader.readexactly(4)))
    port = int.from_bytes(await reader.readexactly(2), "big")
    writer.write(b"\x05\x00\x00\x01" + bytes(6))
    return host, port


ASKED: dict[Kind, Asked] = {"http": _http, "socks5": _socks5}


class Proxy:
    """Connects whoever knows the password; `connected`: how often it did."""

    def __init__(self, kind: Kind) -> None:
        self.connected = 0
        self._ask = ASKED[kind]

    async def start(self) -> Endpoint:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return Endpoint(*server.sockets[0].getsockname())

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        where = await self._ask(reader, writer)
        if where is None:
            writer.close()
            return
        far, to_far = await asyncio.open_connection(*where)
        self.connected += 1
        await asyncio.gather(pass_on(reader, to_far), pass_on(far, writer), return_exceptions=True)


@pytest.mark.parametrize("kind", ["http", "socks5"])
def test_a_server_is_reached_through_a_proxy_that_knows_us(kind: Kind) -> None:
    async def scenario(lab: Lab) -> None:
        proxy = Proxy(kind)
        where = await proxy.start()
        server, lan = await lab.server(tcp=True)
        (near,) = server.role.tcp_endpoints
        way = ProxySettings(kind, where, USER, PASSWORD)
        client, far = await lab.client_of([Remote(near, "tcp")], proxy=way)
        await until(lambda: client.state == "connected")
        await crosses(far, lan)
        await crosses(lan, far)
        assert proxy.connected == 1
        assert PASSWORD not in repr(way)

    run(scenario)


@pytest.mark.parametrize("kind", ["http", "socks5"])
@pytest.mark.parametrize("password", ["wrong", None])
def test_a_proxy_that_refuses_is_named_and_the_next_server_is_called(
    kind: Kind, password: str | None
) -> None:
    async def scenario(lab: Lab) -> None:
        where = await Proxy(kind).start()
        server, lan = await lab.server(tcp=True)
        (near,) = server.role.tcp_endpoints
        way = ProxySettings(kind, where, USER if password else None, password)
        refused, _ = await lab.client_of([Remote(near, "tcp")], proxy=way)
        await until(lambda: f"proxy {where}" in str(refused.records.last_error), seconds=10)
        udp = Remote(server.dataplane.local_endpoint or near)
        client, far = await lab.client_of([Remote(near, "tcp"), udp], "second", proxy=way)
        await until(lambda: client.state == "connected")
        await crosses(far, lan)

    run(scenario)
