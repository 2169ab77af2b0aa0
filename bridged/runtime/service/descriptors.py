"""Descriptors that outlive the process in the service manager's store, and those that it passes to us.

Source: sd_listen_fds(3), sd_pid_notify_with_fds(3): FDSTORE, FDSTOREREMOVE, FDNAME, FDPOLL.
Names: `admin` and `metrics` are sockets that the manager listens on. `tap/ADAPTER/N` and `udp/TUNNEL/N` are
ours, numbered because the manager does not keep their order.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Collection, Iterable, Mapping, MutableMapping, Sequence
from typing import Final

import structlog

from bridged.addresses import Endpoint
from bridged.runtime.service.manager import ServiceManager

FIRST_DESCRIPTOR: Final = 3
DESCRIPTORS_MAX: Final = 4096
_OURS: Final = ("tap/", "udp/")
_NUMBER: Final = re.compile(r"[0-9]{1,6}")


class DescriptorStore:
    """Keeps descriptors at the manager under names, and gives out those that came with the start.

    `inherited`: name -> descriptors, which are this object's until somebody takes them.
    """

    def __init__(self, manager: ServiceManager, inherited: Mapping[str, Sequence[int]] | None = None) -> None:
        self._manager = manager
        self._inherited = {name: list(found) for name, found in (inherited or {}).items()}
        self._kept: set[str] = {name for name in self._inherited if name.startswith(_OURS)}
        self._log = structlog.get_logger("bridged.service")

    @property
    def is_present(self) -> bool:
        """There is a manager that may have a store."""
        return self._manager.is_present

    def take_listener(self, name: str, families: Collection[int]) -> socket.socket | None:
        """A listening socket of these address families that the manager opened for us, once.

        None: there is none (any more). More than one are refused with a warning, and so is another family:
        the admin API, which asks for no password, must not be served over TCP.
        """
        found: socket.socket | None = None
        for number in self._inherited.pop(name, []):
            try:
                listener = socket.socket(fileno=number)
                is_listening = listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            except OSError as error:
                self._log.warning("descriptor_unusable", name=name, reason=str(error))
                continue
            reason = "not a listening socket"
            if is_listening:
                reason = "one listener is enough: remove the other lines ListenStream= of this name"
                if listener.family not in families:
                    reason = "ListenStream= has an address of the wrong kind for this name"
                elif found is None:
                    listener.setblocking(False)
                    found = listener
                    continue
            listener.close()
            self._log.warning("descriptor_unusable", name=name, reason=reason)
        return found

    def take(self, group: str) -> tuple[int, ...]:
        """The descriptors that a predecessor kept as `group`, in its order. They are the caller's now."""
        found = {
            int(name.rpartition("/")[2]): numbers
            for name, numbers in self._inherited.items()
            if name.rpartition("/")[0] == group and _NUMBER.fullmatch(name.rpartition("/")[2])
        }
        for number in found:
            del self._inherited[f"{group}/{number}"]
        return tuple(numbers[0] for _, numbers in sorted(found.items()))

    def keep(self, group: str, descriptors: Sequence[int]) -> None:
        """Have the manager keep these for our successor. It drops its copies with `forget`."""
        if not self._manager.is_present:
            return
        for number, descriptor in enumerate(descriptors):
            name = f"{group}/{number}"
            if name not in self._kept:
                self._kept.add(name)
                # Not polled: a vanished adapter stays until `forget`, which is certain to come.
                self._manager.tell("FDSTORE=1", f"FDNAME={name}", "FDPOLL=0", descriptors=(descriptor,))

    def forget(self, *groups: str) -> None:
        """Have the manager drop these, and wait until it has: an adapter and a port are free only then."""
        names = sorted(name for name in self._kept if name.rpartition("/")[0] in groups)
        for name in names:
            self._kept.discard(name)
            for descriptor in self._inherited.pop(name, []):
                os.close(descriptor)
            self._manager.tell("FDSTOREREMOVE=1", f"FDNAME={name}")
        if names and not self._manager.wait_until_heard():
            self._log.warning("descriptors_not_dropped", names=names)

    def forget_all_but(self, groups: Iterable[str]) -> None:
        """Drop what no part of the configuration wants any more."""
        wanted = set(groups)
        self.forget(*{name.rpartition("/")[0] for name in self._kept} - wanted)


def is_bound_to(descriptor: int, endpoint: Endpoint) -> bool:
    """Whether this is a UDP socket at exactly this endpoint."""
    family = socket.AF_INET6 if endpoint.is_ipv6 else socket.AF_INET
    try:
        with socket.socket(fileno=os.dup(descriptor)) as bound:
            if (bound.family, bound.type) != (family, socket.SOCK_DGRAM):
                return False
            host, port = bound.getsockname()[:2]
    except OSError:
        return False
    return (host, port) == (endpoint.host.partition("%")[0], endpoint.port)


def take_inherited(environment: MutableMapping[str, str]) -> dict[str, list[int]]:
    """The descriptors that were passed to this process, by name; the variables are removed.

    Each is closed when a program is executed.
    """
    count = environment.pop("LISTEN_FDS", "")
    owner = environment.pop("LISTEN_PID", "")
    names = environment.pop("LISTEN_FDNAMES", "").split(":")
    if not _NUMBER.fullmatch(count) or owner != str(os.getpid()):
        return {}
    found: dict[str, list[int]] = {}
    for position in range(min(int(count), DESCRIPTORS_MAX)):
        descriptor = FIRST_DESCRIPTOR + position
        name = names[position] if position < len(names) else "unknown"
        try:
            os.set_inheritable(descriptor, False)
        except OSError:
            continue
        found.setdefault(name, []).append(descriptor)
    return found
