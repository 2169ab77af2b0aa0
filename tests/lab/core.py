"""A lab: the namespaces, processes and files of one test or demonstration, removed together.

Whatever way the lab ends (return, exception, SIGINT, SIGTERM), everything is taken down, and then it is
checked that nothing is left.
"""

from __future__ import annotations

import functools
import os
import shutil
import signal
import tempfile
import threading
from contextlib import ExitStack
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

from tests.lab.namespace import Namespace, lab_namespaces, processes_in, remove_abandoned
from tests.lab.processes import run
from tests.lab.waiting import LabError

FILES_PREFIX = "bridged-lab-"
KEPT_PREFIX = "bridged-kept-"
PROGRAMS = (
    *("ip", "ping", "openvpn", "iperf3", "tcpdump", "nft", "sysctl", "setpriv"),
    *("dnsmasq", "dhclient", "ethtool"),
)


class Interrupted(KeyboardInterrupt):
    """A signal asked the lab's program to end. `status` is the exit status to end with: 128 + its number."""

    def __init__(self, number: int) -> None:
        super().__init__(f"signal {signal.Signals(number).name}")
        self.status = 128 + number


class Lab(ExitStack):
    """Context manager that owns everything made for one purpose.

    `tag` is a short word of letters and digits (at most 12) that goes into the names. `directory` is for
    configurations and logs; it is removed too, unless `keep_files` is set or BRIDGED_LAB_KEEP is in the
    environment. `programs`: those of PROGRAMS that will be called, where not all can be had.
    """

    def __init__(self, tag: str, *, keep_files: bool = False, programs: tuple[str, ...] = PROGRAMS) -> None:
        super().__init__()
        if not tag.isalnum() or len(tag) > 12:
            raise LabError(f"lab tag {tag!r}: letters and digits only, at most 12")
        self.tag = tag
        self._programs = programs
        self.keep_files = keep_files or "BRIDGED_LAB_KEEP" in os.environ
        self.namespaces: list[Namespace] = []
        self.directory = Path()
        self._handlers: dict[int, Any] = {}
        self._ran: set[int] = set()

    def __enter__(self) -> Self:
        require_capabilities(self._programs)
        remove_abandoned()
        _remove_abandoned_files()
        prefix = KEPT_PREFIX if self.keep_files else FILES_PREFIX
        self.directory = Path(tempfile.mkdtemp(prefix=f"{prefix}{self.tag}-{os.getpid()}-"))
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                self._handlers[number] = signal.signal(number, self._interrupt)
        return super().__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> bool:
        # A second signal must not cut the clean-up short.
        for number in self._handlers:
            signal.signal(number, signal.SIG_IGN)
        try:
            swallowed = bool(super().__exit__(kind, error, trace))
        finally:
            try:
                self._remove(error)
            finally:
                for number, handler in self._handlers.items():
                    signal.signal(number, handler)
        return swallowed

    def namespace(self, role: str) -> Namespace:
        """A new namespace named after its role in the lab."""
        made = Namespace(self.tag, role, self.directory)
        self.namespaces.append(made)
        return made

    def veth(
        self,
        end_a: tuple[Namespace, str],
        end_b: tuple[Namespace, str],
        mtu: int = 1500,
        queue_frames: int = 4000,
    ) -> None:
        """A cable between two namespaces, both ends up: `(namespace, interface name)` each."""
        (space_a, name_a), (space_b, name_b) = end_a, end_b
        run(
            *("ip", "link", "add", name_a, "netns", space_a.name, "mtu", str(mtu), "type", "veth"),
            *("peer", "name", name_b, "netns", space_b.name, "mtu", str(mtu)),
        )
        for space, name in (end_a, end_b):
            # Addresses are usable at once; nothing is sent that no test asked for.
            space.sysctl(f"net.ipv6.conf.{name}.accept_dad", 0)
            space.ip("link", "set", name, "txqueuelen", str(queue_frames), "up")

    def logs(self) -> str:
        """All log files so far, one after the other: for the message of a failed test."""
        parts = [f"==== {path.name}\n{path.read_text(errors='replace')}" for path in self.log_files()]
        return "\n".join(parts)

    def log_files(self) -> list[Path]:
        return sorted(self.directory.glob("*.log"))

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        raise Interrupted(number)

    def _remove(self, error: BaseException | None) -> None:
        problems: list[str] = []
        self._ran = set(processes_in({space.inode for space in self.namespaces}))
        for space in reversed(self.namespaces):
            try:
                space.close()
            except Exception as problem:
                problems.append(f"{space.name}: {problem}")
        if not self.keep_files:
            shutil.rmtree(self.directory, ignore_errors=True)
        problems += self.leftovers()
        if problems:
            raise LabError("the lab left something behind: " + "; ".join(problems)) from error

    def leftovers(self) -> list[str]:
        """What still exists of a lab that was closed: namespaces, and processes in them.

        The kernel gives a namespace's inode to the next one made, which may be another lab's: so only
        processes that were there before the end count.
        """
        mine = {space.name for space in self.namespaces}
        found = [f"namespace {name}" for name in lab_namespaces() if name in mine]
        pids = processes_in({space.inode for space in self.namespaces})
        return found + [f"process {pid}" for pid in pids if pid in self._ran]


@functools.cache
def require_capabilities(programs: tuple[str, ...] = PROGRAMS) -> None:
    """Refuse, with the reason, where network namespaces and TAP adapters cannot be had.

    Looked at once in each process: it takes a namespace to know.

    Raises:
        LabError: naming everything that is missing.
    """
    missing = missing_capabilities(programs)
    if missing:
        raise LabError("this machine lacks what the lab needs: " + "; ".join(missing))


def missing_capabilities(programs: tuple[str, ...] = PROGRAMS) -> list[str]:
    """What the lab needs and this machine lacks, in words; empty where all is well."""
    missing = []
    if os.geteuid() != 0:
        missing.append("not root (network namespaces and TAP adapters need it): run as root")
    try:
        os.close(os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        missing.append(f"/dev/net/tun: {error.strerror} (load the tun module, or pass the device in)")
    absent = [program for program in programs if shutil.which(program) is None]
    missing += [f"program {program!r} is not installed (make setup)" for program in absent]
    if not missing:
        return _try_namespace()
    return missing


def _remove_abandoned_files() -> None:
    for path in Path(tempfile.gettempdir()).glob(f"{FILES_PREFIX}*"):
        owner = path.name[len(FILES_PREFIX) :].split("-")
        if len(owner) == 3 and owner[1].isdigit() and not Path(f"/proc/{owner[1]}").exists():
            shutil.rmtree(path, ignore_errors=True)


def _try_namespace() -> list[str]:
    name = f"bl-probe-{os.getpid()}-0"
    try:
        run("ip", "netns", "add", name)
        try:
            run("ip", "-n", name, "link", "add", "br0", "type", "bridge")
            run("ip", "-n", name, "link", "add", "v0", "type", "veth", "peer", "name", "v1")
        finally:
            run("ip", "netns", "del", name)
    except LabError as error:
        return [f"network namespaces with bridge and veth: {error}"]
    return []
