"""Which client has which address of a server's pool, kept across restarts.

Source: docs/protocol/control.md#6-1 (bridging). Blocking: writes a small file when an address is given for
the first time. Nothing depends on the file: without it clients get other addresses.
"""

from __future__ import annotations

import itertools
from collections.abc import Container, Iterator, Mapping
from contextlib import suppress
from heapq import heappop, heappush
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final

from bridged.configuration.access import AddressPool, Client
from bridged.runtime.server.kept_lines import KeptLines
from bridged.units import PeerHandle

NAMES_MAX: Final = 65_536
FILE_OCTETS_MAX: Final = 8 * 1024 * 1024


class AddressBook:
    """The addresses of one tunnel. Each line of the file is `ADDRESS NAME`; later lines replace earlier ones.

    A client gets its fixed address, else the one it had, else a free one that nobody had, else the one whose
    owner was here longest ago. `path` None: nothing is kept. No step looks at all names or all addresses.
    """

    def __init__(self, path: Path | None) -> None:
        self._file = KeptLines(path, FILE_OCTETS_MAX)
        self._had: dict[str, IPv4Address] = {}
        self._owners: dict[IPv4Address, str] = {}
        self._used: dict[PeerHandle, tuple[IPv4Address, str]] = {}
        self._users: dict[IPv4Address, dict[PeerHandle, str]] = {}
        """Who uses an address now: several only where sessions of one name follow each other."""
        self._choice: FreeAddresses | None = None
        self._is_loaded = False

    def take(
        self,
        handle: PeerHandle,
        name: str,
        pool: AddressPool,
        clients: Mapping[str, Client],
        *,
        shares_name: bool = False,
    ) -> IPv4Address | None:
        """An address for this session; None: all are in use.

        Unless `shares_name`, the session takes the place of others of its name, and may have their address.
        """
        self._load()
        choice = self._choice_of(pool, clients)

        def is_used(address: IPv4Address) -> bool:
            return any(shares_name or owner != name for owner in self._users.get(address, {}).values())

        fixed = clients[name].address if name in clients else None
        address = fixed if fixed is not None and not is_used(fixed) else None
        if address is None and fixed is None:
            had = self._had.get(name)
            if had is not None and not is_used(had) and choice.offers(had):
                address = had
        if address is None:
            address = choice.next_address(self._owners, self._users)
        if address is None:
            return None
        self._used[handle] = address, name
        self._users.setdefault(address, {})[handle] = name
        choice.note_taken(address)
        if address != fixed:
            self._note(name, address)
        return address

    def release(self, handle: PeerHandle) -> None:
        """The session is over. Harmless for one without an address."""
        address, _ = self._used.pop(handle, (None, ""))
        if address is None:
            return
        users = self._users[address]
        del users[handle]
        if not users:
            del self._users[address]
            self._note_unused(address)

    def _choice_of(self, pool: AddressPool, clients: Mapping[str, Client]) -> FreeAddresses:
        if self._choice is None or not self._choice.is_of(pool, clients):
            self._choice = FreeAddresses(pool, clients)
            for address in self._owners:
                if address not in self._users:
                    self._choice.note_left(address)
        return self._choice

    def _note_unused(self, address: IPv4Address) -> None:
        if self._choice is None:
            return
        if address in self._owners:
            self._choice.note_left(address)
        else:
            self._choice.note_free(address)

    def _note(self, name: str, address: IPv4Address) -> None:
        is_known = self._had.get(name) == address
        self._place(name, address)
        if not is_known:
            with suppress(OSError):
                self._file.add(_line(address, name), lambda: itertools.starmap(_line, self._owners.items()))

    def _place(self, name: str, address: IPv4Address) -> None:
        before = self._owners.pop(address, None)
        if before is not None and before != name:
            self._had.pop(before, None)
        old = self._had.pop(name, None)
        self._had[name] = address
        self._owners[address] = name
        if old is not None and old != address:
            self._disown(old)
        while len(self._had) > NAMES_MAX:
            self._disown(self._had.pop(next(iter(self._had))))

    def _disown(self, address: IPv4Address) -> None:
        self._owners.pop(address, None)
        if address not in self._users:
            self._note_unused(address)

    def _load(self) -> None:
        if self._is_loaded:
            return
        self._is_loaded = True
        with suppress(OSError):
            for line in self._file.read():
                address, _, name = line.partition(" ")
                with suppress(ValueError):
                    if name:
                        self._place(name, IPv4Address(address))


class FreeAddresses:
    """Which address of a pool is the next for somebody new. The pool and fixed addresses never change."""

    def __init__(self, pool: AddressPool, clients: Mapping[str, Client]) -> None:
        self._pool = pool
        self._clients = clients
        self._fixed = {one.address for one in clients.values() if one.address is not None}
        self._unseen = _addresses(pool)
        self._returned: list[IPv4Address] = []
        """A heap. Some may have got an owner meanwhile."""
        self._left: dict[IPv4Address, None] = {}
        """Those with an owner who is not here, the one longest gone first."""

    def is_of(self, pool: AddressPool, clients: Mapping[str, Client]) -> bool:
        return self._clients is clients and self._pool == pool

    def offers(self, address: IPv4Address) -> bool:
        """It is in the pool, and nobody's fixed address."""
        return _is_in(self._pool, address) and address not in self._fixed

    def note_free(self, address: IPv4Address) -> None:
        """It has no owner and no user any more."""
        self._left.pop(address, None)
        if self.offers(address):
            heappush(self._returned, address)

    def note_left(self, address: IPv4Address) -> None:
        """Its owner went away."""
        self._left.pop(address, None)
        if self.offers(address):
            self._left[address] = None

    def note_taken(self, address: IPv4Address) -> None:
        self._left.pop(address, None)

    def next_address(
        self, owners: Container[IPv4Address], users: Container[IPv4Address]
    ) -> IPv4Address | None:
        """A free address that nobody had, else that of the owner who was here longest ago."""

        def is_free(address: IPv4Address) -> bool:
            return self.offers(address) and address not in owners and address not in users

        while self._returned:
            address = heappop(self._returned)
            if is_free(address):
                return address
        # What is passed over here comes back by `note_free`.
        found = next((address for address in self._unseen if is_free(address)), None)
        return found or next(iter(self._left), None)


def _line(address: IPv4Address, name: str) -> str:
    return f"{address} {name}"


def _addresses(pool: AddressPool) -> Iterator[IPv4Address]:
    first, last = int(pool.first or 0), int(pool.last or 0)
    return (IPv4Address(number) for number in range(first, last + 1))


def _is_in(pool: AddressPool, address: IPv4Address) -> bool:
    return int(pool.first or 0) <= int(address) <= int(pool.last or 0)
