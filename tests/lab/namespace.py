"""Network namespaces: make them, run programs and Python functions in them, leave nothing behind.

A namespace's name is `bl-TAG-PID-ROLE`, with the PID of the program that made it: what a killed program left
can be told from what is in use. `in_namespace` gives one test body a namespace without a name.
"""

from __future__ import annotations

import asyncio
import ctypes
import functools
import inspect
import os
import pickle
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeVar

from tests.lab.host_settings import forget_machine, sysctl_path
from tests.lab.prepared import Prepared
from tests.lab.processes import COMMAND_SECONDS, Process, environment, run
from tests.lab.waiting import LabError

NETNS_DIRECTORY = Path("/run/netns")
NAME_PREFIX = "bl-"
CLONE_NEWNET = 0x40000000

Result = TypeVar("Result")
_libc = ctypes.CDLL(None, use_errno=True)


class Namespace:
    """One network namespace. `Lab` makes and closes them; `role` is its short name in the lab."""

    def __init__(self, tag: str, role: str, directory: Path) -> None:
        self.role = role
        self.name = f"{NAME_PREFIX}{tag}-{os.getpid()}-{role}"
        self.directory = directory
        self.processes: list[Process] = []
        self._piped: list[subprocess.Popen[str]] = []
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
        descriptors: Collection[int] = (),
    ) -> Process:
        """Start a program in here; it is ended with the namespace. `log` names its output file.

        It also gets these `descriptors`, under their numbers.
        """
        path = self._log_file(log or Path(argv[0]).name)
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
                pass_fds=tuple(descriptors),
                start_new_session=True,  # a Ctrl-C at the terminal is for the lab alone
            )
        process = Process(popen, argv, path)
        self.processes.append(process)
        return process

    def fork_daemon(
        self, source: Prepared, *arguments: str, log: str, env: Mapping[str, str] | None = None
    ) -> Process:
        """As `popen` of `bridged ARGUMENTS`, forked off a process that has loaded its modules."""
        path = self._log_file(log)
        netns = NETNS_DIRECTORY / self.name
        with path.open("wb") as output:
            started = source.start(
                arguments, netns=netns, output=output, environment=environment(**(env or {}))
            )
        process = Process(started, ("bridged", *arguments), path)
        self.processes.append(process)
        return process

    def _log_file(self, name: str) -> Path:
        path = self.directory / f"{self.role}-{name}.log"
        number = 2
        while path.exists():
            path = self.directory / f"{self.role}-{name}-{number}.log"
            number += 1
        return path

    def start(self, *argv: str) -> subprocess.Popen[str]:
        """Start a program in here, its input and output as pipes; it is killed with the namespace."""
        child = subprocess.Popen(
            ["ip", "netns", "exec", self.name, *argv],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            env=environment(),
        )
        self._piped.append(child)
        return child

    def start_python(self, code: str, *arguments: str) -> subprocess.Popen[str]:
        """As `start`, for a Python program, until its first line of output, `ready`.

        Raises:
            LabError: it said something else, or ended.
        """
        child = self.start(sys.executable, "-u", "-c", code, *arguments)
        assert child.stdout is not None
        line = child.stdout.readline()
        if line != "ready\n":
            child.kill()
            raise LabError(f"the program did not start: {line}{child.stdout.read()}")
        return child

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
            process.end(max(0.1, deadline - time.monotonic()))
        while self._piped:
            child = self._piped.pop()
            child.kill()
            child.communicate(timeout=10)
        for pid in self.pids():
            _kill(pid)
        if (NETNS_DIRECTORY / self.name).exists():
            run("ip", "netns", "del", self.name)


def in_namespace(body: Callable[..., Any]) -> Callable[..., None]:
    """Decorate a test: run it, or the coroutine of it, in a fresh namespace that has no name.

    The namespace ends with the thread that runs the body. Loopback is up; IPv6 addresses are usable at once.
    """

    @functools.wraps(body)
    def wrapped(*arguments: Any, **named: Any) -> None:
        failure: list[BaseException] = []

        def in_thread() -> None:
            try:
                if _libc.unshare(CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), "unshare: these tests need root")
                forget_machine()
                for scope in ("default", "all"):
                    sysctl_path(f"net.ipv6.conf.{scope}.accept_dad").write_text("0", encoding="ascii")
                run("ip", "link", "set", "lo", "up")
                result = body(*arguments, **named)
                if inspect.iscoroutine(result):
                    asyncio.run(result)
            except BaseException as error:
                failure.append(error)

        thread = threading.Thread(target=in_thread)
        thread.start()
        thread.join()
        if failure:
            raise failure[0]

    return wrapped


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
