"""Decides whom a client calls next, and when: remotes in order, both IP families of each side by side.

Source: RFC 8305, section 5; docs/decisions/0043.
Pure: callers pass `now` (monotonic seconds).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Final

from bridged.addresses import Endpoint, Remote

NEXT_ADDRESS_SECONDS: Final = 0.25
"""How long an address has to answer before the next address of the same remote is called."""
NEXT_REMOTE_SECONDS: Final = 3.0
"""How long a remote has to answer before the next remote is called."""
ROUND_SECONDS: Final = 1.0
"""Shortest duration of a round, however quickly all servers refuse."""
ADDRESSES_MAX: Final = 16
"""Limit for each remote: a name server decides how many there are."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One address of one remote."""

    remote: Remote
    endpoint: Endpoint


@dataclass(slots=True)
class _Called:
    at: float
    is_refused: bool = False


class RemoteOrder:
    """The order of calls, in rounds.

    `begin` a round, take `next` until it returns None, and come back at `deadline`. Report what you learn
    with `set_addresses`, `note_no_name`, `refuse`, `forget` and `skip`. When the round `is_over`, begin the
    next. `shuffle`: draws the order of each round anew; what worked last still comes first.
    """

    def __init__(
        self, remotes: Iterable[Remote], shuffle: Callable[[list[Remote]], None] | None = None
    ) -> None:
        self._remotes = list(remotes)
        self._shuffle = shuffle
        self._known: dict[Remote, list[Endpoint]] = {
            remote: [remote.server] for remote in self._remotes if remote.server.is_numeric
        }
        self._nameless: set[Remote] = set()
        self._best: Candidate | None = None
        self._began = 0.0
        self._turns: dict[Remote, float] = {}
        self._called: dict[Endpoint, _Called] = {}
        self._skipped: set[Remote] = set()

    # --- what is known ----------------------------------------------------------------------------

    def set_addresses(self, remote: Remote, found: Iterable[Endpoint]) -> bool:
        """The result of a look-up. True where an address is new; it is called in the present round."""
        before = self._known.get(remote, [])
        now_known = _alternating(found)[:ADDRESSES_MAX]
        self._known[remote] = now_known
        self._nameless.discard(remote)
        return not set(now_known) <= set(before)

    def note_no_name(self, remote: Remote) -> None:
        """The look-up failed. Addresses that were found before stay."""
        if remote not in self._known:
            self._nameless.add(remote)

    def prefer(self, best: Candidate) -> None:
        """This one worked: it comes first from the next round on."""
        self._best = best
        self._put_best_first()

    def addresses(self) -> set[Endpoint]:
        """All known addresses."""
        return set(chain.from_iterable(self._known.values()))

    @property
    def is_resolving(self) -> bool:
        """No address is known yet."""
        return not any(self._known.values())

    # --- a round ----------------------------------------------------------------------------------

    def begin(self, now: float) -> None:
        """Begin a new round: every server may be called again."""
        self._began = now
        self._turns.clear()
        self._called.clear()
        self._skipped.clear()
        if self._shuffle is not None:
            self._shuffle(self._remotes)
            self._put_best_first()

    def resume(self, at: float) -> None:
        """The round goes on at `at`, after a pause, with those who have not refused in it."""
        self._began = at
        self._turns.clear()
        self._called = {endpoint: called for endpoint, called in self._called.items() if called.is_refused}

    def next(self, now: float) -> Candidate | None:
        """Whom to call now; it then counts as called. None: nobody yet."""
        candidate, _, _ = self._look(now)
        if candidate is not None:
            self._called[candidate.endpoint] = _Called(now)
        return candidate

    def deadline(self, now: float) -> float:
        """When `next` or `is_over` may change, if nothing is reported before."""
        return self._look(now)[1]

    def is_over(self, now: float) -> bool:
        """Whether every server was called and had its time to answer."""
        candidate, deadline, is_complete = self._look(now)
        return candidate is None and is_complete and now >= deadline

    def refuse(self, endpoint: Endpoint) -> None:
        """Expect nothing from there in this round: the next one may be called at once."""
        called = self._called.get(endpoint)
        if called is not None:
            called.is_refused = True

    def pass_over(self, endpoint: Endpoint) -> None:
        """Do not call this address in this round."""
        self._called[endpoint] = _Called(self._began, is_refused=True)

    def forget(self, endpoint: Endpoint) -> None:
        """It was called but given up for another one, and may be called again in this round."""
        self._called.pop(endpoint, None)

    def skip(self, remote: Remote) -> None:
        """Call no further address of this remote in this round."""
        self._skipped.add(remote)

    def _look(self, now: float) -> tuple[Candidate | None, float, bool]:
        """(whom to call now, when to look again, whether all were called)."""
        due = self._began + ROUND_SECONDS
        may_begin = self._began
        for remote in self._remotes:
            if remote in self._skipped or remote in self._nameless:
                continue
            if remote not in self._turns:
                if may_begin > now:
                    return None, may_begin, False
                self._turns[remote] = now
            turn_ends = self._turns[remote] + NEXT_REMOTE_SECONDS
            found = self._known.get(remote)
            waits = found is None
            earliest = self._began
            for endpoint in self._in_order(remote, found or []):
                called = self._called.get(endpoint)
                if called is None:
                    if earliest > now:
                        return None, earliest, False
                    return Candidate(remote, endpoint), now, False
                if not called.is_refused:
                    waits = True
                    earliest = max(earliest, called.at + NEXT_ADDRESS_SECONDS)
            if waits:
                may_begin = max(may_begin, turn_ends, earliest)
                due = max(due, may_begin)
        return None, due, True

    def _put_best_first(self) -> None:
        if self._best is not None and self._best.remote in self._remotes:
            self._remotes.remove(self._best.remote)
            self._remotes.insert(0, self._best.remote)

    def _in_order(self, remote: Remote, found: list[Endpoint]) -> list[Endpoint]:
        best = self._best
        if best is None or best.remote != remote or best.endpoint not in found:
            return found
        return [best.endpoint, *(endpoint for endpoint in found if endpoint != best.endpoint)]


def _alternating(found: Iterable[Endpoint]) -> list[Endpoint]:
    """Alternate between the families, beginning with the first one's; otherwise in the resolver's order."""
    every = list(dict.fromkeys(found))
    if not every:
        return []
    same = [endpoint for endpoint in every if endpoint.is_ipv6 == every[0].is_ipv6]
    other = [endpoint for endpoint in every if endpoint.is_ipv6 != every[0].is_ipv6]
    pairs = chain.from_iterable(zip_longest(same, other))
    return [endpoint for endpoint in pairs if endpoint is not None]
