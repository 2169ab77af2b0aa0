"""Contract: a client's data plane works through the socket that its handshake used."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from bridged.addresses import Endpoint
from bridged.dataplane.contract import ControlReceived
from bridged.errors import DataplaneError
from tests.contract.dataplane_rig import HandPeer, Rig, frame, until
from tests.lab.waiting import PATIENCE

HARD_RESET = bytes([0x38]) + bytes(13)
LOOPBACK = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}


def opened(family: int = socket.AF_INET) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.bind((LOOPBACK[socket.AddressFamily(family)], 0))
    sock.setblocking(False)
    return sock


@pytest.fixture
def rig(build: str) -> Iterator[Rig]:
    with Rig(build, bind=None) as made:
        yield made


def peer_at(rig: Rig, sock: socket.socket) -> HandPeer:
    peer = rig.peer(1, takes_any_id=True)
    peer.target = sock.getsockname()
    return peer


def test_traffic_goes_through_the_socket_that_is_handed_over(rig: Rig) -> None:
    with opened() as sock:
        rig.plane.use_socket(sock.fileno())
        assert rig.plane.local_endpoint == Endpoint(*sock.getsockname())
        peer = peer_at(rig, sock)
        rig.put(frame(1, 2))
        assert peer.payloads() == [frame(1, 2)]
        peer.send(frame(2, 1))
        assert rig.frames() == [frame(2, 1)]
        peer.send_raw(HARD_RESET)
        assert rig.event(ControlReceived) == ControlReceived(HARD_RESET, peer.endpoint)
        rig.plane.send_control(HARD_RESET, peer.endpoint)
        assert peer.datagrams() == [HARD_RESET]


def test_the_plane_goes_on_when_the_opener_closes_its_descriptor(rig: Rig) -> None:
    sock = opened()
    rig.plane.use_socket(sock.fileno())
    peer = peer_at(rig, sock)
    sock.close()
    peer.send(frame(2, 1))
    assert rig.frames() == [frame(2, 1)]


def test_a_socket_that_is_taken_back_is_the_openers_alone(rig: Rig) -> None:
    with opened() as sock:
        rig.plane.use_socket(sock.fileno())
        peer = peer_at(rig, sock)
        peer.send_raw(HARD_RESET)
        rig.event(ControlReceived)
        rig.plane.remove_peer(peer.handle)
        rig.plane.use_socket(None)
        assert rig.plane.local_endpoint is None
        # A thread that was reading may take one more datagram.
        taken = 0
        for _ in range(20):
            peer.send_raw(HARD_RESET)
            if not rig.events(ControlReceived):
                taken += 1
        sock.setblocking(True)
        sock.settimeout(5 * PATIENCE)
        assert sock.recv(2048) == HARD_RESET
        assert taken >= 19


@pytest.mark.parametrize("families", [(socket.AF_INET, socket.AF_INET6), (socket.AF_INET6, socket.AF_INET)])
def test_another_socket_may_be_of_the_other_family(rig: Rig, families: tuple[int, int]) -> None:
    for family in families:
        with opened(family) as sock, opened(family) as far:
            rig.plane.use_socket(sock.fileno())
            host, port = sock.getsockname()[:2]
            assert rig.plane.local_endpoint == Endpoint(host, port)
            rig.plane.send_control(HARD_RESET, Endpoint(*far.getsockname()[:2]))
            far.setblocking(True)
            far.settimeout(5 * PATIENCE)
            data, source = far.recvfrom(2048)
            assert (data, source[:2]) == (HARD_RESET, (host, port))


def test_what_is_no_socket_is_refused_and_changes_nothing(rig: Rig) -> None:
    with opened() as sock, open(os.devnull, "rb") as nothing:
        rig.plane.use_socket(sock.fileno())
        with pytest.raises(DataplaneError) as caught:
            rig.plane.use_socket(nothing.fileno())
        assert caught.value.code == "system"
        assert rig.plane.local_endpoint == Endpoint(*sock.getsockname())


def test_no_thread_spins_while_there_is_no_socket(rig: Rig) -> None:
    with opened() as sock:
        rig.plane.use_socket(sock.fileno())
        rig.plane.use_socket(None)
        sock.sendto(b"\x38", sock.getsockname())
        before = sum(rig.snapshot().thread_cpu.values())
        assert rig.tap_is_quiet(0.4)
        assert sum(rig.snapshot().thread_cpu.values()) - before < 0.2
        until(lambda: rig.plane.local_endpoint is None, "no socket")
