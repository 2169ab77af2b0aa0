"""Limits TCP connections that have proved nothing: in all, and in equal shares of networks.

Source: docs/decisions/0087. No sockets, no clock; callers pass `now` (monotonic seconds). Each step costs the
same, however many connections there are: a flood must not slow down whoever counts it.
"""

from __future__ import annotations

from typing import Final, Generic, Protocol, TypeVar

from bridged.addresses import network_of

CONNECTIONS_MAX: Final = 2048
"""Connections whose peer has not shown its certificate yet: as many as the waiting room takes."""


class CountedConnection(Protocol):
    """Hashable. Its endpoint identifies it only while no other one comes from there."""

    @property
    def host(self) -> str:
        """Address it comes from."""


Key = TypeVar("Key", bound=CountedConnection)


class ConnectionShares(Generic[Key]):
    """Connections, `capacity` at most.

    When all places are taken, the oldest connection of a network (/24, IPv6 /64) that has most gives way.
    """

    def __init__(self, capacity: int = CONNECTIONS_MAX) -> None:
        self.capacity = capacity
        self._since: dict[Key, float] = {}
        self._networks: dict[bytes, dict[Key, None]] = {}
        self._by_size: dict[int, dict[bytes, None]] = {}
        """Networks by the number of their connections."""
        self._largest = 0

    def __len__(self) -> int:
        return len(self._since)

    def __contains__(self, connection: Key) -> bool:
        return connection in self._since

    def enter(self, connection: Key, now: float) -> Key | None:
        """Take a connection in; returns the one that gives way."""
        self.leave(connection)
        self._since[connection] = now
        network = network_of(connection.host)
        connections = self._networks.setdefault(network, {})
        connections[connection] = None
        self._move(network, len(connections) - 1, len(connections))
        if len(self._since) <= self.capacity:
            return None
        heaviest = next(iter(self._by_size[self._largest]))
        oldest = next(iter(self._networks[heaviest]))
        self.leave(oldest)
        return oldest

    def leave(self, connection: Key) -> None:
        """It has proved who it is, or has ended. Harmless for one that is not here."""
        if self._since.pop(connection, None) is None:
            return
        network = network_of(connection.host)
        connections = self._networks[network]
        del connections[connection]
        self._move(network, len(connections) + 1, len(connections))
        if not connections:
            del self._networks[network]

    def older_than(self, moment: float) -> list[Key]:
        """Connections that came before, oldest first."""
        found = []
        for connection, since in self._since.items():
            if since >= moment:
                break
            found.append(connection)
        return found

    def _move(self, network: bytes, before: int, after: int) -> None:
        """A network has another number of connections, by one."""
        if before:
            networks = self._by_size[before]
            del networks[network]
            if not networks:
                del self._by_size[before]
        if after:
            self._by_size.setdefault(after, {})[network] = None
        if after > self._largest or self._largest not in self._by_size:
            self._largest = after
