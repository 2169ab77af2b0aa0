"""Sends small UDP datagrams at a steady rate, with so little effort that it is not what is measured.

One system call hands the kernel BURST datagrams (UDP_SEGMENT). The lab switches the sender's segmentation
offload off, so that they travel as single frames, as from a network card. Runs as a program of its own.
"""

from __future__ import annotations

import argparse
import socket
import struct
import time

SOL_UDP = 17
UDP_SEGMENT = 103
BURST = 32


def send(target: str, port: int, payload_octets: int, rate: float, seconds: float) -> int:
    """Send `rate` datagrams a second (0: as fast as possible) and return how many left."""
    control = [(SOL_UDP, UDP_SEGMENT, struct.pack("H", payload_octets))]
    burst = [bytes(payload_octets) * BURST]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        out.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        out.connect((target, port))
        interval = BURST / rate if rate else 0.0
        begin = time.perf_counter()
        end = begin + seconds
        due, sent = begin, 0
        while (now := time.perf_counter()) < end:
            if now < due:
                time.sleep(due - now)
                continue
            out.sendmsg(burst, control)
            sent += BURST
            due += interval
            # Never make up for more than a few milliseconds: the load is to be steady.
            due = max(due, now - 0.004)
    return sent


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("target")
    parser.add_argument("port", type=int)
    parser.add_argument("--payload", type=int, default=22)
    parser.add_argument("--rate", type=float, default=0.0)
    parser.add_argument("--seconds", type=float, default=1.0)
    chosen = parser.parse_args()
    print(send(chosen.target, chosen.port, chosen.payload, chosen.rate, chosen.seconds))


if __name__ == "__main__":
    main()
