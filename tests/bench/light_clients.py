"""Many clients of a hub in one process, so light that the hub is the limit and not they.

Each client makes a real connection (the session machine and TLS of our own client, a socket of its own).
Then it only sends: data packets that were sealed before the clock runs, in runs to one other client after
another, and the kernel counts what arrives. To the hub they are clients as any other; our hub and OpenVPN's
get the same clients and the same kind of packets. A real OpenVPN process for each client would take more
processor time than the hub itself, and the figure would be theirs.

A program of its own, in the clients' namespace; commands are lines on standard input, answers are JSON lines.
"""

from __future__ import annotations

import argparse
import json
import secrets
import select
import socket
import struct
import sys
import time
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from bridged.protocol.keys.cipher import Cipher
from bridged.protocol.keys.key_derivation import DataKey
from bridged.protocol.keys.static_key import parse_static_key
from bridged.protocol.packets.data_packet import make_aead, seal, serialize_data_header
from bridged.protocol.packets.data_packet import open as open_packet
from bridged.protocol.packets.packet import Opcode, parse_first_octet
from bridged.protocol.packets.wrap import NoWrap, TlsCryptKeys, WrapChannel, WrapKeys
from bridged.protocol.role import Role
from bridged.protocol.session.events import (
    Established,
    InstallKey,
    RemoveKey,
    SendDatagram,
    SessionDown,
    UseKey,
)
from bridged.protocol.session.session import Session
from bridged.protocol.session.settings import SessionSettings
from bridged.tls.context import TlsSettings, make_engine_factory

SOL_UDP = 17
UDP_SEGMENT = 103
ETHERTYPE = b"\x88\xb5"  # for experiments: no stack answers it
CONNECT_SECONDS = 90.0
AT_ONCE = 4
"""So many handshakes at a time: a hub may limit how many strangers it serves in a second."""
LARGEST_RUN_OCTETS = 60_000
SMALL_BUFFER = 4096


class Client:
    """One client: its session, its socket, its station's address, and what it has sealed to be sent."""

    def __init__(self, number: int, local: str, server: tuple[str, int], session: Session) -> None:
        self.mac = bytes((2, 0, 0x5E, 0x20, number >> 8, number & 255))
        self.session = session
        self.key: DataKey | None = None
        """What seals, and opens."""
        self._keys: dict[int, DataKey] = {}
        self.header = b""
        self.packet_id = 0
        self.down = ""
        self.runs: list[bytes] = []
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.socket.bind((local, 0))
        self.socket.connect(server)

    @property
    def is_ready(self) -> bool:
        return bool(self.header)

    def pump(self, now: float) -> None:
        """Everything that waits in the socket and in the session."""
        while True:
            try:
                datagram = self.socket.recv(65536)
            except (BlockingIOError, ConnectionRefusedError):
                break
            if datagram and not _is_data(datagram):
                self.session.receive_datagram(datagram, now)
        deadline = self.session.poll_timeout()
        if deadline is not None and deadline.at <= now:
            self.session.handle_timeout(now)
        self._drain()

    def _drain(self) -> None:
        while (event := self.session.poll_event()) is not None:
            match event:
                case SendDatagram(datagram):
                    try:
                        self.socket.send(datagram)
                    except (BlockingIOError, ConnectionRefusedError):
                        pass  # the session repeats it
                case InstallKey(key):
                    self._keys[key.key_id] = key
                case UseKey(key_id):
                    self.key = self._keys[key_id]
                    terms = self.session.terms
                    assert terms is not None
                    self.header = serialize_data_header(key_id, terms.transmit_peer_id)
                case RemoveKey(key_id):
                    self._keys.pop(key_id, None)
                case SessionDown(reason, detail):
                    self.down = f"{reason}: {detail}"
                case Established():
                    pass

    def seal_payload(self, payload: bytes) -> bytes:
        """One packet."""
        assert self.key is not None
        self.packet_id += 1
        aead = make_aead(self.key.cipher, self.key.send_key)
        return seal(aead, bytes(self.key.send_iv), self.header, self.packet_id, payload)

    def seal_run(self, target: bytes, octets: int, count: int) -> bytes:
        """`count` packets, each with a frame of `octets` to one station, one after the other."""
        assert self.key is not None
        aead = make_aead(self.key.cipher, self.key.send_key)
        iv = bytes(self.key.send_iv)
        frame = target + self.mac + ETHERTYPE + bytes(octets - 14)
        packets = []
        for _ in range(count):
            self.packet_id += 1
            packets.append(seal(aead, iv, self.header, self.packet_id, frame))
        return b"".join(packets)

    def open(self, datagram: bytes) -> bytes:
        """The frame in a packet of the hub."""
        assert self.key is not None
        aead = make_aead(self.key.cipher, self.key.receive_key)
        return open_packet(aead, bytes(self.key.receive_iv), datagram).payload


class Clients:
    """All of them."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.frame_octets: int = arguments.frame
        packet_octets = arguments.frame + 24
        self.run_packets: int = min(arguments.run, LARGEST_RUN_OCTETS // packet_octets)
        self._control = [(SOL_UDP, UDP_SEGMENT, struct.pack("H", packet_octets))]
        settings = SessionSettings(
            Role.CLIENT, (Cipher.AES_256_GCM,), reneg_seconds=0.0, hand_window=CONNECT_SECONDS
        )
        server = (arguments.server, arguments.port)
        first = ip_address(arguments.first_address)
        self.all = [
            Client(number, str(first + number), server, session_of(directory, settings))
            for number, directory in enumerate(sorted(arguments.identities.iterdir()))
        ]

    def connect(self) -> None:
        """All handshakes, AT_ONCE at a time.

        Raises:
            RuntimeError: one of them failed, or it took too long.
        """
        deadline = time.monotonic() + CONNECT_SECONDS
        for start in range(0, len(self.all), AT_ONCE):
            group = self.all[start : start + AT_ONCE]
            while not all(client.is_ready for client in group):
                select.select([client.socket for client in group], [], [], 0.05)
                now = time.monotonic()
                for client in group:
                    client.pump(now)
                    if client.down or now > deadline:
                        raise RuntimeError(f"no connection: {client.down or 'not in time'}")
        self._settle(0.5)

    def _settle(self, seconds: float) -> None:
        """Acknowledgements, and whatever else is still under way."""
        end = time.monotonic() + seconds
        while (now := time.monotonic()) < end:
            select.select([client.socket for client in self.all], [], [], 0.05)
            for client in self.all:
                client.pump(now)

    def verify(self) -> int:
        """Every client sends one frame to each other one; how many arrive whole, at the right client only."""
        for client in self.all:  # each makes its address known
            client.socket.send(client.seal_run(b"\xff" * 6, 60, 1))
        self._settle(0.3)
        good = 0
        for client in self.all:
            for other in self.all:
                if other is not client:
                    client.socket.send(client.seal_run(other.mac, self.frame_octets, 1))
            good += self._frames_from(client)
        return good

    def _frames_from(self, client: Client) -> int:
        """Frames of one client that arrive at the others, each at its own target, within a second."""
        missing = {other.socket: other for other in self.all if other is not client}
        end = time.monotonic() + 1.0
        while missing and time.monotonic() < end:
            ready, _, _ = select.select(list(missing), [], [], 0.1)
            for sock in ready:
                other = missing[sock]
                datagram = sock.recv(65536)
                if not _is_data(datagram):
                    continue
                frame = other.open(datagram)
                if frame[:12] == other.mac + client.mac and len(frame) == self.frame_octets:
                    del missing[sock]
        return len(self.all) - 1 - len(missing)

    def leave_unread(self) -> None:
        """From now on nobody reads: the kernel counts what arrives and throws it away."""
        for client in self.all:
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)

    def load(self, rate: float, seconds: float) -> dict[str, float]:
        """Seal what is needed, then offer `rate` packets a second for `seconds`; what was really offered.

        Each client sends a run to one other client, then the next client does; the targets go round, so that
        all pairs carry the same.
        """
        runs = max(1, int(rate * seconds / self.run_packets))
        queue: list[tuple[socket.socket, bytes]] = []
        count = len(self.all)
        for number in range(runs):
            turn, sender = divmod(number, count)
            client = self.all[sender]
            target = self.all[(sender + 1 + turn % (count - 1)) % count]
            queue.append((client.socket, client.seal_run(target.mac, self.frame_octets, self.run_packets)))
        print(json.dumps({"sealed": runs * self.run_packets}), flush=True)
        sys.stdin.readline()  # the other side is ready to count
        sent, elapsed = self._send(queue, rate, seconds)
        return {"sent": sent, "seconds": elapsed}

    def _send(
        self, queue: list[tuple[socket.socket, bytes]], rate: float, seconds: float
    ) -> tuple[int, float]:
        interval = self.run_packets / rate
        begin = due = time.perf_counter()
        sent = 0
        for sock, run in queue:
            while (now := time.perf_counter()) < due:
                time.sleep(due - now)
            if now - begin > 2 * seconds:
                break
            try:
                sock.sendmsg([run], self._control)
                sent += self.run_packets
            except (BlockingIOError, ConnectionRefusedError):
                pass
            due = max(due + interval, now - 0.004)
        return sent, time.perf_counter() - begin

    def close(self) -> None:
        now = time.monotonic()
        for client in self.all:
            client.session.close("shutdown", "the bench is over", now)
            client.pump(now)
            client.socket.close()


def _is_data(datagram: bytes) -> bool:
    return parse_first_octet(datagram[0])[0] in (Opcode.DATA_V1, Opcode.DATA_V2)


def session_of(directory: Path, settings: SessionSettings) -> Session:
    """A client's session with the certificates of a folder, and tls-crypt where there is a key for it."""
    ca, certificate, key = ((directory / name).read_bytes() for name in ("ca.crt", "own.crt", "own.key"))
    factory = make_engine_factory(TlsSettings("client", certificate, key, ca_pem=ca, peer_usage="server"))
    secret = directory / "tls-crypt.key"
    keys: WrapKeys = NoWrap()
    if secret.exists():
        shared = parse_static_key(secret.read_text(), secret.name)
        keys = TlsCryptKeys(shared, Role.CLIENT)
        settings = replace(settings, wrap_name="tls-crypt", wrap_key=shared)
    channel = WrapChannel(keys, int(time.time()))
    # Without the exporter no hub agrees on epochs, which these clients do not seal with.
    settings = replace(settings, use_exporter=False)
    return Session(settings, factory, secrets.token_bytes, channel, secrets.token_bytes(8), time.monotonic())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("identities", type=Path, help="a folder with one folder for each client")
    parser.add_argument("server")
    parser.add_argument("port", type=int)
    parser.add_argument("first_address", help="of the clients; each further one has the next address")
    parser.add_argument("--frame", type=int, default=1514, help="bytes of each frame")
    parser.add_argument("--run", type=int, default=32, help="packets in a row to one target")
    clients = Clients(parser.parse_args())
    clients.connect()
    answer: dict[str, Any] = {"connected": len(clients.all)}
    print(json.dumps(answer), flush=True)
    for line in sys.stdin:
        words = line.split()
        if words[0] == "verify":
            answer = {"arrived": clients.verify()}
            clients.leave_unread()
        elif words[0] == "load":
            answer = clients.load(float(words[1]), float(words[2]))
        else:
            break
        print(json.dumps(answer), flush=True)
    clients.close()


if __name__ == "__main__":
    main()
