"""An unruly LAN host: ever new stations, broadcasts, and large frames to the other site.

A program of its own, in the host's namespace: `lan_noise.py INTERFACE MAC FAR_MAC BYTES SECONDS`. The large
frames have so many bytes.
"""

from __future__ import annotations

import contextlib
import random
import socket
import sys
import time

TURN_SECONDS = 0.05
STATIONS, BROADCASTS, LARGE = 10, 2, 2
"""Frames in each turn."""
BROADCAST = b"\xff" * 6
KIND = b"\x88\xb6"


def make_noise(interface: str, own: bytes, far: bytes, large: int, seconds: float) -> None:
    draw = random.Random(own)
    until = time.monotonic() + seconds
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sock:
        sock.bind((interface, 0))
        while time.monotonic() < until:
            frames = [BROADCAST + b"\x02" + draw.randbytes(5) + KIND + bytes(50) for _ in range(STATIONS)]
            frames += [BROADCAST + own + KIND + draw.randbytes(50) for _ in range(BROADCASTS)]
            frames += [far + own + KIND + bytes(large - 14)] * LARGE
            for frame in frames:
                # The cable may be busy, or pulled for a moment.
                with contextlib.suppress(OSError):
                    sock.send(frame)
            time.sleep(TURN_SECONDS)


if __name__ == "__main__":
    own, far = (bytes.fromhex(text.replace(":", "")) for text in sys.argv[2:4])
    make_noise(sys.argv[1], own, far, int(sys.argv[4]), float(sys.argv[5]))
