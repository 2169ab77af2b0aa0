"""Both directions of the portable data plane over a transport that is no UDP socket: packets in a list."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Sequence

import pytest

from bridged.addresses import Endpoint, MacAddress
from bridged.dataplane.contract import DataplaneEvent, DataplaneSettings, PeerFloated, PeerSettings, TapPort
from bridged.dataplane.portable.control.counters import DropCounter, new_batch_sizes
from bridged.dataplane.portable.control.events import EventQueue
from bridged.dataplane.portable.directions import Directions
from bridged.dataplane.portable.tables.fdb import Fdb
from bridged.dataplane.portable.tables.key_use import KeyUse
from bridged.dataplane.portable.tables.keys import KeySlot
from bridged.dataplane.portable.tables.peers import Peer, PeerTable
from bridged.dataplane.portable.transport.seam import Path, Received
from bridged.protocol.keys.cipher import Cipher
from bridged.protocol.keys.key_derivation import slice_keys
from bridged.protocol.role import Role
from bridged.units import KeyId, Octets, PeerHandle, Seconds, WirePeerId

NEAR, FAR, ELSEWHERE = (Endpoint("192.0.2.1", number) for number in (1, 2, 3))
HANDLE, WIRE_ID = PeerHandle(1), WirePeerId(5)
BROADCAST = b"\xff" * 6


class Stream:
    """One end of a line that keeps packets apart and in order, and all that its tunnel has."""

    is_stream = False

    def __init__(self, own: Endpoint) -> None:
        self.udp = self
        self.own = own
        self.far: Stream | None = None
        self.packets: list[bytes] = []
        self.before_close: Callable[[], None] = lambda: None

    def fileno(self) -> int:
        return -1

    def path(self, endpoint: Endpoint) -> Path:
        return Path((endpoint.host, endpoint.port), self)

    def fitting(self, frames: Sequence[bytes], overhead: int) -> int:
        return len(frames)

    def remember_source(self, received: Received) -> None: ...

    def receive(self) -> Received | None:
        assert self.far is not None
        if not self.packets:
            return None
        packet = self.packets.pop(0)
        return packet, len(packet), (self.far.own.host, self.far.own.port), None

    def send(self, packets: Sequence[bytes], path: Path, now: float, octet: int = 0) -> int:
        assert self.far is not None
        self.far.packets += packets
        return sum(map(len, packets))

    def send_one(self, packet: bytes, path: Path) -> int:
        return self.send([packet], path, 0.0)

    def send_to(self, datagram: bytes, endpoint: Endpoint) -> None:
        self.send([datagram], self.path(endpoint), 0.0)


class End:
    """All parts of one end, and the far side of its TAP."""

    def __init__(self, role: Role, own: Endpoint, far: Endpoint) -> None:
        self.transport = Stream(own)
        self.told: list[DataplaneEvent] = []
        self.lan, near = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.lan.setblocking(False)
        self.tap = near.detach()
        port = TapPort((self.tap,), "tap-in-hand", MacAddress(b"\2\0\0\0\0\1"), Octets(1500))
        self.table = PeerTable()
        self.fdb = Fdb(capacity=100, addresses_per_peer=50, ageing=Seconds(300.0), move_hold=Seconds(0.1))
        self.events = EventQueue()
        self.drops = DropCounter()
        self.parts = Directions(
            DataplaneSettings("seam", port, None),
            self.table,
            self.fdb,
            self.transport,  # type: ignore[arg-type]
            self.events,
            self.drops,
            new_batch_sizes(),
            self.told.append,
        )
        peer = Peer(PeerSettings(HANDLE, "far", far, WIRE_ID, WIRE_ID), self.transport.path(far), 0.0)
        self.table.add(peer)
        key = slice_keys(bytes(range(256)), role, Cipher.AES_256_GCM, KeyId(0))
        slot = KeySlot(key, 64, KeyUse(is_aes_gcm=True))
        self.table.install(peer, slot)
        peer.sealing = slot
        self.peer = peer

    def frames(self) -> list[bytes]:
        """Receive all that waits; the frames that reached the LAN."""
        while (received := self.transport.receive()) is not None:
            frame = self.parts.receiver.take_one(received, 1.0)
            if frame is not None:
                self.parts.writer.write_one(frame)
            self.parts.writer.write(self.parts.delivery.take_for_tap())
            self.parts.batches.flush(1.0)
        found = []
        while True:
            try:
                found.append(self.lan.recv(2000))
            except BlockingIOError:
                return found

    def close(self) -> None:
        self.events.close()
        self.lan.close()
        os.close(self.tap)


@pytest.fixture
def ends() -> Iterator[tuple[End, End]]:
    near, far = End(Role.SERVER, NEAR, FAR), End(Role.CLIENT, FAR, NEAR)
    near.transport.far, far.transport.far = far.transport, near.transport
    yield near, far
    near.close()
    far.close()


def frame(source: int, destination: bytes, text: bytes = b"") -> bytes:
    return (destination + b"\2\0\0\0\0" + bytes([source]) + b"\x88\xb5" + text).ljust(60, b"\0")


def test_frames_cross_any_transport_in_batches_and_alone(ends: tuple[End, End]) -> None:
    near, far = ends
    batch = [frame(1, BROADCAST, bytes([number])) for number in range(5)]
    near.parts.forwarding.forward(list(batch), 1.0)
    assert far.frames() == batch
    answer = frame(2, batch[0][6:12])
    for _ in range(3):
        far.parts.forwarding.forward_one(answer, 1.0)
        assert near.frames() == [answer]
    assert near.drops.totals == far.drops.totals == {}


def test_a_peer_stays_itself_when_its_address_changes(ends: tuple[End, End]) -> None:
    near, far = ends
    far.transport.own = ELSEWHERE
    far.parts.forwarding.forward_one(frame(2, BROADCAST), 1.0)
    assert near.frames() == [frame(2, BROADCAST)]
    assert near.told == [PeerFloated(HANDLE, ELSEWHERE, FAR)]
    assert near.peer.path.address == (ELSEWHERE.host, ELSEWHERE.port)
    assert near.table.get(HANDLE) is near.peer
