"""A program: questions at a steady pace over UDP, and answers, where nothing but the network loses any.

`steady_ping.py echo` answers. `steady_ping.py SECONDS TARGET` asks every SECONDS and prints as `ping -D`
does. Not ICMP: when a gap ends, its questions arrive in one burst, of which the kernel answers about 160 (it
counts the others as IcmpOutErrors), and the socket of ping holds about 170 answers.
"""

from __future__ import annotations

import select
import signal
import socket
import struct
import sys
import time

PORT = 7007
SO_RCVBUFFORCE, SO_SNDBUFFORCE = 33, 32
ROOM_OCTETS = 32 << 20
NUMBER = struct.Struct("!Q56x")


def opened() -> socket.socket:
    """A UDP socket with room for a long gap, both ways."""
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for option in (SO_RCVBUFFORCE, SO_SNDBUFFORCE):
        made.setsockopt(socket.SOL_SOCKET, option, ROOM_OCTETS)
    return made


def echo() -> None:
    """Answer for ever."""
    responder = opened()
    responder.bind(("0.0.0.0", PORT))
    print("ready", flush=True)
    while True:
        question, asker = responder.recvfrom(2048)
        responder.sendto(question, asker)


def ask(interval: float, target: str) -> None:
    """Ask until SIGINT."""
    asker = opened()
    asker.connect((target, PORT))
    due, number = time.monotonic(), 0
    while True:
        ready, _, _ = select.select([asker], [], [], max(0.0, due - time.monotonic()))
        if ready:
            (answered,) = NUMBER.unpack(asker.recv(2048))
            print(f"[{time.time():.6f}] icmp_seq={answered} answered", flush=True)
        if time.monotonic() >= due:
            number += 1
            asker.send(NUMBER.pack(number))
            # A machine that stood still does not ask a burst of questions.
            due = max(due + interval, time.monotonic())


if __name__ == "__main__":
    signal.signal(signal.SIGINT, lambda *_: sys.exit(0))
    if sys.argv[1] == "echo":
        echo()
    ask(float(sys.argv[1]), sys.argv[2])
