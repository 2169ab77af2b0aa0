"""Many clients of a hub in one process that come, talk, go and come again; for the soak.

Each has a certificate of its own. It stays for a while, sends pings and broadcasts, answers renegotiations.
Then it leaves: with a farewell and for some time, or without a word, and soon is back from another port.

A program of its own, in the clients' namespace; it ends with the first line of its standard input.
"""

from __future__ import annotations

import argparse
import json
import random
import select
import sys
import time
from collections import Counter
from ipaddress import ip_address
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from bridged.protocol.keys.cipher import Cipher
from bridged.protocol.packets.occ import PING
from bridged.protocol.role import Role
from bridged.protocol.session.settings import SessionSettings
from tests.bench.light_clients import Client, session_of

STAY_SECONDS = (20.0, 120.0)
AWAY_SECONDS = (2.0, 60.0)
BACK_SECONDS = (0.2, 2.0)
PING_SECONDS = 4.0
TALK_SHARE = 0.05
"""So often a broadcast stands in for a ping."""
FRAME_OCTETS = 64
HAND_WINDOW = 60.0
TICK_SECONDS = 0.02


class Visitor:
    """One certificate and what it does next; `counts` are shared by all."""

    def __init__(
        self, number: int, directory: Path, local: str, server: tuple[str, int], counts: Counter[str]
    ) -> None:
        self.client: Client | None = None
        self.due = time.monotonic() + random.uniform(0.0, AWAY_SECONDS[1])
        self._number = number
        self._directory = directory
        self._local = local
        self._server = server
        self._counts = counts
        self._is_up = False
        self._talk_at = 0.0

    def turn(self, now: float) -> None:
        """Whatever is due."""
        client = self.client
        if client is None:
            if now >= self.due:
                self._come(now)
            return
        client.pump(now)
        if client.down:
            self._counts[f"lost: {client.down}"] += 1
            self._forget(now, AWAY_SECONDS)
        elif client.is_ready and not self._is_up:
            self._is_up = True
            self._counts["connected"] += 1
            self.due = now + random.uniform(*STAY_SECONDS)
        elif self._is_up and now >= self.due:
            self._go(client, now)
        elif self._is_up and now >= self._talk_at:
            self._talk_at = now + PING_SECONDS
            self._talk(client)

    def _come(self, now: float) -> None:
        settings = SessionSettings(
            Role.CLIENT, (Cipher.AES_256_GCM,), reneg_seconds=0.0, hand_window=HAND_WINDOW
        )
        session = session_of(self._directory, settings)
        self.client = Client(self._number, self._local, self._server, session)
        self.client.pump(now)

    def _talk(self, client: Client) -> None:
        is_broadcast = random.random() < TALK_SHARE
        octets = client.seal_run(b"\xff" * 6, FRAME_OCTETS, 1) if is_broadcast else client.seal_payload(PING)
        try:
            client.socket.send(octets)
        except (BlockingIOError, ConnectionRefusedError):
            pass  # the next one may pass

    def _go(self, client: Client, now: float) -> None:
        if random.random() < 0.5:
            self._counts["vanished"] += 1
            self._forget(now, BACK_SECONDS)
        else:
            client.session.close("shutdown", "the visit is over", now)
            client.pump(now)
            self._counts["left"] += 1
            self._forget(now, AWAY_SECONDS)

    def _forget(self, now: float, pause: tuple[float, float]) -> None:
        if self.client is not None:
            self.client.socket.close()
        self.client, self._is_up = None, False
        self.due = now + random.uniform(*pause)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("identities", type=Path, help="a folder with one folder for each client")
    parser.add_argument("server")
    parser.add_argument("port", type=int)
    parser.add_argument("first_address", help="of the clients; each further one has the next address")
    chosen = parser.parse_args()
    counts: Counter[str] = Counter()
    first = ip_address(chosen.first_address)
    visitors = [
        Visitor(number, directory, str(first + number), (chosen.server, chosen.port), counts)
        for number, directory in enumerate(sorted(chosen.identities.iterdir()))
    ]
    print(json.dumps({"clients": len(visitors)}), flush=True)
    while True:
        sockets = [visitor.client.socket for visitor in visitors if visitor.client is not None]
        ready, _, _ = select.select([sys.stdin, *sockets], [], [], TICK_SECONDS)
        if sys.stdin in ready:
            break
        now = time.monotonic()
        for visitor in visitors:
            visitor.turn(now)
    print(json.dumps(counts), flush=True)


if __name__ == "__main__":
    main()
