"""What ended sessions leave behind (cycles of objects) is collected soon."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import collections, gc, sys
from bridged import memory

# More than the modules of a daemon: where they count, they put full collections off.
modules = [[number] for number in range(200_000)]
gc.collect()

class Session:
    def __init__(self):
        self.owner = self
        self.parts = [[number] for number in range(50)]

if sys.argv[1] == "small":
    memory.keep_collections_small()
living = collections.deque(maxlen=50)
most = 0
for number in range(4000):
    living.append(Session())
    if number % 25 == 0:
        most = max(most, sum(type(one) is Session for one in gc.get_objects()))
print(most)
"""


def most_sessions(mode: str) -> int:
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, mode], capture_output=True, text=True, check=True, timeout=60
    )
    return int(ended.stdout)


def test_ended_sessions_do_not_pile_up() -> None:
    small, all_counted = most_sessions("small"), most_sessions("as it is")
    assert small < 400 and 2 * small < all_counted, "sessions of which 50 are alive"
