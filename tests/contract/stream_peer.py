"""A peer in hand behind a TCP connection of a data plane under test."""

from __future__ import annotations

import select
import socket
import time

from bridged.addresses import Endpoint
from bridged.dataplane.contract import PeerSettings
from bridged.protocol.keys.cipher import Cipher
from bridged.protocol.role import Role
from bridged.units import KeyId
from tests.contract.dataplane_rig import WAIT_SECONDS, HandPeer, Rig
from tests.lab.waiting import PATIENCE

LOOPBACK = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}


def framed(*packets: bytes) -> bytes:
    """Packets as they stand in a stream, by the book (docs/protocol/data.md#2-1)."""
    return b"".join(len(packet).to_bytes(2, "big") + packet for packet in packets)


def connected(family: int = socket.AF_INET) -> tuple[socket.socket, socket.socket]:
    """The far end of a connection over loopback, and the end for a data plane."""
    with socket.create_server((LOOPBACK[socket.AddressFamily(family)], 0), family=family) as listener:
        far = socket.socket(family)
        far.connect(listener.getsockname()[:2])
        near, _ = listener.accept()
    return far, near


class StreamPeer(HandPeer):
    """As `HandPeer`; its packets go through `stream`."""

    def __init__(self, number: int, cipher: Cipher, stream: socket.socket) -> None:
        super().__init__(number, cipher)
        self.stream = stream
        self._rest = b""

    @property
    def endpoint(self) -> Endpoint:
        host, port = self.stream.getsockname()[:2]
        return Endpoint.of(host, port, "tcp")

    def send_raw(self, datagram: bytes) -> None:
        self.stream.sendall(framed(datagram))

    def datagrams(self, count: int = 1, seconds: float = WAIT_SECONDS) -> list[bytes]:
        found: list[bytes] = []
        deadline = time.monotonic() + seconds * PATIENCE
        while len(found) < count:
            size = int.from_bytes(self._rest[:2], "big")
            if len(self._rest) >= 2 + size > 2:
                found.append(self._rest[2 : 2 + size])
                self._rest = self._rest[2 + size :]
                continue
            ready, _, _ = select.select([self.stream], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"peer {self.number}: {len(found)} of {count} packets within {seconds} s"
            octets = self.stream.recv(1 << 18)
            assert octets, f"peer {self.number}: the stream ended after {len(found)} of {count} packets"
            self._rest += octets
        return found

    def is_quiet(self, seconds: float = 0.15) -> bool:
        return not self._rest and not select.select([self.stream], [], [], seconds)[0]

    def is_ended(self, seconds: float = WAIT_SECONDS) -> bool:
        """Whether the data plane closes the stream, nothing more being in it."""
        ready, _, _ = select.select([self.stream], [], [], seconds * PATIENCE)
        try:
            return bool(ready) and not self.stream.recv(1)
        except ConnectionResetError:
            return True

    def close(self) -> None:
        super().close()
        self.stream.close()


def stream_peer(
    rig: Rig,
    number: int,
    *,
    cipher: Cipher = Cipher.AES_256_GCM,
    family: int = socket.AF_INET,
    received: bytes = b"",
    takes_any_id: bool = False,
) -> StreamPeer:
    """Add a peer over TCP with a key in use both ways. `received`: as if that had been read before."""
    far, near = connected(family)
    hand = StreamPeer(number, cipher, far)
    rig.peers.append(hand)
    rig.plane.adopt_stream(near.fileno(), hand.endpoint, received)
    near.close()
    rig.plane.add_peer(
        PeerSettings(
            hand.handle, f"site-{number}", hand.endpoint, None if takes_any_id else hand.wire_id, hand.wire_id
        )
    )
    rig.plane.install_key(hand.handle, hand.key(Role.SERVER))
    rig.plane.use_key(hand.handle, KeyId(0))
    return hand
