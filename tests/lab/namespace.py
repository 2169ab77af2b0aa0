"""Network namespaces: make them, run programs and Python functions in them, leave nothing behind.

A namespace's name is `bl-TAG-PID-ROLE` (PID of the program that made it), so that whatever a killed
program left can be told from what is in use.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeVar

from tests.lab.host_settings import forget_machine, sysctl_path

NETNS_DIRECTORY = Path("/run/netns")
NAME_PREFIX = "bl-"
CLONE_NEWNET = 0x40000000
PATIENCE = float(os.environ.get("BRIDGED_LAB_PATIENCE", "1"))
"""All waiting takes so many times longer before it is given up: an emulated processor is slow."""
COMMAND_SECONDS = 30.0

Result = TypeVar("Result")
_libc = ctypes.CDLL(None, use_errno=True)


def environment(**more: str) -> dict[str, str]:
    """Of every program in the lab: in English, because the lab reads what they print."""
    return {**os.environ, "LC_ALL": "C", **more}


class LabError(Exception):
    """The lab could not be built, or something in it did not come to be in time."""


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


def wait_for(
    condition: Callable[[], Result], what: str, seconds: float = 10.0, interval_seconds: float = 0.05
) -> Result:
    """Ask `condition` until its answer is true, and return that answer.

    Raises:
        LabError: it was not within `seconds`; the text names `what`.
    """
    deadline = time.monotonic() + seconds * PATIENCE
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise LabError(f"not within {seconds} s: {what}")
        time.sleep(interval_seconds)


class Process:
    """A program that runs beside the test, its output in a file.

    `log` is that file: standard output and standard error in one.
    """

    def __init__(self, popen: subprocess.Popen[bytes], argv: Sequence[str], log: Path) -> None:
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
            LabError: it did not within `seconds`, or the program ended first; with the output's end.
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
        except LabError as error:
            raise LabError(f"{error}\n{self.tail()}") from None

    def tail(self, lines: int = 40) -> str:
        return "\n".join(self.output().splitlines()[-lines:])

    def send_signal(self, number: int) -> None:
        if self.running:
            self.popen.send_signal(number)

    def wait(self, seconds: float = 10.0) -> int:
        """The exit status.

        Raises:
            LabError: still running after `seconds`.
        """
        try:
            return self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            raise LabError(
                f"{self.argv[0]} (pid {self.pid}) still runs after {seconds} s\n{self.tail()}"
            ) from None

    def stop(self, number: int = signal.SIGTERM, seconds: float = 8.0) -> int:
        """Ask the program to end, then insist; its exit status (-9 where it had to be killed)."""
        self.send_signal(number)
        try:
            return self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            return self.popen.wait(5)


class Namespace:
    """One network namespace. `Lab` makes and closes them; `role` is its short name in the lab."""

    def __init__(self, tag: str, role: str, directory: Path) -> None:
        self.role = role
        self.name = f"{NAME_PREFIX}{tag}-{os.getpid()}-{role}"
        self.directory = directory
        self.processes: list[Process] = []
        # Processors that programs in here may run on, as for taskset; empty: all.
        self.cpus = ""
        run("ip", "netns", "add", self.name)
        self.inode = (NETNS_DIRECTORY / self.name).stat().st_ino
        with self.entered():
            forget_machine()
        self.ip("link", "set", "lo", "up")

    def __repr__(self) -> str:
        return f"Namespace({self.name})"

    def run(
        self, *argv: str, seconds: float = COMMAND_SECONDS, check: bool = True, stdin: str | None = None
    ) -> str:
        """Run a program in here to its end; see `run`."""
        return run(
            "ip",
            "netns",
            "exec",
            self.name,
            *self._pinned(),
            *argv,
            seconds=seconds,
            check=check,
            stdin=stdin,
        )

    def _pinned(self) -> tuple[str, ...]:
        return ("taskset", "-c", self.cpus) if self.cpus else ()

    def ip(self, *argv: str, check: bool = True) -> str:
        """`ip -n NAME …`, which needs no second program in the namespace."""
        return run("ip", "-n", self.name, *argv, check=check)

    def popen(
        self,
        *argv: str,
        log: str = "",
        env: dict[str, str] | None = None,
        stdin: int | IO[bytes] = subprocess.DEVNULL,
    ) -> Process:
        """Start a program in here; it is ended with the namespace. `log` names its output file."""
        stem = f"{self.role}-{log or Path(argv[0]).name}"
        path = self.directory / f"{stem}.log"
        number = 2
        while path.exists():
            path = self.directory / f"{stem}-{number}.log"
            number += 1
        # The parent-death signal follows the thread that forks: only safe where that is the main one.
        in_main = threading.current_thread() is threading.main_thread()
        guard = ("setpriv", "--pdeathsig", "KILL") if in_main else ()
        with path.open("wb") as output:
            popen = subprocess.Popen(
                ["ip", "netns", "exec", self.name, *guard, *self._pinned(), *argv],
                stdin=stdin,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment(**(env or {})),
                start_new_session=True,  # a Ctrl-C at the terminal is for the lab alone
            )
        process = Process(popen, argv, path)
        self.processes.append(process)
        return process

    @contextmanager
    def entered(self) -> Iterator[None]:
        """This thread is in the namespace; sockets opened meanwhile stay there for good."""
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            target = os.open(NETNS_DIRECTORY / self.name, os.O_RDONLY | os.O_CLOEXEC)
            try:
                _setns(target)
            finally:
                os.close(target)
            try:
                yield
            finally:
                _setns(before)
        finally:
            os.close(before)

    def call(
        self, function: Callable[..., Result], *arguments: Any, seconds: float = COMMAND_SECONDS
    ) -> Result:
        """Run a Python function in a child process in here and return its (picklable) result.

        Raises:
            LabError: the child ended without one, or took longer than `seconds`.
            Exception: whatever the function raised.
        """
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            self._child(writer, function, arguments)
        os.close(writer)
        try:
            result: Result = _received(reader, pid, seconds)
            return result
        finally:
            os.close(reader)

    def _child(self, writer: int, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        status = 1
        try:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            with self.entered():
                try:
                    answer = (True, function(*arguments))
                except Exception as error:
                    answer = (False, error)
                data = pickle.dumps(answer)
                with os.fdopen(writer, "wb") as pipe:
                    pipe.write(struct.pack("!Q", len(data)) + data)
            status = 0
        finally:
            os._exit(status)

    def sysctl(self, key: str, value: str | int) -> None:
        """Set a sysctl of this namespace, e.g. `net.ipv4.ip_forward`.

        Raises:
            OSError: the kernel has none of that name, or refuses the value.
        """
        with self.entered():
            sysctl_path(key).write_text(str(value), encoding="ascii")

    def pids(self) -> list[int]:
        """Every process in here, also what went into the background by itself; never our own."""
        return processes_in({self.inode})

    def close(self) -> None:
        """End what runs in here and remove the namespace. Harmless when repeated."""
        for process in reversed(self.processes):
            process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 5
        for process in reversed(self.processes):
            process.stop(seconds=max(0.1, deadline - time.monotonic()))
        for pid in self.pids():
            _kill(pid)
        if (NETNS_DIRECTORY / self.name).exists():
            run("ip", "netns", "del", self.name)


def _setns(descriptor: int) -> None:
    if _libc.setns(descriptor, CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"setns: {os.strerror(number)}")


def _received(reader: int, pid: int, seconds: float) -> Any:
    """What the child wrote, after it has ended (or was killed at the deadline)."""
    deadline = time.monotonic() + seconds
    data = bytearray()
    late = False
    while not late:
        ready, _, _ = select.select([reader], [], [], max(0.0, deadline - time.monotonic()))
        late = not ready
        chunk = os.read(reader, 65536) if ready else b""
        data += chunk
        if not chunk:
            break
    if late:
        _kill(pid)
    os.waitpid(pid, 0)
    if late or len(data) < 8:
        raise LabError(
            "function in a namespace: " + (f"still running after {seconds} s" if late else "child died")
        )
    good, answer = pickle.loads(bytes(data[8:]))
    if not good:
        raise answer
    return answer


def _all_pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def namespace_inode(pid: int) -> int | None:
    """Which network namespace a process is in; None where there is no such process."""
    try:
        return Path(f"/proc/{pid}/ns/net").stat().st_ino
    except OSError:
        return None


def processes_in(inodes: set[int]) -> list[int]:
    """Every process in one of these namespaces; never our own."""
    return [pid for pid in _all_pids() if pid != os.getpid() and namespace_inode(pid) in inodes]


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def lab_namespaces() -> list[str]:
    """Names of all namespaces that any lab on this machine has made and that still exist."""
    if not NETNS_DIRECTORY.is_dir():
        return []
    return sorted(entry.name for entry in NETNS_DIRECTORY.iterdir() if entry.name.startswith(NAME_PREFIX))


def remove_abandoned() -> list[str]:
    """Remove namespaces of labs whose program is gone (it was killed outright), and what ran in them."""
    removed = []
    for name in lab_namespaces():
        owner = name[len(NAME_PREFIX) :].split("-")
        if len(owner) < 3 or not owner[1].isdigit() or Path(f"/proc/{owner[1]}").exists():
            continue
        try:
            inode = (NETNS_DIRECTORY / name).stat().st_ino
        except OSError:
            continue
        for pid in processes_in({inode}):
            _kill(pid)
        run("ip", "netns", "del", name, check=False)
        removed.append(name)
    if removed:
        print(f"lab: removed what an earlier run left: {', '.join(removed)}", file=sys.stderr)
    return removed
