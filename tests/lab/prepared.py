"""Daemons that need not load their modules: each is forked off a process that has loaded them once.

A daemon's imports take half a second of processor time, which most tests wait for and never look at. Here one
process for each test process imports what `bridged run` imports, and forks when it is asked to. The child
does what `ip netns exec` and `setpriv --pdeathsig` do, takes its arguments, environment and output, and
enters `bridged` where the installed command does. What a test says of the start itself, of memory, rights or
a successor, it says of a program that was executed (decision 105).
"""

from __future__ import annotations

import array
import atexit
import ctypes
import faulthandler
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

CLONE_NEWNS, CLONE_NEWNET = 0x20000, 0x40000000
MS_RDONLY, MS_BIND, MS_REC, MS_SLAVE = 0x1, 0x1000, 0x4000, 0x80000
MNT_DETACH = 2
PR_SET_PDEATHSIG = 1
MESSAGE_OCTETS = 1 << 20
LOAD_SECONDS = 120.0
_libc = ctypes.CDLL(None, use_errno=True)


class PreparedError(Exception):
    """The process that daemons are forked off did not load, or has ended."""


class Started:
    """A forked daemon: the part of `subprocess.Popen` that the lab uses."""

    stdin: IO[bytes] | None = None

    def __init__(self, pid: int, ended: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        # A line of text once it has ended, and nothing if the process that forked it has ended, too.
        self._ended = ended

    def poll(self) -> int | None:
        return self._read(0.0)

    def wait(self, timeout: float | None = None) -> int:
        """The exit status, negative after a signal.

        Raises:
            subprocess.TimeoutExpired: still running.
        """
        status = self._read(timeout)
        if status is None:
            raise subprocess.TimeoutExpired(f"prepared daemon {self.pid}", timeout or 0.0)
        return status

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def _read(self, seconds: float | None) -> int | None:
        if self.returncode is None and select.select([self._ended], [], [], seconds)[0]:
            told = os.read(self._ended, 64)
            os.close(self._ended)
            self.returncode = int(told) if told else -signal.SIGKILL
        return self.returncode


class Prepared:
    """The process that daemons of this test process are forked off."""

    def __init__(self) -> None:
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._owner = os.getpid()
        self._is_in_step = True
        self._process = subprocess.Popen(
            # By its path: what tests import is none of a daemon's modules.
            [sys.executable, "-u", "-P", __file__, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        theirs.close()
        self._ours.settimeout(LOAD_SECONDS)
        try:
            loaded = self._ours.recv(MESSAGE_OCTETS)
        except TimeoutError:
            loaded = b""
        if loaded != b"loaded":
            self._process.kill()
            raise PreparedError(f"ended before it had loaded `bridged`: {self._process.wait(10)}")

    @property
    def is_usable(self) -> bool:
        """Not by a forked child of the test process, nor after an interrupted request or its end."""
        return self._is_in_step and self._owner == os.getpid() and self._process.poll() is None

    def close(self) -> None:
        """Let it end; not from a forked child of the test process."""
        self._ours.close()
        if self._owner == os.getpid():
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(10)

    def start(
        self, arguments: Sequence[str], *, netns: Path, output: IO[bytes], environment: Mapping[str, str]
    ) -> Started:
        """`bridged ARGUMENTS` in this network namespace, everything it prints in `output`."""
        request = {
            "arguments": [*arguments],
            "netns": str(netns),
            "environment": dict(environment),
            "folder": str(Path.cwd()),
        }
        reader, writer = os.pipe2(os.O_CLOEXEC)
        # Whoever is interrupted here leaves an answer behind that would be taken for the next one's.
        self._is_in_step = False
        try:
            descriptors = array.array("i", [output.fileno(), writer])
            self._ours.sendmsg(
                [json.dumps(request).encode()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)]
            )
            answer = self._ours.recv(64)
        finally:
            os.close(writer)
        if not answer:
            os.close(reader)
            raise PreparedError(f"has ended: {self._process.poll()}")
        self._is_in_step = True
        return Started(int(answer), reader)


_shared: list[Prepared] = []
_offers: list[bool] = [False]


@contextmanager
def offered() -> Iterator[None]:
    """Daemons that the lab starts meanwhile are prepared ones, unless they are special."""
    before, _offers[0] = _offers[0], True
    try:
        yield
    finally:
        _offers[0] = before


def prepared() -> Prepared | None:
    """The one of this test process, where such daemons are offered; it ends with this process."""
    if not _offers[0] or threading.current_thread() is not threading.main_thread():
        return None
    if not _shared or not _shared[0].is_usable:
        _shared[:] = [Prepared()]
        atexit.register(_shared[0].close)
    return _shared[0]


# --- the process itself -------------------------------------------------------------------------------


def _checked(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _mount(source: str, target: str, kind: str | None, flags: int) -> None:
    words = [None if word is None else word.encode() for word in (source, target, kind)]
    _checked(_libc.mount(*words, ctypes.c_ulong(flags), None), f"mount {target}")


def _enter(netns: Path) -> None:
    """As `ip netns exec`: the network, its /sys, and its files of /etc. Source: iproute2, lib/namespace.c."""
    descriptor = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
    _checked(_libc.setns(descriptor, CLONE_NEWNET), "setns")
    os.close(descriptor)
    _checked(_libc.unshare(CLONE_NEWNS), "unshare")
    _mount("", "/", "none", MS_SLAVE | MS_REC)
    flags = 0
    if _libc.umount2(b"/sys", MNT_DETACH) != 0:
        flags = MS_RDONLY if os.statvfs("/sys").f_flag & os.ST_RDONLY else 0
    _mount(netns.name, "/sys", "sysfs", flags)
    own = Path("/etc/netns", netns.name)
    if own.is_dir():
        for file in own.iterdir():
            _mount(str(file), f"/etc/{file.name}", "none", MS_BIND)


class _Forks:
    """Forks as it is asked to, and says how each child ended."""

    def __init__(self, asked: socket.socket) -> None:
        self._asked = asked
        self._ended: dict[int, int] = {}
        self._woken, wakes = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(wakes)
        self._wakes = wakes
        signal.signal(signal.SIGCHLD, lambda number, frame: None)

    def next_child(self) -> dict[str, Any] | None:
        """In a child: what it was asked to be. In the parent, once nobody can ask any more: nothing."""
        while True:
            readable: list[socket.socket | int] = [self._asked, self._woken]
            ready, _, _ = select.select(readable, [], [])
            if self._woken in ready:
                os.read(self._woken, 4096)
                self._reap()
            if self._asked not in ready:
                continue
            message, ancillary, _, _ = self._asked.recvmsg(MESSAGE_OCTETS, socket.CMSG_SPACE(64))
            if not message:
                return None
            descriptors = array.array("i")
            for _, _, content in ancillary:
                descriptors.frombytes(content)
            output, ended = descriptors
            pid = os.fork()
            if pid == 0:
                os.close(ended)
                return self._child(json.loads(message), output)
            os.close(output)
            self._ended[pid] = ended
            self._asked.send(str(pid).encode())

    def _reap(self) -> None:
        while self._ended:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            descriptor = self._ended.pop(pid)
            with suppress(BrokenPipeError):
                os.write(descriptor, str(os.waitstatus_to_exitcode(status)).encode())
            os.close(descriptor)

    def _child(self, request: dict[str, Any], output: int) -> dict[str, Any]:
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        os.setsid()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for descriptor in (self._woken, self._wakes, *self._ended.values()):
            os.close(descriptor)
        self._asked.close()
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.close(output)
        return request


def _serve(descriptor: int) -> None:
    """Load, say so, and fork until the test process has ended; each child returns from here as a daemon."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    asked = socket.socket(fileno=descriptor)
    asked.set_inheritable(False)
    import bridged.cli.entry
    import bridged.cli.main
    from bridged.cli.run import load_daemon

    load_daemon()
    if threading.active_count() != 1:
        raise PreparedError(f"threads of imported modules: {threading.enumerate()}")
    gc.collect()
    gc.freeze()
    asked.send(b"loaded")
    request = _Forks(asked).next_child()
    if request is None:
        return
    os.environ.clear()
    os.environ.update(request["environment"])
    if "PYTHONFAULTHANDLER" in os.environ:
        faulthandler.enable()
    time.tzset()
    os.chdir(request["folder"])
    _enter(Path(request["netns"]))
    sys.argv = ["bridged", *request["arguments"]]
    bridged.cli.entry.main()


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
