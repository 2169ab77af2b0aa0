"""Limits unfinished handshakes: a waiting room for clients that returned a cookie, and their places.

Source: docs/decisions/0034.
No sockets, no clock; callers pass `now` (monotonic seconds). Hosts, and networks (/24, IPv6 /64), get equal
shares.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Final

from bridged.addresses import Endpoint, network_of
from bridged.errors import RemoteProtocolError
from bridged.protocol.packets.wrap import OpenedControl
from bridged.protocol.session.states import Proof
from bridged.protocol.strangers.listener import NewSession
from bridged.units import PeerHandle

PLACES: Final = 256
"""Sessions in a handshake whose peer has not shown its certificate yet."""
WAITING_MAX: Final = 2048
WAITING_SECONDS: Final = 10.0
"""A client repeats its first packet several times in that time."""
PACKETS_EACH: Final = 3
"""A ClientHello with a post-quantum key share takes two."""
SAMPLES: Final = 8

STALLED_SECONDS: Final = {Proof.COOKIE: 2.0, Proof.TLS: 5.0, Proof.CERTIFICATE: 15.0}
"""A handshake without progress for this long gives its place to anybody who waits.

With a certificate a client keeps no place; where none is asked for, until its password is checked."""
IDLE_SECONDS: Final = 1.0
"""Without progress for this long, it gives its place to a host or network with less than half as many."""
LONGEST_SECONDS: Final = {Proof.COOKIE: 10.0, Proof.TLS: 30.0, Proof.CERTIFICATE: 60.0}
"""A handshake unfinished after this long gives its place to anybody who waits, even while it progresses."""
GREEDY_SECONDS: Final = 5.0
"""Unfinished after this long, it gives its place to a host or network with less than half as many."""

NewcomerKey = tuple[Endpoint, bytes]


@dataclass(slots=True)
class Newcomer:
    """A client that returned its cookie. `packets`, by message id: what its session will begin with."""

    source: Endpoint
    cookie: bytes
    remote_session_id: bytes
    since: float
    first: OpenedControl
    packets: dict[int, OpenedControl] = field(default_factory=dict)

    @property
    def key(self) -> NewcomerKey:
        return self.source, self.remote_session_id

    @property
    def is_ready(self) -> bool:
        """It has sent TLS data. An acknowledgement alone gets no place."""
        return 1 in self.packets

    def opened(self) -> list[OpenedControl]:
        """Its packets in the order in which a session takes them."""
        return [self.packets[number] for number in sorted(self.packets)] or [self.first]


class WaitingRoom:
    """Newcomers that wait for a place. Networks take turns, within each its hosts: first come, first served.

    Holds WAITING_MAX newcomers for WAITING_SECONDS each. When full, it looks at SAMPLES of them, drawn by
    `draw` (a number below its argument). One that cannot begin yet gives way, or one whose network or host
    has more than the newcomer's. Otherwise the newcomer is refused, and repeats its packet later.
    """

    def __init__(self, draw: Callable[[int], int]) -> None:
        self._draw = draw
        self._all: dict[NewcomerKey, Newcomer] = {}
        self._keys: list[NewcomerKey] = []
        self._index: dict[NewcomerKey, int] = {}
        self._shares: Counter[Hashable] = Counter()
        self._ready: dict[bytes, dict[str, dict[NewcomerKey, Newcomer]]] = {}

    def __len__(self) -> int:
        return len(self._all)

    @property
    def has_ready(self) -> bool:
        return bool(self._ready)

    def cookie_of(self, source: Endpoint, remote_session_id: bytes) -> bytes | None:
        """The cookie of this client, if it waits."""
        newcomer = self._all.get((source, remote_session_id))
        return newcomer.cookie if newcomer is not None else None

    def take_in(self, made: NewSession, source: Endpoint, now: float) -> None:
        """One more packet of a client whose cookie is good.

        Raises:
            RemoteProtocolError: `peer_limit`, no room.
        """
        self.expire(now)
        newcomer = self._all.get((source, made.remote_session_id))
        if newcomer is None:
            newcomer = Newcomer(source, made.local_session_id, made.remote_session_id, now, made.opened)
            self._make_room(newcomer)
            self._add(newcomer)
        if made.message_id is None or len(newcomer.packets) >= PACKETS_EACH:
            return
        newcomer.packets.setdefault(made.message_id, made.opened)
        if newcomer.is_ready:
            hosts = self._ready.setdefault(network_of(source.host), {})
            hosts.setdefault(source.host, {}).setdefault(newcomer.key, newcomer)

    def first(self) -> Newcomer | None:
        """The newcomer whose turn it is."""
        for hosts in self._ready.values():
            for newcomers in hosts.values():
                return next(iter(newcomers.values()))
        return None

    def remove(self, newcomer: Newcomer) -> None:
        """It has a place, or gave up. Its host and its network go to the end of their queues."""
        key = newcomer.key
        if self._all.pop(key, None) is None:
            return
        place, last = self._index.pop(key), self._keys.pop()
        if last != key:
            self._keys[place] = last
            self._index[last] = place
        network = network_of(newcomer.source.host)
        for share in (newcomer.source.host, network):
            self._shares[share] -= 1
            if not self._shares[share]:
                del self._shares[share]
        hosts = self._ready.pop(network, None)
        if hosts is None:
            return
        newcomers = hosts.pop(newcomer.source.host, None)
        if newcomers is not None:
            newcomers.pop(key, None)
            if newcomers:
                hosts[newcomer.source.host] = newcomers
        if hosts:
            self._ready[network] = hosts

    def expire(self, now: float) -> None:
        """Forget those that have waited for WAITING_SECONDS."""
        while self._all:
            oldest = next(iter(self._all.values()))
            if now - oldest.since < WAITING_SECONDS:
                return
            self.remove(oldest)

    def _add(self, newcomer: Newcomer) -> None:
        self._all[newcomer.key] = newcomer
        self._index[newcomer.key] = len(self._keys)
        self._keys.append(newcomer.key)
        for share in (newcomer.source.host, network_of(newcomer.source.host)):
            self._shares[share] += 1

    def _make_room(self, newcomer: Newcomer) -> None:
        if len(self._all) < WAITING_MAX:
            return
        drawn = [self._all[self._keys[self._draw(len(self._keys))]] for _ in range(SAMPLES)]
        heaviest = max(drawn, key=lambda other: (not other.is_ready, *self._weight(other.source)))
        pairs = zip(self._weight(heaviest.source), self._weight(newcomer.source), strict=True)
        if heaviest.is_ready and not any(theirs > ours + 1 for theirs, ours in pairs):
            raise RemoteProtocolError("peer_limit", "too many clients wait for their handshake")
        self.remove(heaviest)

    def _weight(self, source: Endpoint) -> tuple[int, int]:
        return self._shares[network_of(source.host)], self._shares[source.host]


@dataclass(slots=True)
class _Place:
    host: str
    network: bytes
    proof: Proof
    progress: int
    moved_at: float
    since: float


class Places:
    """Unfinished sessions, PLACES at most. A session leaves when its certificate is known.

    A session that progresses keeps its place. When all are taken, one that stalls (STALLED_SECONDS) or takes
    too long in total (LONGEST_SECONDS) gives way. Where its host or network has more than twice as many as
    the newcomer's, the shorter limits IDLE_SECONDS and GREEDY_SECONDS apply.
    """

    def __init__(self, capacity: int = PLACES) -> None:
        self.capacity = capacity
        self._places: dict[PeerHandle, _Place] = {}
        self._shares: Counter[Hashable] = Counter()

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, handle: PeerHandle) -> bool:
        return handle in self._places

    @property
    def has_room(self) -> bool:
        return len(self._places) < self.capacity

    def enter(self, handle: PeerHandle, source: Endpoint, now: float) -> None:
        place = _Place(source.host, network_of(source.host), Proof.COOKIE, 0, now, now)
        self._places[handle] = place
        self._shares[place.host] += 1
        self._shares[place.network] += 1

    def note(self, handle: PeerHandle, proof: Proof, progress: int, now: float) -> None:
        """How far this session is; `progress` grows with each packet that advances it."""
        place = self._places.get(handle)
        if place is not None and (proof, progress) > (place.proof, place.progress):
            place.proof, place.progress, place.moved_at = proof, progress, now

    def leave(self, handle: PeerHandle) -> None:
        """Harmless for a session without a place."""
        place = self._places.pop(handle, None)
        if place is None:
            return
        for share in (place.host, place.network):
            self._shares[share] -= 1
            if not self._shares[share]:
                del self._shares[share]

    def who_gives_way(self, source: Endpoint, now: float) -> PeerHandle | None:
        """Which session gives its place to a newcomer from `source`; None: all keep theirs."""
        host, network = 2 * self._shares[source.host] + 1, 2 * self._shares[network_of(source.host)] + 1
        best: tuple[tuple[Proof, float], PeerHandle] | None = None
        for handle, place in self._places.items():
            idle, age = now - place.moved_at, now - place.since
            is_greedy = self._shares[place.host] > host or self._shares[place.network] > network
            stalled = IDLE_SECONDS if is_greedy else STALLED_SECONDS[place.proof]
            if idle < stalled and age < (GREEDY_SECONDS if is_greedy else LONGEST_SECONDS[place.proof]):
                continue
            rank = (place.proof, place.moved_at)
            if best is None or rank < best[0]:
                best = rank, handle
        return best[1] if best is not None else None


UNFINISHED_PER_CERTIFICATE: Final = 2
"""Sessions of one certificate that are not established yet."""
UNFINISHED_PER_SHARED_CERTIFICATE: Final = 128
"""The same where peers may share one (`duplicate_names`), but at most half of the peer limit."""


class CertificateShares:
    """Unfinished sessions by certificate. One that begins too many ends its own oldest, nobody else's."""

    def __init__(self) -> None:
        self._by_certificate: dict[str, dict[PeerHandle, None]] = {}
        self._certificates: dict[PeerHandle, str] = {}

    def __len__(self) -> int:
        return len(self._certificates)

    def enter(self, fingerprint: str, handle: PeerHandle, shared: int = 0) -> list[PeerHandle]:
        """Returns the sessions that must end. `shared`: the peer limit if peers may share one, else 0."""
        unfinished = self._by_certificate.setdefault(fingerprint, {})
        unfinished[handle] = None
        self._certificates[handle] = fingerprint
        limit = max(UNFINISHED_PER_CERTIFICATE, min(UNFINISHED_PER_SHARED_CERTIFICATE, shared // 2))
        too_many = list(unfinished)[: max(0, len(unfinished) - limit)]
        for oldest in too_many:
            self.leave(oldest)
        return too_many

    def leave(self, handle: PeerHandle) -> None:
        """It is established or over. Harmless where it never entered."""
        fingerprint = self._certificates.pop(handle, None)
        if fingerprint is None:
            return
        unfinished = self._by_certificate[fingerprint]
        del unfinished[handle]
        if not unfinished:
            del self._by_certificate[fingerprint]
