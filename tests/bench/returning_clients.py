"""Hundreds of light clients that connect to a server at the same moment, and come back when it is gone.

They speak with the project's own protocol code and TLS, without a TAP or a data plane: little of the machine
is theirs. A program of its own, in the clients' namespace; commands are lines on standard
input, answers are JSON lines.
"""

from __future__ import annotations

import argparse
import heapq
import json
import secrets
import select
import socket
import sys
import time
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from bridged.protocol.keys.cipher import Cipher
from bridged.protocol.keys.key_derivation import DataKey
from bridged.protocol.keys.static_key import StaticKey, parse_static_key
from bridged.protocol.packets.data_packet import make_aead, seal, serialize_data_header
from bridged.protocol.packets.occ import PING
from bridged.protocol.packets.packet import Opcode, parse_first_octet
from bridged.protocol.packets.unknown_session import is_notice
from bridged.protocol.packets.wrap import NoWrap, TlsAuthKeys, TlsCryptKeys, WrapChannel, WrapKeys
from bridged.protocol.role import Role
from bridged.protocol.session.events import Established, InstallKey, SendDatagram, SessionDown, UseKey
from bridged.protocol.session.session import Session
from bridged.protocol.session.settings import SessionSettings
from bridged.protocol.session.tls_session import TlsEngineFactory
from bridged.runtime.client.probe import ASK_SECONDS, QUESTIONS
from bridged.tls.context import TlsSettings, make_engine_factory

CONNECT_SECONDS = 60.0
KNOCK_SECONDS = 1.0
"""As our own client: a hard reset that nobody answered is repeated."""
RETRY_SECONDS = 1.0
PROBE_SECONDS = QUESTIONS * ASK_SECONDS
"""As our own client: it asks for so long before it begins another session."""
BUFFER = 256 * 1024


class Client:
    """One client: a session at a time, on one socket for all of them."""

    def __init__(self, engine: TlsEngineFactory, wrap: WrapKeys, settings: SessionSettings) -> None:
        self._engine, self._wrap, self._settings = engine, wrap, settings
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        self.session: Session | None = None
        self.knock_at = self.begin_at = float("inf")
        self.up_at: float | None = None
        self.failures: list[str] = []
        self._key: DataKey | None = None
        self._header = b""
        self._packet_id = 0

    def begin(self, now: float) -> None:
        """A new session; the one before is forgotten."""
        channel = WrapChannel(self._wrap, int(time.time()))
        identifier = secrets.token_bytes(8)
        self.session = Session(self._settings, self._engine, secrets.token_bytes, channel, identifier, now)
        self.up_at, self.begin_at, self.knock_at = None, float("inf"), now + KNOCK_SECONDS
        self._drain(now)

    def read(self, now: float) -> None:
        """Everything that waits in the socket."""
        while True:
            try:
                datagram = self.socket.recv(65536)
            except (BlockingIOError, ConnectionRefusedError):
                return
            if not datagram or self.session is None:
                continue
            if parse_first_octet(datagram[0])[0] not in (Opcode.DATA_V1, Opcode.DATA_V2):
                self.session.receive_datagram(datagram, now)
                self._drain(now)
            elif is_notice(datagram) and self.up_at is not None and self.begin_at == float("inf"):
                self.begin_at = now + PROBE_SECONDS

    def handle_timeout(self, now: float) -> None:
        if now >= self.begin_at:
            self.begin(now)
            return
        session = self.session
        if session is None:
            return
        if now >= self.knock_at:
            self.knock_at = float("inf") if session.remote_session_id is not None else now + KNOCK_SECONDS
            if session.remote_session_id is None:
                session.handle_path_change(now)
        deadline = session.poll_timeout()
        if deadline is not None and deadline.at <= now:
            session.handle_timeout(now)
        self._drain(now)

    def due(self) -> float:
        """When to call `handle_timeout`."""
        deadline = self.session.poll_timeout() if self.session is not None else None
        return min(self.begin_at, self.knock_at, deadline.at if deadline is not None else float("inf"))

    def _drain(self, now: float) -> None:
        assert self.session is not None
        while (event := self.session.poll_event()) is not None:
            match event:
                case SendDatagram(datagram):
                    self._send(datagram)
                case InstallKey(key):
                    self._key = key
                case UseKey(key_id):
                    terms = self.session.terms
                    assert terms is not None
                    self._header = serialize_data_header(key_id, terms.transmit_peer_id)
                    self._packet_id = 0
                case Established():
                    self.up_at = now
                    self.knock_at = float("inf")
                case SessionDown(reason, detail):
                    self.failures.append(f"{reason}: {detail}")
                    self.up_at, self.begin_at = None, now + RETRY_SECONDS

    def ping(self) -> None:
        """A sealed ping, as a client with nothing to say sends it."""
        assert self._key is not None
        self._packet_id += 1
        aead = make_aead(self._key.cipher, self._key.send_key)
        self._send(seal(aead, bytes(self._key.send_iv), self._header, self._packet_id, PING))

    def _send(self, datagram: bytes) -> None:
        try:
            self.socket.send(datagram)
        except (BlockingIOError, ConnectionRefusedError):
            pass  # the session repeats it


class Fleet:
    """All clients in one loop."""

    def __init__(self, clients: list[Client]) -> None:
        self.clients = clients
        self._poll = select.epoll()
        self._by_descriptor = {client.socket.fileno(): client for client in clients}
        for descriptor in self._by_descriptor:
            self._poll.register(descriptor, select.EPOLLIN)
        self._due: list[tuple[float, int]] = []

    def begin(self) -> float:
        """All clients begin now."""
        began = time.monotonic()
        for client in self.clients:
            client.begin(time.monotonic())
            self._schedule(client)
        return began

    def run(self, until: Callable[[], bool], seconds: float) -> bool:
        """Serve the clients until something is so; False where it is not in time."""
        deadline = time.monotonic() + seconds
        while not until():
            now = time.monotonic()
            if now >= deadline:
                return False
            wait = min(0.05, max(0.0, (self._due[0][0] if self._due else deadline) - now))
            for descriptor, _ in self._poll.poll(wait, 64):
                client = self._by_descriptor[descriptor]
                client.read(time.monotonic())
                self._schedule(client)
            now = time.monotonic()
            while self._due and self._due[0][0] <= now:
                client = self._by_descriptor[heapq.heappop(self._due)[1]]
                if client.due() <= now:
                    client.handle_timeout(now)
                    self._schedule(client)
        return True

    def _schedule(self, client: Client) -> None:
        at = client.due()
        if at != float("inf"):
            heapq.heappush(self._due, (at, client.socket.fileno()))

    def connect(self) -> dict[str, Any]:
        """All begin at once; when each was up, in seconds."""
        cpu, began = time.process_time(), self.begin()
        return self._wait(began, began, cpu)

    def come_back(self) -> dict[str, Any]:
        """Until each has another session than now; when, in seconds from now."""
        cpu, began = time.process_time(), time.monotonic()
        return self._wait(began, began, cpu)

    def _wait(self, began: float, since: float, cpu: float) -> dict[str, Any]:
        def all_up() -> bool:
            return all(client.up_at is not None and client.up_at >= since for client in self.clients)

        self.run(all_up, CONNECT_SECONDS)
        times = sorted(client.up_at - began for client in self.clients if client.up_at is not None)
        failures = [failure for client in self.clients for failure in client.failures]
        for client in self.clients:
            client.failures.clear()
        return {
            "up": len(times),
            "median": times[len(times) // 2] if times else 0.0,
            "last": times[-1] if times else 0.0,
            "failures": len(failures),
            "reasons": sorted(set(failures))[:3],
            "cpu": time.process_time() - cpu,
        }


def wrap_of(kind: str, key: StaticKey | None) -> WrapKeys:
    """The clients' wrap."""
    if kind == "none" or key is None:
        return NoWrap()
    return TlsCryptKeys(key, Role.CLIENT) if kind == "tls-crypt" else TlsAuthKeys(key, 1, "SHA1")


def make_clients(arguments: argparse.Namespace) -> list[Client]:
    """All clients, each bound to its address."""
    key = parse_static_key(arguments.key.read_text(), str(arguments.key)) if arguments.key else None
    wrap = wrap_of(arguments.wrap, key)
    settings = SessionSettings(
        Role.CLIENT,
        (Cipher.AES_256_GCM,),
        wrap_name=arguments.wrap,
        wrap_key=key,
        wrap_direction=1 if arguments.wrap == "tls-auth" else None,
        reneg_seconds=0.0,
        use_exporter=False,
    )
    first = ip_address(arguments.first_address)
    clients = []
    for number, directory in enumerate(sorted(arguments.identities.iterdir())[: arguments.clients]):
        ca, certificate, own = ((directory / name).read_bytes() for name in ("ca.crt", "own.crt", "own.key"))
        factory = make_engine_factory(TlsSettings("client", certificate, own, ca_pem=ca, peer_usage="server"))
        client = Client(factory, wrap, settings)
        client.socket.bind((str(first if arguments.nat else first + number), 0))
        client.socket.connect((arguments.server, arguments.port))
        clients.append(client)
    return clients


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("identities", type=Path, help="a folder with one folder for each client")
    parser.add_argument("server")
    parser.add_argument("port", type=int)
    parser.add_argument("first_address", help="of the clients; each further one has the next address")
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--nat", action="store_true", help="all clients have the first address")
    parser.add_argument("--wrap", choices=("none", "tls-auth", "tls-crypt"), default="none")
    parser.add_argument("--key", type=Path, help="of tls-auth or tls-crypt")
    fleet = Fleet(make_clients(parser.parse_args()))
    print(json.dumps({"ready": len(fleet.clients)}), flush=True)
    for line in sys.stdin:
        commands = {"connect": fleet.connect, "come back": fleet.come_back}
        command = commands.get(line.strip())
        if command is None:
            break
        print(json.dumps(command()), flush=True)


if __name__ == "__main__":
    main()
