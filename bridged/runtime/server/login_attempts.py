"""Bounds the guessing of passwords: by where attempts come from, and by the name they try.

No sockets, no clock: callers pass `now` (monotonic seconds).
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from bridged.addresses import network_of

SOURCE_FAILURES: Final = 5
SOURCE_SECONDS: Final = 12.0
"""A source may fail SOURCE_FAILURES times at once, and once more each time this has passed."""
NAME_FAILURES: Final = 10
NAME_SECONDS: Final = 30.0
KEYS_MAX: Final = 4096
WELCOME_MAX: Final = 4096


class _Buckets:
    """Failures that still count, by key; the key that failed longest ago is forgotten first."""

    def __init__(self, failures: int, seconds: float) -> None:
        self._failures = failures
        self._seconds = seconds
        self._full_until: OrderedDict[str, float] = OrderedDict()

    def wait(self, key: str, now: float) -> float:
        """Seconds until one more attempt is allowed."""
        return max(0.0, self._full_until.get(key, now) - now - (self._failures - 1) * self._seconds)

    def fail(self, key: str, now: float) -> None:
        self._full_until[key] = max(self._full_until.pop(key, now), now) + self._seconds
        while len(self._full_until) > KEYS_MAX:
            self._full_until.popitem(last=False)


class LoginAttempts:
    """Counts failed logins of one tunnel.

    A name that is under attack stays open to sources from which it has logged in before.
    """

    def __init__(self) -> None:
        self._sources = _Buckets(SOURCE_FAILURES, SOURCE_SECONDS)
        self._names = _Buckets(NAME_FAILURES, NAME_SECONDS)
        self._welcome: OrderedDict[tuple[str, str], None] = OrderedDict()

    def wait(self, host: str, name: str, now: float) -> float:
        """Seconds until this source may try this name; 0: now."""
        source = source_of(host)
        of_name = 0.0 if (source, name) in self._welcome else self._names.wait(name, now)
        return max(self._sources.wait(source, now), of_name)

    def note_failure(self, host: str, name: str, now: float) -> None:
        self._sources.fail(source_of(host), now)
        self._names.fail(name, now)

    def note_success(self, host: str, name: str) -> None:
        """Only the name's own failures of this source are forgiven: others may share the address."""
        self._welcome[source_of(host), name] = None
        self._welcome.move_to_end((source_of(host), name))
        while len(self._welcome) > WELCOME_MAX:
            self._welcome.popitem(last=False)


def source_of(host: str) -> str:
    """An IPv4 address, or an IPv6 network, of which one customer has all addresses."""
    return network_of(host).hex() if ":" in host else host
