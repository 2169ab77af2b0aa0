"""Programs of the lab: run to their end, or beside the test with their output in a file."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.lab.prepared import Started
from tests.lab.waiting import PATIENCE, LabError, NotInTime, wait_for

COMMAND_SECONDS = 30.0
LAST_WORDS_SECONDS = 5.0


def environment(**more: str) -> dict[str, str]:
    """Of every program in the lab: in English, because the lab reads what they print."""
    return {**os.environ, "LC_ALL": "C", **more}


class CommandError(LabError):
    """A program ended with a status other than 0; the text holds its output."""

    def __init__(self, argv: Sequence[str], status: int, output: str) -> None:
        super().__init__(f"{' '.join(argv)}: exit status {status}\n{output.strip()}")
        self.argv = tuple(argv)
        self.status = status
        self.output = output


def run(*argv: str, seconds: float = COMMAND_SECONDS, check: bool = True, stdin: str | None = None) -> str:
    """Run a program to its end and return what it wrote on standard output.

    Raises:
        CommandError: its exit status was not 0 and `check` is set.
        LabError: it took longer than `seconds`.
    """
    source: dict[str, Any] = {"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}
    try:
        ended: subprocess.CompletedProcess[str] = subprocess.run(
            argv,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            env=environment(),
            timeout=seconds * PATIENCE,
            check=False,
            **source,
        )
    except subprocess.TimeoutExpired as error:
        raise LabError(f"{' '.join(argv)}: still running after {seconds} s") from error
    if check and ended.returncode != 0:
        raise CommandError(argv, ended.returncode, ended.stdout + ended.stderr)
    return ended.stdout


class Process:
    """A program that runs beside the test, its output in a file.

    `log` is that file: standard output and standard error in one.
    """

    def __init__(self, popen: subprocess.Popen[bytes] | Started, argv: Sequence[str], log: Path) -> None:
        self.popen = popen
        self.argv = tuple(argv)
        self.log = log

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def running(self) -> bool:
        return self.popen.poll() is None

    def output(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def wait_for_output(
        self, text: str | tuple[str, ...], seconds: float = 10.0, occurrences: int = 1
    ) -> None:
        """Wait until the output holds `text`, or one of several, that many times.

        Raises:
            NotInTime: it did not within `seconds`; with the output's end.
            LabError: the program ended first.
        """

        texts = (text,) if isinstance(text, str) else text

        def seen() -> bool:
            alive = self.running
            output = self.output()
            if max(output.count(one) for one in texts) >= occurrences:
                return True
            if not alive:
                raise LabError(
                    f"{self.argv[0]} ended ({self.popen.returncode}) before {text!r}:\n{self.tail()}"
                )
            return False

        try:
            wait_for(seen, f"{text!r} from {self.argv[0]}", seconds)
        except NotInTime as error:
            raise NotInTime(f"{error}\n{self.tail()}") from None

    def tail(self, lines: int = 40) -> str:
        return "\n".join(self.output().splitlines()[-lines:])

    def send_signal(self, number: int) -> None:
        if self.running:
            self.popen.send_signal(number)

    def wait(self, seconds: float = 10.0) -> int:
        """The exit status.

        Raises:
            NotInTime: still running after `seconds`.
        """
        try:
            return self.popen.wait(seconds * PATIENCE)
        except subprocess.TimeoutExpired:
            raise NotInTime(
                f"{self.argv[0]} (pid {self.pid}) still runs after {seconds} s\n{self.tail()}"
            ) from None

    def stop(self, number: int = signal.SIGTERM, seconds: float = 20.0) -> int:
        """Ask the program to end; its exit status.

        Raises:
            LabError: see `ended`.
        """
        self.send_signal(number)
        return self.ended(seconds)

    def ended(self, seconds: float = 20.0) -> int:
        """The exit status of a program that was asked to end.

        Raises:
            LabError: it did not and was killed; with what its threads did, and the end of its output. None of
                `NotInTime`: what hangs once in a while is not measured again.
        """
        try:
            return self.popen.wait(seconds * PATIENCE)
        except subprocess.TimeoutExpired:
            threads = _threads_of(self.pid)
            # Our daemons then write where each of their threads is.
            self.send_signal(signal.SIGABRT)
            with suppress(subprocess.TimeoutExpired):  # not even killed: it waits in the kernel
                self.end(LAST_WORDS_SECONDS)
            waited = seconds * PATIENCE
            raise LabError(
                f"{self.argv[0]} (pid {self.pid}) did not end within {waited} s\n{threads}\n{self.tail(120)}"
            ) from None

    def end(self, seconds: float) -> int:
        """Wait for the program's end, and kill it if it takes longer; its exit status."""
        try:
            return self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            return self.popen.wait(5)


def _threads_of(pid: int) -> str:
    """For each thread a line: its name, state, and where in the kernel it waits."""
    lines = []
    for task in sorted(Path("/proc", str(pid), "task").glob("*")):
        try:
            fields = (task / "stat").read_text().rpartition(")")[2].split()
            words = [(task / name).read_text().strip() for name in ("comm", "wchan")]
        except OSError:
            continue  # it has ended
        lines.append(f"thread {task.name} {words[0]}: {fields[0]}, in {words[1]}")
    return "\n".join(lines)
