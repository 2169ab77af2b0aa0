"""A LAN port that sends our own frames back, as a promiscuous port of a hypervisor's switch does."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.lab.frames import open_capture
from tests.lab.topology import HOST_PORT, Host


class Reflector:
    """Sends every frame of some stations that arrives at a host back into its cable, as it came."""

    def __init__(self, host: Host, *addresses: str) -> None:
        self._sources = {bytes.fromhex(address.replace(":", "")) for address in addresses}
        self._capture = open_capture(host)
        self._capture.setblocking(True)
        self._capture.settimeout(0.1)
        with host.namespace.entered():
            self._sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            self._sender.bind((HOST_PORT, 0))
        self._running = True
        self.reflected = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._running = False
        self._thread.join()
        self._capture.close()
        self._sender.close()

    def _run(self) -> None:
        while self._running:
            try:
                frame = self._capture.recv(65536)
            except TimeoutError:
                continue
            if frame[6:12] in self._sources:
                self._sender.send(frame)
                self.reflected += 1


@contextmanager
def reflecting(host: Host, *addresses: str) -> Iterator[Reflector]:
    reflector = Reflector(host, *addresses)
    try:
        yield reflector
    finally:
        reflector.close()
