"""The links of one tunnel. Finding one costs the same among thousands as among few."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping, ValuesView
from typing import Final, TypeVar

from bridged.addresses import Endpoint
from bridged.runtime.tunnels.link import PeerLink
from bridged.units import MonotonicSeconds, PeerHandle

DUE_PER_TURN: Final = 64
"""Sessions that one turn of the timer serves. Others wait for the next turn, after new packets."""
_STALE_ENTRIES_MIN: Final = 64
_NEVER: Final = MonotonicSeconds(float("inf"))

_Key = TypeVar("_Key")
_Links = dict[PeerHandle, PeerLink]


class LinkTable(Mapping[PeerHandle, PeerLink]):
    """Links by handle, oldest first. Only `move` and `rename` may change a link's endpoint and name.

    Call `schedule` whenever the deadline of a link's session may have changed.
    """

    def __init__(self) -> None:
        self._links: _Links = {}
        self._by_endpoint: dict[Endpoint, _Links] = {}
        self._by_name: dict[str, _Links] = {}
        self._due: dict[PeerHandle, float] = {}
        self._heap: list[tuple[float, PeerHandle]] = []

    def __getitem__(self, handle: PeerHandle) -> PeerLink:
        return self._links[handle]

    def __iter__(self) -> Iterator[PeerHandle]:
        return iter(self._links)

    def __len__(self) -> int:
        return len(self._links)

    def values(self) -> ValuesView[PeerLink]:
        """A list of them can be made in any thread while links come and go."""
        return self._links.values()

    # --- changes ----------------------------------------------------------------------------------

    def add(self, link: PeerLink) -> None:
        self._links[link.handle] = link
        _put(self._by_endpoint, link.endpoint, link)
        _put(self._by_name, link.name, link)
        self.schedule(link)

    def discard(self, link: PeerLink) -> None:
        """Forget a link. Harmless if it is not here."""
        if self._links.pop(link.handle, None) is None:
            return
        _take(self._by_endpoint, link.endpoint, link)
        _take(self._by_name, link.name, link)
        self._due.pop(link.handle, None)
        self._tidy()

    def move(self, link: PeerLink, endpoint: Endpoint) -> None:
        _take(self._by_endpoint, link.endpoint, link)
        link.endpoint = endpoint
        if link.handle in self._links:
            _put(self._by_endpoint, endpoint, link)

    def rename(self, link: PeerLink, name: str) -> None:
        _take(self._by_name, link.name, link)
        link.name = name
        if link.handle in self._links:
            _put(self._by_name, name, link)

    # --- look-ups ---------------------------------------------------------------------------------

    def at(self, endpoint: Endpoint) -> list[PeerLink]:
        """Links whose peer is at `endpoint`, oldest first."""
        return list(self._by_endpoint.get(endpoint, {}).values())

    def named(self, name: str) -> list[PeerLink]:
        """Links whose peer has proved to be `name`, oldest first; none for an empty name."""
        return list(self._by_name.get(name, {}).values()) if name else []

    def name_of(self, handle: PeerHandle | None) -> str:
        """The peer's name, for people; `local` where there is no such link."""
        link = self._links.get(handle) if handle is not None else None
        return link.name if link is not None else "local"

    # --- deadlines --------------------------------------------------------------------------------

    def schedule(self, link: PeerLink) -> None:
        """Note the next deadline of this link's session."""
        if link.handle not in self._links:
            return
        deadline = link.session.poll_timeout()
        at = deadline.at if deadline is not None else _NEVER
        if self._due.get(link.handle) == at:
            return
        self._due[link.handle] = at
        if at != _NEVER:
            heapq.heappush(self._heap, (at, link.handle))
        self._tidy()

    def next_deadline(self) -> float:
        """The earliest deadline in monotonic seconds; infinite if there is none."""
        while self._heap and self._is_stale(self._heap[0]):
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else _NEVER

    def take_due(self, now: float, limit: int = DUE_PER_TURN) -> list[PeerLink]:
        """Up to `limit` links that are due, earliest first. `schedule` each after it was served."""
        due: list[PeerLink] = []
        while len(due) < limit and self.next_deadline() <= now:
            _, handle = heapq.heappop(self._heap)
            del self._due[handle]
            due.append(self._links[handle])
        return due

    def _is_stale(self, entry: tuple[float, PeerHandle]) -> bool:
        at, handle = entry
        return self._due.get(handle) != at

    def _tidy(self) -> None:
        """Moved deadlines leave stale entries: drop them once they outnumber the valid ones."""
        if len(self._heap) > _STALE_ENTRIES_MIN + 2 * len(self._links):
            self._heap = [(at, handle) for handle, at in self._due.items() if at != _NEVER]
            heapq.heapify(self._heap)


def _put(index: dict[_Key, _Links], key: _Key, link: PeerLink) -> None:
    index.setdefault(key, {})[link.handle] = link


def _take(index: dict[_Key, _Links], key: _Key, link: PeerLink) -> None:
    found = index.get(key)
    if found is not None and found.pop(link.handle, None) is not None and not found:
        del index[key]


def newest(links: Iterable[PeerLink]) -> PeerLink | None:
    """The link that was made last."""
    return max(links, key=lambda link: link.handle, default=None)
