"""Processor time of running programs, as the kernel accounts it: all threads, user and kernel time."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def processor_seconds_of(pid: int) -> float:
    """Seconds so far, ended threads included; resolution 0.01.

    Raises:
        OSError: there is no such process.
    """
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND


def waited_seconds_of(pid: int) -> float:
    """Seconds for which living threads were ready to run and had no processor, so far."""
    waited = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            waited += int((task / "schedstat").read_text().split()[1])
        except FileNotFoundError:
            continue  # it has ended meanwhile
    return waited / 1e9


class Stopwatch:
    """From its making on: processor seconds of each program, and the wall clock."""

    def __init__(self, programs: Iterable[int]) -> None:
        self._programs = tuple(programs)
        self._before = [processor_seconds_of(pid) for pid in self._programs]
        self._waited = [waited_seconds_of(pid) for pid in self._programs]
        self._begin = time.monotonic()

    def used(self) -> list[float]:
        """Processor seconds of each program so far, in order."""
        now = [processor_seconds_of(pid) for pid in self._programs]
        return [after - before for after, before in zip(now, self._before, strict=True)]

    def waited(self) -> list[float]:
        """Seconds that each program's threads were ready and had no processor."""
        now = [waited_seconds_of(pid) for pid in self._programs]
        return [after - before for after, before in zip(now, self._waited, strict=True)]

    def shares(self) -> list[float]:
        """Of one processor, 0..1 (a program with several threads may have more)."""
        elapsed = time.monotonic() - self._begin
        return [part / elapsed for part in self.used()]
