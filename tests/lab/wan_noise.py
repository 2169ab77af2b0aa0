"""Strangers on the WAN who trouble a server without a wrap: forged packets, malformed ones, half-open calls.

A program of its own, in the WAN's namespace: `python wan_noise.py TARGET PORT SECONDS`.
"""

from __future__ import annotations

import os
import socket
import sys
import time

TURN_SECONDS = 0.05
FORGED, MALFORMED, RESETS, HUGE = 8, 3, 60, 10
"""Packets in each turn. More resets than one network may have answered; the huge ones fill the buffer."""
HUGE_OCTETS = 60_000
DATA_V2, RESET, ACK = 9 << 3, 7 << 3, 5 << 3


def make_noise(target: tuple[str, int], seconds: float) -> None:
    until = time.monotonic() + seconds
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        while time.monotonic() < until:
            packets = [bytes([DATA_V2, 0, 0, 0]) + os.urandom(80)] * FORGED
            packets += [bytes([RESET])] * MALFORMED
            packets += [reset(os.urandom(8)) for _ in range(RESETS)]
            packets += [bytes([DATA_V2, 0, 0, 0]) + bytes(HUGE_OCTETS)] * HUGE
            for packet in packets:
                sock.sendto(packet, target)
            time.sleep(TURN_SECONDS)


def reset(session: bytes) -> bytes:
    """The first packet of a client: P_CONTROL_HARD_RESET_CLIENT_V2 with message id 0 (control.md#1-1)."""
    return bytes([RESET]) + session + bytes(5)


def open_halves(target: tuple[str, int], count: int) -> int:
    """Call, return the cookie and fall silent; how many of the calls were answered."""
    answered = 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(0.5)
        sock.connect(target)
        for _ in range(2 * count):
            session = os.urandom(8)
            sock.send(reset(session))
            try:
                cookie = sock.recv(2048)[1:9]
            except OSError:
                continue
            sock.send(bytes([ACK]) + session + b"\x01" + bytes(4) + cookie)
            answered += 1
            if answered == count:
                break
    return answered


if __name__ == "__main__":
    make_noise((sys.argv[1], int(sys.argv[2])), float(sys.argv[3]))
