"""A stranger's flood: random datagrams of all opcodes and sizes, from many spoofed addresses.

A program of its own, in the stranger's namespace: `python garbage_flood.py TARGET SECONDS SEED RATE`.
"""

from __future__ import annotations

import random
import socket
import struct
import sys
import time

PORT = 1194


def flood(target: str, seconds: float, seed: int, rate: int) -> int:
    """Send about `rate` datagrams a second for `seconds`; return how many were sent.

    Uses raw IP: each datagram comes from another address.
    """
    draw = random.Random(seed)
    sent = 0
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        began = time.monotonic()
        while (now := time.monotonic()) < began + seconds:
            if sent > (now - began) * rate:
                time.sleep(0.001)
                continue
            source = f"203.0.113.{draw.randrange(30, 250)}"
            packet = _udp(source, target, draw.randrange(1024, 65536), _payload(draw))
            sock.sendto(packet, (target, 0))
            sent += 1
    return sent


def _payload(draw: random.Random) -> bytes:
    opcode = draw.randrange(32)
    size = draw.choice((0, 1, 8, 13, 14, 22, 54, 100, 400, 1200, 1400))
    payload = bytes([opcode << 3 | draw.randrange(8)]) + draw.randbytes(size)
    if draw.random() < 0.3:
        # A hard reset as a client without wrap sends it.
        payload = bytes([7 << 3]) + draw.randbytes(8) + bytes(5)
    return payload


def _udp(source: str, target: str, port: int, payload: bytes) -> bytes:
    """An IPv4 packet with a UDP datagram, no UDP checksum."""
    length = 28 + len(payload)
    ip = struct.pack("!BBHHHBBH", 0x45, 0, length, 0, 0, 64, 17, 0)
    udp = struct.pack("!HHHH", port, PORT, 8 + len(payload), 0)
    return ip + socket.inet_aton(source) + socket.inet_aton(target) + udp + payload


if __name__ == "__main__":
    flood(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
