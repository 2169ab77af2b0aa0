"""A data plane under test between a hand-held TAP and hand-made peers.

The TAP is one end of a socket pair (a frame per message, as on the real thing), the peers are UDP sockets on
loopback that seal and open with the reference layout of `bridged.protocol.packets.data_packet`. The test
controls every byte on both sides.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, TypeVar

from bridged.addresses import Endpoint, MacAddress
from bridged.dataplane import create_dataplane
from bridged.dataplane.contract import (
    DataplaneEvent,
    DataplaneSettings,
    DataplaneSnapshot,
    PeerSettings,
    Station,
    TapPort,
)
from bridged.errors import RemoteProtocolError
from bridged.protocol.keys.cipher import Cipher
from bridged.protocol.keys.epoch_keys import EpochKey
from bridged.protocol.keys.key_derivation import DataKey, slice_keys
from bridged.protocol.packets import data_packet
from bridged.protocol.packets.cbc_packet import CbcHmac, open_cbc, seal_cbc
from bridged.protocol.packets.epoch_packet import open_epoch, parse_epoch
from bridged.protocol.packets.framing import Framing
from bridged.protocol.role import Role
from bridged.units import KeyId, Octets, PeerHandle, Seconds, WirePeerId
from tests.lab.epoch_sealing import seal_epoch
from tests.lab.waiting import PATIENCE, wait_for

WAIT_SECONDS = 5.0
QUIET_SECONDS = 0.15
SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33
TAP_MAC = MacAddress(bytes.fromhex("02005e0000ff"))
BROADCAST = b"\xff" * 6
RIG_MTU = 1600
"""Room for 1448 bytes behind any headers."""

Result = TypeVar("Result")


def station(number: int) -> bytes:
    """A unicast MAC address."""
    return bytes.fromhex("02005e") + number.to_bytes(3, "big")


def frame(source: int | bytes, destination: int | bytes, text: bytes = b"", ethertype: int = 0x88B5) -> bytes:
    """A frame between two stations, 60 bytes or more."""
    addresses = [station(item) if isinstance(item, int) else item for item in (destination, source)]
    return (b"".join(addresses) + ethertype.to_bytes(2, "big") + text).ljust(60, b"\0")


def material(seed: int) -> bytes:
    """256 bytes of key material, another for every seed."""
    return bytes((index * 7 + seed * 31 + index // 16) & 0xFF for index in range(256))


def until(condition: Callable[[], Result], what: str, seconds: float = WAIT_SECONDS) -> Result:
    """The first true answer of `condition`."""
    return wait_for(condition, what, seconds, interval_seconds=0.002)


def enlarge(sock: socket.socket, octets: int) -> None:
    """Give a socket buffers of this size, or without root as much as the host allows."""
    for forced, plain in ((SO_SNDBUFFORCE, socket.SO_SNDBUF), (SO_RCVBUFFORCE, socket.SO_RCVBUF)):
        try:
            sock.setsockopt(socket.SOL_SOCKET, forced, octets)
        except PermissionError:
            sock.setsockopt(socket.SOL_SOCKET, plain, octets)


def epoch_key(secret: bytes | bytearray, cipher: Cipher, epoch: int) -> EpochKey:
    """The key of an epoch, from the secret of the first."""
    key = EpochKey(1, bytes(secret), cipher)
    while key.epoch < epoch:
        key = key.next()
    return key


class HandPeer:
    """A remote end: a UDP socket, the keys of the client's side, and its own packet ids."""

    def __init__(
        self,
        number: int,
        cipher: Cipher,
        *,
        is_v2: bool = True,
        wire_id: int | None = None,
        digest: str = "SHA1",
        is_epoch: bool = False,
    ) -> None:
        self.is_epoch = is_epoch
        self.number = number
        self.digest = digest
        self.handle = PeerHandle(number)
        self.cipher = cipher
        self.wire_id = WirePeerId(number if wire_id is None else wire_id)
        self.is_v2 = is_v2
        self.socket = self._bound()
        self.target: tuple[str, int] = ("127.0.0.1", 0)
        self.key_id = KeyId(0)
        self.next_id = 1

    @staticmethod
    def _bound() -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind(("127.0.0.1", 0))
        enlarge(sock, 4 << 20)
        sock.setblocking(False)
        return sock

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(*self.socket.getsockname())

    def key(self, role: Role, key_id: int | None = None) -> DataKey:
        """The key of one end; key ids have different material."""
        number = self.key_id if key_id is None else key_id
        octets = material(self.number * 8 + number)
        return slice_keys(
            octets, role, self.cipher, KeyId(number), digest=self.digest, is_epoch=self.is_epoch
        )

    def seal(
        self, payload: bytes, *, packet_id: int | None = None, key_id: int | None = None, epoch: int = 1
    ) -> bytes:
        """The packet of a payload under the client's key."""
        if packet_id is None:
            packet_id, self.next_id = self.next_id, self.next_id + 1
        key = self.key(Role.CLIENT, key_id)
        header = data_packet.serialize_data_header(key.key_id, self.wire_id if self.is_v2 else None)
        if key.is_epoch:
            chain = epoch_key(key.send_key, self.cipher, epoch)
            aead = data_packet.make_aead(self.cipher, chain.cipher_key)
            return seal_epoch(aead, chain.iv, header, epoch, packet_id, payload)
        if key.digest is not None:
            sealer = CbcHmac(key.send_key, key.digest, key.send_hmac)
            return seal_cbc(sealer, os.urandom(16), header, packet_id, payload)
        aead = data_packet.make_aead(self.cipher, key.send_key)
        return data_packet.seal(aead, bytes(key.send_iv), header, packet_id, payload)

    def open(self, packet: bytes) -> data_packet.OpenedData:
        """What the data plane sealed."""
        key = self.key(Role.CLIENT, packet[0] & 7)
        if key.is_epoch:
            chain = epoch_key(key.receive_key, self.cipher, parse_epoch(packet)[1])
            opened = open_epoch(data_packet.make_aead(self.cipher, chain.cipher_key), chain.iv, packet)
            return data_packet.OpenedData(opened.header, opened.counter, opened.payload)
        if key.digest is not None:
            return open_cbc(CbcHmac(key.receive_key, key.digest, key.receive_hmac), packet)
        aead = data_packet.make_aead(self.cipher, key.receive_key)
        return data_packet.open(aead, bytes(key.receive_iv), packet)

    def send(self, *payloads: bytes) -> None:
        for payload in payloads:
            self.send_raw(self.seal(payload))

    def send_raw(self, datagram: bytes) -> None:
        self.socket.sendto(datagram, self.target)

    def send_batch(self, packets: list[bytes]) -> None:
        """As one UDP_SEGMENT send: all of one size, but for a smaller last one."""
        segment = (socket.IPPROTO_UDP, 103, len(packets[0]).to_bytes(2, "little"))
        self.socket.sendmsg([b"".join(packets)], [segment], 0, self.target)

    def datagrams(self, count: int = 1, seconds: float = WAIT_SECONDS) -> list[bytes]:
        """The next `count` datagrams."""
        found: list[bytes] = []
        deadline = time.monotonic() + seconds * PATIENCE
        while len(found) < count:
            ready, _, _ = select.select([self.socket], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"peer {self.number}: {len(found)} of {count} datagrams within {seconds} s"
            found.append(self.socket.recv(65535))
        return found

    def payloads(self, count: int = 1) -> list[bytes]:
        return [self.open(packet).payload for packet in self.datagrams(count)]

    def is_quiet(self, seconds: float = QUIET_SECONDS) -> bool:
        """Whether nothing comes for a while."""
        ready, _, _ = select.select([self.socket], [], [], seconds)
        return not ready

    def move(self) -> Endpoint:
        """Go on from another port, as behind a NAT that forgot; returns the endpoint of before."""
        before = self.endpoint
        old, self.socket = self.socket, self._bound()
        old.close()
        return before

    def close(self) -> None:
        self.socket.close()


class Rig:
    """The data plane, its TAP's far end, and its peers. A context manager."""

    def __init__(
        self, build: str, *, vnet: int = 0, offloads: Iterable[str] = (), mtu: int = RIG_MTU, **settings: Any
    ) -> None:
        self.tap, self._near = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (self.tap, self._near):
            end.setblocking(False)
            enlarge(end, 4 << 20)
        self.vnet = vnet
        port = TapPort((self._near.fileno(),), "tap-in-hand", TAP_MAC, Octets(mtu), vnet, frozenset(offloads))
        self.settings = replace(DataplaneSettings("contract", port, Endpoint("127.0.0.1", 0)), **settings)
        self.plane = create_dataplane(build, self.settings)  # type: ignore[arg-type]
        self.peers: list[HandPeer] = []
        self.seen: list[DataplaneEvent] = []

    def __enter__(self) -> Rig:
        self.plane.start()
        return self

    def __exit__(self, *_: object) -> None:
        # pytest shows this where a test fails.
        figures = self.plane.snapshot()
        print(figures.drops, figures.counts, figures.queues)
        self.plane.stop()
        for peer in self.peers:
            peer.close()
        self.tap.close()
        self._near.close()

    @property
    def port(self) -> int:
        endpoint = self.plane.local_endpoint
        assert endpoint is not None
        return endpoint.port

    def peer(
        self,
        number: int,
        cipher: Cipher = Cipher.AES_256_GCM,
        *,
        name: str = "",
        is_v2: bool = True,
        takes_any_id: bool = False,
        digest: str = "SHA1",
        is_epoch: bool = False,
        ping: float | None = None,
        ping_restart: float | None = None,
        framing: Framing = "none",
        fragment: int = 0,
        with_key: bool = True,
    ) -> HandPeer:
        """Add a peer, with a key in use both ways unless `with_key` is false."""
        hand = HandPeer(number, cipher, is_v2=is_v2, digest=digest, is_epoch=is_epoch)
        hand.target = ("127.0.0.1", self.port)
        self.peers.append(hand)
        settings = PeerSettings(
            hand.handle,
            name or f"site-{number}",
            hand.endpoint,
            None if takes_any_id else hand.wire_id,
            hand.wire_id if is_v2 else None,
            None if ping is None else Seconds(ping),
            None if ping_restart is None else Seconds(ping_restart),
            framing,
            Octets(fragment),
        )
        self.plane.add_peer(settings)
        if with_key:
            self.plane.install_key(hand.handle, hand.key(Role.SERVER))
            self.plane.use_key(hand.handle, KeyId(0))
        return hand

    # --- the TAP in hand

    def put(self, *frames: bytes, header: bytes | None = None) -> None:
        """As if the kernel sent these frames out of the TAP."""
        for item in frames:
            self.tap.send((bytes(self.vnet) if header is None else header.ljust(self.vnet, b"\0")) + item)

    def writes(self, count: int = 1, seconds: float = WAIT_SECONDS) -> list[bytes]:
        """The next `count` writes to the TAP, virtio-net header included."""
        found: list[bytes] = []
        deadline = time.monotonic() + seconds * PATIENCE
        while len(found) < count:
            ready, _, _ = select.select([self.tap], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"{len(found)} of {count} writes to the TAP within {seconds} s"
            found.append(self.tap.recv(70000))
        return found

    def frames(self, count: int = 1) -> list[bytes]:
        """The next `count` writes, which have to be plain frames."""
        found = []
        for packet in self.writes(count):
            assert not any(packet[: self.vnet]), "a super-frame"
            found.append(packet[self.vnet :])
        return found

    def tap_is_quiet(self, seconds: float = QUIET_SECONDS) -> bool:
        ready, _, _ = select.select([self.tap], [], [], seconds)
        return not ready

    # --- events and figures

    def event(self, kind: type[Result], seconds: float = WAIT_SECONDS) -> Result:
        """The next event of a kind; others are kept in `seen`."""
        found: list[Result] = []

        def arrived() -> bool:
            for event in self.plane.poll_events():
                if isinstance(event, kind) and not found:
                    found.append(event)
                else:
                    self.seen.append(event)
            return bool(found)

        for index, event in enumerate(self.seen):
            if isinstance(event, kind):
                del self.seen[index]
                return event
        until(arrived, kind.__name__, seconds)
        return found[0]

    def events(self, kind: type[Result]) -> list[Result]:
        """All events of a kind that wait now."""
        self.seen += self.plane.poll_events(100_000)
        return [event for event in self.seen if isinstance(event, kind)]

    def snapshot(self) -> DataplaneSnapshot:
        return self.plane.snapshot()

    def drops(self, direction: str, reason: str) -> int:
        return self.snapshot().drops.get((direction, reason), 0)

    def dropped(self, direction: str, reason: str, count: int = 1) -> None:
        """Wait until this many are counted, and check that there are no more."""
        until(lambda: self.drops(direction, reason) >= count, f"{count} drops {direction} {reason}")
        assert self.drops(direction, reason) == count

    def learned(self, address: int) -> PeerHandle | None:
        """Wait until an address is learned, and return its port (None: the TAP)."""
        wanted = station(address)

        def known() -> bool:
            return any(entry.station == Station(0, wanted) for entry in self.plane.fdb())

        until(known, f"{wanted.hex()} in the FDB")
        return next(entry.handle for entry in self.plane.fdb() if entry.station == Station(0, wanted))


def refused(peer: HandPeer, packet: bytes) -> str:
    """The reference's verdict on a packet: its error code."""
    try:
        peer.open(packet)
    except RemoteProtocolError as error:
        return error.code
    return ""
