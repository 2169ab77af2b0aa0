"""Which client has which address of a server's pool, kept across restarts.

Source: docs/protocol/control.md#6-1 (bridging). Blocking: writes a small file when an address is given for
the first time. Nothing depends on the file: without it clients get other addresses.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final

from bridged.configuration.access import AddressPool, Client
from bridged.files import open_to_read, write_atomic
from bridged.units import PeerHandle

NAMES_MAX: Final = 65_536
FILE_OCTETS_MAX: Final = 8 * 1024 * 1024


class AddressBook:
    """The addresses of one tunnel. Each line of the file is `ADDRESS NAME`, the one given last at the end.

    A client gets its fixed address, else the one it had, else a free one that nobody had, else the one whose
    owner was here longest ago. `path` None: nothing is kept.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._had: dict[str, IPv4Address] = {}
        self._owners: dict[IPv4Address, str] = {}
        self._used: dict[PeerHandle, tuple[IPv4Address, str]] = {}
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
        used = {address for address, owner in self._used.values() if shares_name or owner != name}
        fixed = clients[name].address if name in clients else None
        reserved = {one.address for key, one in clients.items() if one.address is not None and key != name}
        address = fixed if fixed is not None and fixed not in used else None
        if address is None and fixed is None:
            had = self._had.get(name)
            if had is not None and had not in used and had not in reserved and _is_in(pool, had):
                address = had
        if address is None:
            address = self._free(pool, used | reserved)
        if address is None:
            return None
        self._used[handle] = address, name
        if address != fixed:
            self._note(name, address)
        return address

    def release(self, handle: PeerHandle) -> None:
        """The session is over. Harmless for one without an address."""
        self._used.pop(handle, None)

    def _free(self, pool: AddressPool, taken: set[IPv4Address]) -> IPv4Address | None:
        for address in _addresses(pool):
            if address not in taken and address not in self._owners:
                return address
        return next((one for one in self._owners if one not in taken and _is_in(pool, one)), None)

    def _note(self, name: str, address: IPv4Address) -> None:
        is_known = self._had.get(name) == address
        before = self._owners.pop(address, None)
        if before is not None and before != name:
            self._had.pop(before, None)
        old = self._had.pop(name, None)
        if old is not None and old != address:
            self._owners.pop(old, None)
        self._had[name] = address
        self._owners[address] = name
        while len(self._had) > NAMES_MAX:
            gone = next(iter(self._had))
            self._owners.pop(self._had.pop(gone), None)
        if not is_known:
            self._save()

    def _load(self) -> None:
        if self._is_loaded:
            return
        self._is_loaded = True
        if self._path is None:
            return
        with suppress(OSError):
            with open_to_read(self._path) as stream:
                text = stream.read(FILE_OCTETS_MAX).decode("utf-8", "replace")
            for line in text.splitlines()[-NAMES_MAX:]:
                address, _, name = line.partition(" ")
                with suppress(ValueError):
                    if name and name not in self._had:
                        self._had[name] = IPv4Address(address)
                        self._owners[self._had[name]] = name

    def _save(self) -> None:
        if self._path is None:
            return
        lines = "".join(f"{address} {name}\n" for address, name in self._owners.items())
        with suppress(OSError):
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomic(self._path, lines.encode(), durable=False)


def _addresses(pool: AddressPool) -> Iterable[IPv4Address]:
    first, last = int(pool.first or 0), int(pool.last or 0)
    return (IPv4Address(number) for number in range(first, last + 1))


def _is_in(pool: AddressPool, address: IPv4Address) -> bool:
    return int(pool.first or 0) <= int(address) <= int(pool.last or 0)
