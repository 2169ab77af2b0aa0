"""A small service manager: runs one daemon as systemd would, with notification socket and descriptor store.

Source: sd_notify(3), sd_pid_notify_with_fds(3), sd_listen_fds(3), systemd.service(5) of systemd 252. As with
it, only the main process is heard, descriptors come back in another order than they were stored, and one that
is stored already is not stored again. A stop drops the store; a restart keeps it.
"""

from __future__ import annotations

import array
import fcntl
import os
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

from tests.lab.bridged_daemon import BRIDGED, START_SECONDS, Bridged
from tests.lab.waiting import wait_for

MESSAGE_OCTETS = 4096
DESCRIPTORS_MAX = 253
HIGH = 300
"""Descriptors wait above this number before they become 3, 4, ... in the daemon."""
CREDENTIALS = struct.Struct("=iII")
LAUNCH = 'eval "exec $RENUMBER"; unset RENUMBER; export LISTEN_PID=$$; exec "$@"'


class ServiceManager:
    """Of one daemon. `under`: what it runs under, as `setpriv`; `listeners`: activated sockets by name.

    `status` is the newest STATUS; `states` has READY, RELOADING, STOPPING in order; `beats` counts WATCHDOG.
    """

    def __init__(
        self,
        daemon: Bridged,
        *,
        under: Sequence[str] = (),
        environment: dict[str, str] | None = None,
        listeners: dict[str, socket.socket] | None = None,
        store_max: int = 512,
    ) -> None:
        self.daemon = daemon
        self.store: list[tuple[str, int]] = []
        self.states: list[str] = []
        self.status = ""
        self.beats = 0
        self.refused = 0
        self._under = tuple(under)
        self._environment = environment or {}
        self._listeners = listeners or {}
        self._store_max = store_max
        self._main_pid = 0
        self._path = daemon.site.namespace.directory / f"{daemon.stem}.notify"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._socket.bind(str(self._path))
        self._path.chmod(0o777)
        self._is_open = True
        self._thread = threading.Thread(target=self._listen, name="service-manager")
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening and drop the store. The daemon is the lab's to end."""
        self._is_open = False
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"", str(self._path))
        self._thread.join()
        self._socket.close()
        self._drop_store()

    # --- what systemctl does ----------------------------------------------------------------------

    def start(self, *options: str) -> None:
        """Start the daemon, and wait until it is ready."""
        ready = self.states.count("READY")
        self._launch(options)
        self.wait_until(lambda: self.states.count("READY") > ready, "READY=1", START_SECONDS)

    def restart(self) -> float:
        """The unit's ExecStop= in a restart job, SIGTERM, and a start; seconds until it is ready again."""
        began = time.monotonic()
        self.daemon.started.send_signal(signal.SIGUSR1)
        self.daemon.stop()
        self.start()
        return time.monotonic() - began

    def crash(self) -> None:
        """Kill the daemon, and start it again as Restart=on-failure does."""
        self.daemon.started.stop(signal.SIGKILL)
        self.start()

    def stop(self) -> int:
        """Stop for good: nobody waits for the descriptors any more. Returns the exit status."""
        status = self.daemon.stop()
        self._drop_store()
        return status

    def names(self) -> set[str]:
        """Of the stored descriptors."""
        return {name for name, _ in self.store}

    def wait_until(self, condition: Callable[[], object], what: str, seconds: float = 10.0) -> None:
        """Until the daemon has told what makes `condition` true."""
        try:
            wait_for(condition, what, seconds, 0.01)
        except Exception as error:
            raise type(error)(f"{error}\n{self.daemon.started.tail()}") from None

    # --- descriptors ------------------------------------------------------------------------------

    def _launch(self, options: Sequence[str]) -> None:
        passed = [(name, listener.fileno()) for name, listener in self._listeners.items()] + self.store
        high = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, HIGH) for _, descriptor in passed]
        environment = {"PYTHONUNBUFFERED": "1", "NOTIFY_SOCKET": str(self._path), **self._environment}
        environment["RENUMBER"] = " ".join(
            f"{3 + at}<&{number} {number}<&-" for at, number in enumerate(high)
        )
        if passed:
            environment["LISTEN_FDS"] = str(len(passed))
            environment["LISTEN_FDNAMES"] = ":".join(name for name, _ in passed)
        try:
            process = self.daemon.site.namespace.popen(
                *("bash", "-c", LAUNCH, "bash", *self._under),
                *(BRIDGED, "run", "--config", str(self.daemon.file), *options),
                log=self.daemon.name,
                env=environment,
                descriptors=high,
            )
        finally:
            for number in high:
                os.close(number)
        self._main_pid = process.pid
        self.daemon.process = process

    def _drop_store(self) -> None:
        for _, descriptor in self.store:
            os.close(descriptor)
        self.store = []

    # --- messages ---------------------------------------------------------------------------------

    def _listen(self) -> None:
        room = socket.CMSG_SPACE(DESCRIPTORS_MAX * 4) + socket.CMSG_SPACE(CREDENTIALS.size)
        while self._is_open:
            message, ancillary, _, _ = self._socket.recvmsg(MESSAGE_OCTETS, room, socket.MSG_CMSG_CLOEXEC)
            descriptors: array.array[int] = array.array("i")
            sender = 0
            for _, kind, content in ancillary:
                if kind == socket.SCM_RIGHTS:
                    descriptors.frombytes(content[: len(content) - len(content) % descriptors.itemsize])
                elif kind == socket.SCM_CREDENTIALS:
                    sender, _, _ = CREDENTIALS.unpack(content)
            fields = dict(line.split("=", 1) for line in message.decode().split("\n") if "=" in line)
            kept: list[int] = []
            if sender == self._main_pid:
                kept = self._take(fields, list(descriptors))
            elif fields:
                self.refused += 1
            # BARRIER=1 is answered by this, too: the sender waits until nobody has its pipe.
            for descriptor in descriptors:
                if descriptor not in kept:
                    os.close(descriptor)

    def _take(self, fields: dict[str, str], descriptors: list[int]) -> list[int]:
        self.status = fields.get("STATUS", self.status)
        self.states += [name for name in ("READY", "RELOADING", "STOPPING") if fields.get(name) == "1"]
        self.beats += fields.get("WATCHDOG") == "1"
        name = fields.get("FDNAME", "stored")
        if fields.get("FDSTOREREMOVE") == "1":
            gone = [item for item in self.store if item[0] == name]
            self.store = [item for item in self.store if item[0] != name]
            for _, descriptor in gone:
                os.close(descriptor)
        elif fields.get("FDSTORE") == "1":
            new = [one for one in descriptors if not any(same_file(one, known) for _, known in self.store)]
            new = new[: self._store_max - len(self.store)]
            self.store = [*((name, one) for one in new), *self.store]
            return new
        return []


def same_file(one: int, other: int) -> bool:
    """Whether two descriptors are of one open file (kcmp(2), as systemd asks)."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    kcmp, kcmp_file = {"x86_64": 312}.get(os.uname().machine, 272), 0
    result: int = libc.syscall(kcmp, os.getpid(), os.getpid(), kcmp_file, one, other)
    return result == 0


def listening(path_or_port: Path | int) -> socket.socket:
    """A socket that listens as ListenStream= would have it."""
    if isinstance(path_or_port, int):
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.bind(("127.0.0.1", path_or_port))
    else:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(path_or_port))
    listener.listen()
    return listener
