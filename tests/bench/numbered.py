"""One end of numbered UDP flows: sends, and checks what comes from the other end. A program of its own.

Each flow is a socket of its own at either end; every datagram carries the flow's number and its own. An end
counts what is missing, and every number that is not above all before it. What the other end has seen so far
comes back in each datagram, so that no end sends far ahead of the other: little is lost, whatever the speed.

A burst leaves in one system call (UDP_SEGMENT) and arrives in few (UDP_GRO), so that Python keeps up. Bursts
of one are frames that travel alone. Ends with SIGTERM: stops sending, reads what is still on its way, and
prints what it saw as JSON. Before that, a line `received N` now and then.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import select
import signal
import socket
import struct
import sys
import time
from array import array
from dataclasses import asdict, dataclass
from typing import Final

SOL_UDP: Final = 17
UDP_SEGMENT: Final = 103
UDP_GRO: Final = 104
SO_SNDBUFFORCE: Final = 32
SO_RCVBUFFORCE: Final = 33
WORD: Final = 4
MAGIC: Final = 0x6F72_0000
SIZES: Final = (1400, 64, 600, 1024, 16, 1300, 256, 900)
"""Payload bytes, by flow: whole words."""

MOST_SEGMENTS: Final = 48
MOST_OCTETS: Final = 60_000
AHEAD: Final = 64
"""Datagrams of a flow that may be on their way."""

STALL_SECONDS: Final = 0.2
QUIET_SECONDS: Final = 1.0
REPORT_SECONDS: Final = 0.25
EXAMPLES: Final = 20


@dataclass(slots=True)
class Seen:
    """What one end saw. `gaps`: times that a number was skipped; `lost`: numbers that never came.

    `backwards`: datagrams whose number was not above all before it in their flow: reordered or doubled.
    """

    sent: int = 0
    received: int = 0
    lost: int = 0
    gaps: int = 0
    backwards: int = 0
    damaged: int = 0


class Flow:
    """One numbered flow, both directions."""

    def __init__(self, number: int, local: tuple[str, int], remote: tuple[str, int], seen: Seen) -> None:
        self.number = number
        self.size = SIZES[number % len(SIZES)]
        self.words = self.size // WORD
        self.seen = seen
        self.examples: list[tuple[int, int, int]] = []
        self._next = 0  # to be sent
        self._highest = -1  # received
        self._confirmed = 0  # the other end has seen all below, or lost them
        self._moved_at = 0.0
        self._most = min(MOST_SEGMENTS, MOST_OCTETS // self.size)
        self._buffer = bytearray(self.size * self._most)
        self._view = memoryview(self._buffer).cast("I")
        self._view[0 :: self.words] = array("I", [MAGIC | number] * self._most)
        self._control = [(SOL_UDP, UDP_SEGMENT, struct.pack("H", self.size))]
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        for option in (SO_RCVBUFFORCE, SO_SNDBUFFORCE):
            self.socket.setsockopt(socket.SOL_SOCKET, option, 8 << 20)
        self.socket.setsockopt(SOL_UDP, UDP_GRO, 1)
        self.socket.bind(local)
        self.socket.connect(remote)
        self.socket.setblocking(False)

    def send(self, now: float, most: int) -> int:
        """Up to `most` datagrams in one call, fewer where the other end is behind; how many left."""
        # One at a time until the other end is there.
        ahead = AHEAD if self._highest >= 0 else 1
        room = ahead - (self._next - self._confirmed)
        if room <= 0:
            if now - self._moved_at < STALL_SECONDS:
                return 0
            # All on their way are lost, or what confirms them is.
            self._confirmed, room = self._next, ahead
            self._moved_at = now
        count = min(most, self._most, room)
        first, words = self._next, self.words
        end = count * words
        self._view[1:end:words] = array("I", range(first, first + count))
        self._view[2:end:words] = array("I", [self._highest + 1]) * count
        self._view[3:end:words] = array("I", range(0xFFFF_FFFF - first, 0xFFFF_FFFF - first - count, -1))
        data = memoryview(self._buffer)[: count * self.size]
        try:
            self.socket.sendmsg([data], self._control if count > 1 else [])
        except (BlockingIOError, ConnectionRefusedError, OSError):
            return 0
        self._next += count
        self.seen.sent += count
        return count

    def receive(self, now: float) -> bool:
        """Take what one read gives; False where nothing waits."""
        try:
            data = self.socket.recv(65_536)
        except (BlockingIOError, ConnectionRefusedError):
            return False
        if len(data) % self.size or not data:
            self.seen.damaged += 1
            return True
        view = memoryview(data).cast("I")
        count = len(data) // self.size
        numbers = view[1 :: self.words].tolist()
        checks = view[3 :: self.words].tolist()
        heads = view[0 :: self.words].tolist()
        if heads.count(MAGIC | self.number) != count or any(
            number + check != 0xFFFF_FFFF for number, check in zip(numbers, checks, strict=True)
        ):
            self.seen.damaged += 1
            return True
        confirmed = view[(count - 1) * self.words + 2]
        if confirmed > self._confirmed:
            self._confirmed, self._moved_at = confirmed, now
        self._check(numbers)
        return True

    def _check(self, numbers: list[int]) -> None:
        seen = self.seen
        seen.received += len(numbers)
        if self._highest < 0:
            # What was sent before this end was there is not lost.
            self._highest = numbers[0] - 1
        expected = self._highest + 1
        if numbers == list(range(expected, expected + len(numbers))):
            self._highest = numbers[-1]
            return
        for number in numbers:
            if number > self._highest:
                seen.lost += number - self._highest - 1
                seen.gaps += number != self._highest + 1
                self._highest = number
            else:
                seen.backwards += 1
                seen.lost -= 1
                if len(self.examples) < EXAMPLES:
                    self.examples.append((self.number, number, self._highest))


def run(local: str, local_port: int, remote: str, remote_port: int, flows: int, rate: float) -> Seen:
    """Send and check until SIGTERM. `rate`: datagrams a second at most; 0: as fast as the other end reads."""
    seen = Seen()
    made = [
        Flow(number, (local, local_port + number), (remote, remote_port + number), seen)
        for number in range(flows)
    ]
    ends: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: ends.append(number))
    poll = select.epoll()
    by_descriptor = {flow.socket.fileno(): flow for flow in made}
    for descriptor in by_descriptor:
        poll.register(descriptor, select.EPOLLIN)
    parent = os.getppid()
    chance = random.Random(local_port)
    begin = reported = heard = time.monotonic()
    turn = 0
    while True:
        now = time.monotonic()
        if (ends and now - heard > QUIET_SECONDS) or os.getppid() != parent:
            break
        if now - reported > REPORT_SECONDS:
            reported = now
            print(f"received {seen.received}", flush=True)
        left = 0
        if not ends and (rate == 0 or seen.sent < (now - begin) * rate):
            for _ in range(4):
                turn = (turn + 1) % flows
                left += made[turn].send(now, 1 if chance.random() < 0.2 else chance.randint(2, MOST_SEGMENTS))
        for descriptor, _ in poll.poll(0 if left else 0.001):
            flow = by_descriptor[descriptor]
            for _ in range(16):
                if not flow.receive(now):
                    break
                heard = now
    for flow in made:
        for number, late, highest in flow.examples:
            print(f"flow {number}: {late} after {highest}", file=sys.stderr)
    return seen


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("local")
    parser.add_argument("local_port", type=int)
    parser.add_argument("remote")
    parser.add_argument("remote_port", type=int)
    parser.add_argument("--flows", type=int, default=16)
    parser.add_argument("--rate", type=float, default=0.0)
    chosen = parser.parse_args()
    ports = (chosen.local, chosen.local_port, chosen.remote, chosen.remote_port)
    print(json.dumps(asdict(run(*ports, chosen.flows, chosen.rate))), flush=True)


if __name__ == "__main__":
    main()
