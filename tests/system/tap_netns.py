"""Network namespaces for the TAP tests: made, entered in-process with setns(2), and taken away.

Entering leaves /sys and the rest of the process as they are, which is exactly the case in which a
library that trusts /sys would answer for the wrong namespace.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.lab.host_settings import forget_machine

_CLONE_NEWNET = 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)
_numbers = itertools.count()


class Namespace:
    """One network namespace, named after this process; `close` kills what was started in it."""

    def __init__(self) -> None:
        self.name = f"btap{os.getpid()}n{next(_numbers)}"
        subprocess.run(["ip", "netns", "add", self.name], check=True, timeout=10)
        self._children: list[subprocess.Popen[str]] = []
        with self.entered():
            forget_machine()

    def close(self) -> None:
        for child in self._children:
            if child.poll() is None:
                child.kill()
            child.communicate(timeout=10)
        subprocess.run(["ip", "netns", "delete", self.name], check=True, timeout=10)

    def run(self, *command: str) -> str:
        """Run to its end; returns what it wrote to stdout."""
        done = subprocess.run(
            ["ip", "netns", "exec", self.name, *command],
            check=False,
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def start(self, *command: str) -> subprocess.Popen[str]:
        """Start in the namespace, with its pipes ours; `ip netns exec` keeps the PID."""
        child = subprocess.Popen(
            ["ip", "netns", "exec", self.name, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._children.append(child)
        return child

    def start_python(self, code: str, *arguments: str) -> subprocess.Popen[str]:
        """Start a Python program and wait until it says `ready`."""
        child = self.start(sys.executable, "-u", "-c", code, *arguments)
        assert child.stdout is not None
        line = child.stdout.readline()
        if line != "ready\n":
            child.kill()
            raise AssertionError(f"the holder did not start: {line}{child.stdout.read()}")
        return child

    @contextmanager
    def entered(self) -> Iterator[None]:
        """The calling thread is in the namespace inside the block."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        there = os.open(Path("/run/netns") / self.name, os.O_RDONLY)
        try:
            _set_namespace(there)
            try:
                yield
            finally:
                _set_namespace(home)
        finally:
            os.close(home)
            os.close(there)


def _set_namespace(descriptor: int) -> None:
    if _LIBC.setns(descriptor, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")
