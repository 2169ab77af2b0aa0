"""A long and lossy line for anything over IP, TCP too: packets pass through a program that delays and drops.

For the `router` WAN. What a site sends goes to a TUN device of a program in the WAN's namespace, which writes
it back into the same device later, or never; from there it takes the usual route. Runs as a program of its
own (`python long_line.py …`): the kernels of small machines have no netem.
"""

from __future__ import annotations

import argparse
import collections
import fcntl
import os
import random
import select
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tests.lab.topology import Topology

DEVICE: Final = "long0"
TABLE: Final = "77"
QUEUE_MAX: Final = 20_000
PACKETS_PER_TURN: Final = 64
_TUNSETIFF: Final = 0x400454CA
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000


@contextmanager
def long_line(sites: Topology, round_trip: float, loss: float, seed: int = 1) -> Iterator[None]:
    """Until the end of the block, what the sites send each other is late by half of `round_trip` (seconds),
    and is lost with the chance `loss` each way.
    """
    space = sites.wan_namespace
    process = space.popen(
        *(sys.executable, __file__, "--delay", str(round_trip / 2), "--loss", str(loss), "--seed", str(seed)),
        log="long-line",
    )
    rules = [(family, number) for family in ("-4", "-6") for number in range(1, len(sites.sites) + 1)]
    try:
        process.wait_for_output("line ready", 10)
        space.ip("link", "set", DEVICE, "up", "txqueuelen", "5000")
        for family in ("-4", "-6"):
            space.ip(family, "route", "add", "default", "dev", DEVICE, "table", TABLE)
        for family, number in rules:
            space.ip(family, "rule", "add", "iif", f"to{number}", "lookup", TABLE)
        yield
    finally:
        for family, number in rules:
            space.ip(family, "rule", "del", "iif", f"to{number}", "lookup", TABLE, check=False)
        process.stop()


def _open() -> int:
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", DEVICE.encode(), _IFF_TUN | _IFF_NO_PI))
    return device


def run(delay: float, loss: float, seed: int) -> None:
    device, dice = _open(), random.Random(seed)
    # All are late by the same time: they leave in the order in which they came.
    waiting: collections.deque[tuple[float, bytes]] = collections.deque()
    print("line ready", flush=True)
    while True:
        now = time.monotonic()
        while waiting and waiting[0][0] <= now:
            try:
                os.write(device, waiting.popleft()[1])
            except OSError:
                pass  # no route, or the device is down
        select.select([device], [], [], max(0.0, waiting[0][0] - now) if waiting else None)
        for _ in range(PACKETS_PER_TURN):
            try:
                packet = os.read(device, 65_536)
            except (BlockingIOError, OSError):
                break
            if dice.random() >= loss and len(waiting) < QUEUE_MAX:
                waiting.append((time.monotonic() + delay, packet))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--delay", type=float, required=True, help="seconds, each way")
    parser.add_argument("--loss", type=float, required=True, help="chance, each way")
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    run(chosen.delay, chosen.loss, chosen.seed)


if __name__ == "__main__":
    main()
