"""Server and client tunnels with real TLS and real data planes over the loopback interface.

Socket pairs stand for the TAP adapters; one datagram is one frame.
"""

from __future__ import annotations

import asyncio
import socket

import pytest

from bridged.addresses import Endpoint
from bridged.dataplane.contract import PeerFloated
from bridged.errors import ShutdownErrors
from bridged.protocol.packets.negotiation import ProtocolFlags
from bridged.protocol.packets.occ import OCC_EXIT, PING
from bridged.protocol.packets.packet import ControlBody, ControlHeader, Opcode, serialize_body
from bridged.protocol.packets.wrap import NoWrap
from bridged.protocol.session import conversation_client
from bridged.runtime.server.admission import UNFINISHED_PER_CERTIFICATE, Places
from bridged.runtime.server.server import ServerRole
from bridged.runtime.snapshot import finish
from bridged.runtime.tunnels.tunnel import RunningTunnel
from bridged.runtime.tunnels.tunnel_status import tunnel_status
from bridged.units import KeyId
from tests.lab.bounds import at_most
from tests.lab.waiting import PATIENCE, until
from tests.system.loopback_lab import Lab, crosses, endpoint, run, server_role


def test_frames_cross_and_a_stop_is_told_and_counted() -> None:
    async def scenario(lab: Lab) -> None:
        server, lan = await lab.server()
        client, far = await lab.client(endpoint(server))
        await crosses(far, lan)
        await crosses(lan, far)
        await client.stop()
        await until(lambda: server.records.book.record("client").disconnects)
        assert dict(server.records.book.record("client").disconnects) == {"exit_notify": 1}

    run(scenario)


def test_a_peer_that_left_is_forgotten_after_its_time_of_retention() -> None:
    async def scenario(lab: Lab) -> None:
        def shown() -> list[str]:
            return [peer.name for peer in finish(tunnel_status(server)).peers]

        server, lan = await lab.server(peer_retention=2.0)
        staying, far = await lab.client(endpoint(server))
        leaving, _ = await lab.client(endpoint(server), "second")
        await crosses(far, lan)
        await until(lambda: leaving.state == "connected" and len(shown()) == 2)
        await leaving.stop()
        await until(lambda: server.records.book.record("second").disconnects)
        assert sorted(shown()) == ["client", "second"]
        await until(lambda: shown() == ["client"], seconds=6)
        assert staying.state == "connected"

    run(scenario)


@pytest.mark.measures
def test_a_client_comes_back_to_a_server_that_restarts_without_waiting_for_the_old_session() -> None:
    async def scenario(lab: Lab) -> None:
        server, _ = await lab.server()
        client, far = await lab.client(endpoint(server))
        await until(lambda: client.state == "connected")
        port = endpoint(server).port
        await server.stop()
        await until(lambda: client.state != "connected", seconds=2)
        again, lan = await lab.server(port=port)
        before = asyncio.get_running_loop().time()
        await until(lambda: client.state == "connected")
        # The session that heard the farewell is still draining for 5 s.
        at_most(asyncio.get_running_loop().time() - before, 4.0, "coming back")
        await crosses(far, lan)
        assert again.records.statistics.handshakes["initial", "established"] == 1

    run(scenario)


class Unwilling(ServerRole):
    """Cannot be stopped at first."""

    asked = 0

    async def stop(self) -> None:
        self.asked += 1
        if self.asked == 1:
            raise OSError("cannot stop")
        await super().stop()


def test_a_stop_that_fails_ends_all_the_rest_and_the_next_one_takes_what_failed() -> None:
    async def scenario(lab: Lab) -> None:
        server, lan = await lab.server(make_role=Unwilling)
        client, far = await lab.client(endpoint(server))
        await crosses(far, lan)
        port = endpoint(server).port
        with pytest.raises(ShutdownErrors, match="cannot stop"):
            await server.stop()
        await until(lambda: client.state != "connected")
        assert not server.links
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            # The data plane has let go of its port.
            other.bind(("127.0.0.1", port))
        role = server.role
        assert isinstance(role, Unwilling)
        for _ in range(3):
            await server.stop()
        assert role.asked == 2

    run(scenario)


def test_a_stop_after_an_earlier_end_still_waits_for_its_farewell() -> None:
    async def scenario(lab: Lab) -> None:
        server, _ = await lab.server()
        first, _ = await lab.client(endpoint(server))
        await until(lambda: server.records.book.record("client").connections == 1)
        await first.stop()
        await until(lambda: not server.links, seconds=8)
        second, _ = await lab.client(endpoint(server), "second")
        await until(lambda: second.state == "connected")
        await server.stop()
        assert not server.links, "the farewell was acknowledged"

    run(scenario)


def test_a_peer_beyond_the_limit_is_told_so_and_disturbs_nobody() -> None:
    async def scenario(lab: Lab) -> None:
        server, lan = await lab.server(peers_limit=1)
        first, far = await lab.client(endpoint(server))
        await crosses(far, lan)
        second, _ = await lab.client(endpoint(server), "second")
        await until(lambda: second.records.last_error)
        assert "no room" in str(second.records.last_error)
        assert server.records.statistics.handshakes["initial", "peer_limit"] >= 1
        assert first.state == "connected"
        await crosses(far, lan)

    run(scenario)


def test_a_site_that_comes_again_takes_the_place_of_its_past() -> None:
    async def scenario(lab: Lab) -> None:
        server, lan = await lab.server(peers_limit=1)
        first, _ = await lab.client(endpoint(server))
        await until(lambda: first.state == "connected")
        again, far = await lab.client(endpoint(server))
        await crosses(far, lan)
        record = server.records.book.record("client")
        assert record.connections == 2 and record.disconnects["replaced"] == 1
        assert again.state == "connected"

    run(scenario)


def knock(target: Endpoint, number: int, *packets: bytes, patience: float = 5.0) -> list[bytes]:
    """A stranger returns its cookie: in an acknowledgement, or with each of `packets` as its first TLS.

    What it hears up to the answer to each. Raises TimeoutError: one of them has none.
    """
    wire = NoWrap()
    session_id = number.to_bytes(8, "big")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.settimeout(5 * PATIENCE)
        stranger.connect((target.host, target.port))
        reset = ControlHeader(Opcode.HARD_RESET_CLIENT_V2, KeyId(0), session_id)
        stranger.send(wire.seal(reset, 0, 0, serialize_body(ControlBody(message_id=0))))
        cookie = wire.open(stranger.recv(2048)).header.session_id
        stranger.settimeout(patience)
        bodies = [ControlBody((0,), cookie, 1, payload) for payload in packets] or [ControlBody((0,), cookie)]
        opcode = Opcode.CONTROL_V1 if packets else Opcode.ACK_V1
        header = ControlHeader(opcode, KeyId(0), session_id)
        answers = []
        for body in bodies:
            stranger.send(wire.seal(header, 0, 0, serialize_body(body)))
            while packets:
                answers.append(stranger.recv(2048))
                if wire.open(answers[-1]).header.opcode is Opcode.CONTROL_V1:
                    break
        return answers


HALF_A_HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
NO_TLS = b"\x17\x03\x03\x00\x01\x00"


def test_strangers_that_only_acknowledge_take_no_place_and_no_memory() -> None:
    async def scenario(lab: Lab) -> None:
        server, lan = await lab.server(peers_limit=1, mode="none")
        for number in range(1, 31):
            await asyncio.to_thread(knock, endpoint(server), number)
        await until(lambda: len(server_role(server).reception.waiting) == 30)
        assert not server.links
        _, far = await lab.client(endpoint(server), mode="none")
        await crosses(far, lan)
        assert server.records.book.record("client").connections == 1

    run(scenario)


def test_a_stranger_that_fails_leaves_its_last_packets_and_its_cookie_opens_nothing_more() -> None:
    async def scenario(lab: Lab) -> None:
        server, _ = await lab.server(mode="none")
        answers = await asyncio.to_thread(knock, endpoint(server), 1, NO_TLS, NO_TLS, NO_TLS)
        assert not server.links and len(server_role(server).reception.places) == 0
        assert server.records.statistics.handshakes["initial", "tls_failed"] == 1
        assert server.records.statistics.control_drops["receive", "cookie_mismatch"] >= 2
        assert answers[-1] == answers[-2], "who repeats itself hears the end of its session again"

    run(scenario)


def test_who_stalls_keeps_nobody_out_and_more_clients_than_places_are_all_served(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Places.__init__, "__defaults__", (2,))

    async def scenario(lab: Lab) -> None:
        server, lan = await lab.server(mode="none")

        async def stall(number: int) -> None:
            try:
                await asyncio.to_thread(knock, endpoint(server), number, HALF_A_HELLO, patience=0.5)
            except TimeoutError:
                pass  # it is acknowledged, and never answered

        stalling = [asyncio.create_task(stall(number)) for number in range(1, 4)]
        reception = server_role(server).reception
        await until(lambda: not reception.places.has_room and len(reception.waiting) == 1)
        ends = [await lab.client(endpoint(server), name, mode="none") for name in ("client", "second")]
        for tunnel, far in ends:
            await until(lambda tunnel=tunnel: tunnel.state == "connected")  # type: ignore[misc]
            await crosses(far, lan)
        assert server.records.statistics.handshakes["initial", "peer_limit"] >= 1
        await asyncio.gather(*stalling)

    run(scenario)


def test_one_certificate_holds_few_peer_ids_while_it_is_not_established(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Sessions that authenticate and never ask for their options."""
    monkeypatch.setattr(
        conversation_client, "_ALWAYS", conversation_client._ALWAYS & ~ProtocolFlags.REQUEST_PUSH
    )
    monkeypatch.setattr(conversation_client, "FIRST_PUSH_REQUEST", 1e9)

    async def scenario(lab: Lab) -> None:
        server, lan = await lab.server(peers_limit=3, mode="none")
        hoarders = [await lab.client(endpoint(server), "second", mode="none") for _ in range(5)]
        keys = [link.session.keys.primary for tunnel, _ in hoarders for link in tunnel.links.values()]
        await until(lambda: all(key.is_exchanged for key in keys))
        held = [link for link in server.links.values() if link.receive_peer_id is not None]
        assert len(held) <= UNFINISHED_PER_CERTIFICATE
        monkeypatch.undo()
        _, far = await lab.client(endpoint(server), mode="none")
        await crosses(far, lan)

    run(scenario)


def test_no_station_of_a_lan_ends_a_tunnel_with_a_frame() -> None:
    async def scenario(lab: Lab) -> None:
        server, hub = await lab.server()
        sites = [await lab.client(endpoint(server), name) for name in ("client", "second")]
        clients = [tunnel for tunnel, _ in sites]
        for _, host in sites:
            await crosses(host, hub)
        for host in (hub, sites[0][1]):
            for magic in (PING, OCC_EXIT):
                host.lan.send(magic)
                host.lan.send(magic.ljust(60, b"\0"))
        for tunnel in (server, clients[0]):
            await until(lambda tunnel=tunnel: drops(tunnel) == 4)
        # An OpenVPN end relays such a frame from its LAN as it is.
        first = next(link for link in server.links.values() if link.name == "client")
        link = next(iter(clients[0].links.values()))
        for payload in (OCC_EXIT, OCC_EXIT.ljust(60, b"\0")):
            clients[0].dataplane.send_payload(link.handle, payload)
            server.dataplane.send_payload(first.handle, payload)
        for tunnel in (server, clients[0]):
            await until(
                lambda drops=tunnel.records.statistics.control_drops: (
                    drops["receive", "housekeeping_magic"] == 2
                )
            )
        assert [tunnel.state for tunnel in clients] == ["connected", "connected"]
        for name in ("client", "second"):
            assert not server.records.book.record(name).disconnects
        for _, host in sites:
            await crosses(host, hub)

    run(scenario)


@pytest.mark.parametrize("who", ["client", "server"])
def test_an_exit_on_the_data_channel_is_believed_where_the_control_channel_was_not_agreed_for_it(
    who: str,
) -> None:
    async def scenario(lab: Lab) -> None:
        server, lan = await lab.server()
        # Without the exporter a client announces nothing newer.
        client, far = await lab.client(endpoint(server), use_exporter=False)
        await crosses(far, lan)
        sender, other = (server, client) if who == "client" else (client, server)
        link = next(iter(sender.links.values()))
        sender.dataplane.send_payload(link.handle, OCC_EXIT.ljust(60, b"\0"))
        await until(lambda: other.records.statistics.control_drops["receive", "housekeeping_magic"] == 1)
        assert client.state == "connected", "a frame of a LAN is longer than an exit"
        sender.dataplane.send_payload(link.handle, OCC_EXIT)
        record = other.records.book.record("server" if other is client else "client")
        await until(lambda: record.disconnects)
        assert dict(record.disconnects) == {"exit_notify": 1}

    run(scenario)


def drops(tunnel: RunningTunnel) -> int:
    return tunnel.dataplane.snapshot().drops.get(("transmit", "housekeeping_magic"), 0)


def test_a_peer_that_claims_an_address_ends_nobody_s_handshake_there() -> None:
    """A peer moves with any packet of its own, whoever's address it writes on it."""

    async def scenario(lab: Lab) -> None:
        server, lan = await lab.server(mode="none")
        peer, far = await lab.client(endpoint(server), mode="none")
        await crosses(far, lan)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as newcomer:
            newcomer.bind(("127.0.0.1", 0))
            there = Endpoint("127.0.0.1", newcomer.getsockname()[1])
            ids = {"local_session_id": b"12345678", "remote_session_id": b"abcdefgh"}
            begun = server.sessions.open(there, **ids)
            link = next(link for link in server.links.values() if link.name == "client")
            server.events.handle(PeerFloated(link.handle, there, link.endpoint))
            assert link.endpoint == there
            assert begun.session.is_live
            begun.close("shutdown", "the test ends", notify=False)
        await peer.stop()

    run(scenario)
