"""Messages to the service manager: its notification socket.

Source: sd_notify(3), sd_pid_notify_with_fds(3), sd_notify_barrier(3) of systemd 252.
Blocking for microseconds; the barrier as long as the manager takes to read. Does nothing without a manager.
"""

from __future__ import annotations

import array
import os
import select
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Final

from bridged.supervision import SUPERVISOR

SEND_SECONDS: Final = 1.0
BARRIER_SECONDS: Final = 2.0


class ServiceManager:
    """Where `$NOTIFY_SOCKET` leads; an empty address: there is no manager."""

    def __init__(self, address: str = "") -> None:
        # "@" stands for the NUL of an abstract name.
        self._address = "\0" + address[1:] if address.startswith("@") else address

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> ServiceManager:
        return cls(environment.get("NOTIFY_SOCKET", ""))

    @property
    def is_present(self) -> bool:
        return bool(self._address)

    def tell(self, *assignments: str, descriptors: Sequence[int] = ()) -> bool:
        """Send `NAME=VALUE` assignments in one message; False if it could not be sent (counted)."""
        if not self._address:
            return False
        ancillary = (
            [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        )
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.settimeout(SEND_SECONDS)
                sender.sendmsg(["\n".join(assignments).encode()], ancillary, 0, self._address)
        except OSError as error:
            SUPERVISOR.note_failure("service_manager", "", error)
            return False
        SUPERVISOR.note_done("service_manager")
        return True

    def wait_until_heard(self, seconds: float = BARRIER_SECONDS) -> bool:
        """Wait until the manager has dealt with all messages so far; False if it has not in time."""
        reader, writer = os.pipe2(os.O_CLOEXEC)
        try:
            try:
                if not self.tell("BARRIER=1", descriptors=(writer,)):
                    return False
            finally:
                os.close(writer)
            poll = select.poll()
            poll.register(reader, select.POLLHUP)
            # The manager closes its copy when it comes to this message.
            return bool(poll.poll(seconds * 1000))
        finally:
            os.close(reader)


def monotonic_microseconds() -> str:
    """`MONOTONIC_USEC=…`, which goes with RELOADING=1: the manager recognises a reload that it asked for."""
    return f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}"
