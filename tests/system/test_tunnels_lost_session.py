"""A server that dies without a word: its clients notice soon, and a forged notice ends nothing."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from bridged.protocol.packets.unknown_session import serialize_notice
from bridged.runtime.tunnels.tunnel import RunningTunnel
from tests.lab.bounds import at_most
from tests.lab.waiting import until
from tests.system.loopback_lab import Lab, client_role, crosses, endpoint, run, server_role


def kill(server: RunningTunnel) -> None:
    """Its process is gone: no farewell, and the port is free."""
    server.events.stop()
    server.dataplane.stop()
    for link in list(server.links.values()):
        server.links.discard(link)
    server_role(server).reception.close()


@pytest.mark.measures
@pytest.mark.parametrize("is_idle", [True, False], ids=["idle", "with traffic"])
def test_a_client_notices_within_three_seconds_that_its_server_was_killed_and_is_back(
    tmp_path: Path, is_idle: bool
) -> None:
    async def scenario(lab: Lab) -> None:
        loop = asyncio.get_running_loop()
        # Idle clients are told by a server that remembers them; others by their own traffic.
        memory = tmp_path / "clients" if is_idle else None
        server, _ = await lab.server(memory=memory)
        where = endpoint(server)
        client, far = await lab.client(where)
        await until(lambda: client.state == "connected")
        kill(server)
        await asyncio.sleep(0.2)
        again, lan = await lab.server(port=where.port, memory=memory)
        began = loop.time()
        if is_idle:
            await until(lambda: again.records.book.record("client").connections == 1)
        else:
            await crosses(far, lan)
        at_most(loop.time() - began, 3.0, "coming back")
        await crosses(far, lan)
        await crosses(lan, far)
        assert client.state == "connected"
        assert dict(client.records.book.record("server").disconnects) == {"replaced": 1}

    run(scenario)


def test_a_forged_notice_makes_a_client_ask_and_ends_nothing() -> None:
    async def scenario(lab: Lab) -> None:
        server, lan = await lab.server()
        client, far = await lab.client(endpoint(server))
        await crosses(far, lan)
        link = next(iter(client.links.values()))
        (peer,) = client.dataplane.snapshot().peers
        before = peer.counters.wire_datagrams["transmit"]
        where = next(iter(server.links.values())).endpoint
        for _ in range(50):
            # From the server's own address, as an attacker would forge it.
            server.dataplane.send_control(serialize_notice(0), where)
        await until(lambda: client_role(client)._probe._link)
        await until(lambda: not client_role(client)._probe._link)
        assert client.state == "connected" and list(client.links.values()) == [link]
        assert client.dataplane.snapshot().peers[0].counters.wire_datagrams["transmit"] <= before + 3
        for _ in range(50):
            server.dataplane.send_control(serialize_notice(0), where)
        await asyncio.sleep(0.2)
        assert not client_role(client)._probe._link, "the next one is not looked at for a while"
        assert server.records.book.record("client").connections == 1
        await crosses(far, lan)

    run(scenario)


def test_data_of_strangers_draws_one_small_notice_a_second() -> None:
    async def scenario(lab: Lab) -> None:
        server, _ = await lab.server()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.setblocking(False)
            stranger.connect((endpoint(server).host, endpoint(server).port))
            for _ in range(50):
                stranger.send(b"\x31\0\0\7" + bytes(60))
            answers: list[bytes] = []

            def heard() -> bool:
                try:
                    answers.append(stranger.recv(2048))
                except BlockingIOError:
                    return False
                return True

            await until(heard)
            await asyncio.sleep(0.1)
            while heard():
                pass
            assert answers == [serialize_notice(1)]
            stranger.send(b"\x31\0\0\7" + bytes(10))
            await asyncio.sleep(0.05)
            assert not heard(), "never more than what came"

    run(scenario)
