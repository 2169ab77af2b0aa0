"""`make test-appliance`: the package's life under systemd, in a virtual machine with Debian 12 and with 13.

Install, configure two sites, ping across, restart and upgrade under a ping, reload, reboot, remove, purge.
The processor is emulated, twenty times slower than a real one: what a restart loses is printed here, and
bounded by tests/system/test_daemon_restart.py, on this machine. Exit status 1 at the first step that failed.
"""

from __future__ import annotations

import argparse
import sys
import time

from tests.appliance import packages
from tests.appliance.host import HostError
from tests.appliance.image import FOLDER, SUITES, ImageError, image
from tests.appliance.life import FILES, Life
from tests.appliance.machine import Machine
from tests.lab.waiting import LabError


def main() -> int:
    chosen = _parse()
    built = packages.build()
    files = (built.previous, built.new, *FILES)
    for debian in chosen.debian:
        began = time.monotonic()
        try:
            made = image(debian)
            print(f"debian {debian}: image: {time.monotonic() - began:.0f} s", flush=True)
            with Machine(made, files, FOLDER / f"console-{debian}.log") as machine:
                _live(machine, debian, chosen)
        except (ImageError, HostError) as error:
            print(f"debian {debian}: FAILED: {error}", file=sys.stderr)
            return 1
        print(f"debian {debian}: done in {time.monotonic() - began:.0f} s", flush=True)
    return 0


def _live(machine: Machine, debian: int, chosen: argparse.Namespace) -> None:
    life = Life(machine, chosen.reloads, chosen.seed)
    for name, step in life.steps():
        began = time.monotonic()
        try:
            told = step()
        except (HostError, LabError) as error:
            journal = machine.call("journalctl --no-pager -u 'bridged*' | tail -80")[1]
            raise HostError(f"{name}: {error}\nthe journal ends:\n{journal}") from error
        print(f"debian {debian}: {name}: {time.monotonic() - began:.0f} s {told or ''}".rstrip(), flush=True)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.appliance", description=__doc__)
    parser.add_argument("--debian", type=int, nargs="+", choices=sorted(SUITES), default=sorted(SUITES))
    parser.add_argument("--reloads", type=int, default=200, help="random edits, each reloaded")
    parser.add_argument("--seed", type=int, default=int(time.time()) % 100_000, help="of the edits")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
