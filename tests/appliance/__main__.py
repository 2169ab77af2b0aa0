"""`make test-appliance`: the package's life under systemd, in a virtual machine with Debian 12 and with 13.

Install, configure two sites, ping across, restart and upgrade under a ping, reload, reboot, remove, purge.
The processor is emulated, twenty times slower than a real one: what a restart loses is printed here, and
bounded by tests/system/test_daemon_restart.py, on this machine. Exit status 1 at the first step that failed.
`--short` is for CI: one Debian, each step once (docs/decisions/0081).
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

RELOADS = 200
SHORT_RELOADS = 20
SHORT_DEBIAN = 13


def main() -> int:
    chosen = _parse()
    built = packages.build(from_history=not chosen.short)
    files = (built.previous, built.new, *FILES)
    for debian in chosen.debian:
        began = time.monotonic()
        try:
            made = image(debian)
            print(f"debian {debian}: image: {time.monotonic() - began:.0f} s", flush=True)
            if chosen.prepare:
                continue
            with Machine(made, files, FOLDER / f"console-{debian}.log") as machine:
                _live(machine, debian, chosen)
        except (ImageError, HostError) as error:
            print(f"debian {debian}: {error}\ndebian {debian}: FAILED", file=sys.stderr)
            return 1
        print(f"debian {debian}: done in {time.monotonic() - began:.0f} s", flush=True)
    return 0


def _live(machine: Machine, debian: int, chosen: argparse.Namespace) -> None:
    life = Life(machine, chosen.reloads, chosen.seed)
    print(f"debian {debian}: boot: {machine.processor_seconds():.0f} s of a processor", flush=True)
    steps = life.short_steps if chosen.short else life.steps
    for name, step in steps(machine.reboot):
        began, used = time.monotonic(), machine.processor_seconds()
        try:
            told = step()
        except (HostError, LabError) as error:
            journal = machine.call("journalctl --no-pager -u 'bridged*' | tail -80")[1]
            # The reason comes last: CI keeps the end of what is printed.
            raise HostError(f"the journal ends:\n{journal}\n{name}: {error}") from error
        took = f"{time.monotonic() - began:.0f} s, {machine.processor_seconds() - used:.0f} s of a processor"
        print(f"debian {debian}: {name}: {took}: {told or 'done'}", flush=True)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.appliance", description=__doc__)
    parser.add_argument("--short", action="store_true", help="as CI runs it")
    parser.add_argument("--prepare", action="store_true", help="make packages and images only")
    parser.add_argument("--debian", type=int, nargs="+", choices=sorted(SUITES), help="default: all, or 13")
    parser.add_argument("--reloads", type=int, help="random edits, each reloaded; default: 200, or 20")
    parser.add_argument("--seed", type=int, default=int(time.time()) % 100_000, help="of the edits")
    chosen = parser.parse_args()
    chosen.debian = chosen.debian or ([SHORT_DEBIAN] if chosen.short else sorted(SUITES))
    chosen.reloads = chosen.reloads or (SHORT_RELOADS if chosen.short else RELOADS)
    return chosen


if __name__ == "__main__":
    sys.exit(main())
