"""A program: ping with room for a burst of answers, and questions that do not wait for a slow reader.

`steady_ping.py SECONDS TARGET` asks every SECONDS and prints answers as `ping -D` does. The socket of ping
itself holds about 170 answers: when those of a gap come all at once, more are lost in ping than on the way.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import struct
import sys
import time

ECHO_REQUEST, ECHO_REPLY = 8, 0
SO_RCVBUFFORCE = 33
ROOM_OCTETS = 32 << 20
HEADER = struct.Struct("!BBHHH")


def question(identity: int, number: int) -> bytes:
    """An ICMP echo request of 64 bytes."""
    text = bytes(56)
    total = (ECHO_REQUEST << 8) + identity + number
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    return HEADER.pack(ECHO_REQUEST, 0, ~total & 0xFFFF, identity, number) + text


def main(interval: float, target: str) -> None:
    """Ask until SIGINT."""
    signal.signal(signal.SIGINT, lambda *_: sys.exit(0))
    identity = os.getpid() & 0xFFFF
    asker = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    asker.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, ROOM_OCTETS)
    asker.connect((target, 0))
    due, number = time.monotonic(), 0
    while True:
        ready, _, _ = select.select([asker], [], [], max(0.0, due - time.monotonic()))
        if ready:
            packet = asker.recv(2048)
            body = packet[(packet[0] & 15) * 4 :]
            kind, _, _, identity_back, answered = HEADER.unpack_from(body)
            if (kind, identity_back) == (ECHO_REPLY, identity):
                print(f"[{time.time():.6f}] icmp_seq={answered} answered", flush=True)
        if time.monotonic() >= due:
            number += 1
            asker.send(question(identity, number))
            # A machine that stood still does not ask a burst of questions.
            due = max(due + interval, time.monotonic())


if __name__ == "__main__":
    main(float(sys.argv[1]), sys.argv[2])
