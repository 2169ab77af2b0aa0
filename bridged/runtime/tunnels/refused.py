"""Peers that were refused recently, and why: for the log and for `bridged status`.

Pure: callers pass the Unix time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from bridged.addresses import Endpoint
from bridged.protocol.packets.packet import HEADER_LENGTH
from bridged.protocol.strangers.stranger import STATIC_KEY, Stranger
from bridged.runtime.snapshot import RefusedStatus
from bridged.units import UnixSeconds

REFUSED_MAX: Final = 32
"""Entries that are remembered; the one that was silent longest is dropped first."""
SHOWN_SECONDS: Final = 3600.0
_CERTAIN_AFTER: Final = 2
_CERTAIN_AFTER_STATIC: Final = 3
"""Packets after which a guess is reported: one packet may look strange because of noise on the line."""


@dataclass(slots=True)
class _Refused:
    endpoint: Endpoint
    code: str
    detail: str
    times: int = 0
    last_seen: UnixSeconds = UnixSeconds(0.0)
    said: int = 0
    fronts: set[bytes] = field(default_factory=set)


class RefusedPeers:
    """Bounded. Counts by address, reason and detail, whatever the port."""

    def __init__(self) -> None:
        self._entries: dict[tuple[str, str, str], _Refused] = {}

    def note_stranger(
        self, source: Endpoint, stranger: Stranger, datagram: bytes, now: UnixSeconds
    ) -> RefusedStatus | None:
        """Note a packet that could not be opened. Returns what to log, at 2, 20, 200 … packets."""
        entry = self._note(source, stranger.code, stranger.advice, now)
        least = _CERTAIN_AFTER
        if stranger.code == STATIC_KEY:
            least = _CERTAIN_AFTER_STATIC
            if len(entry.fronts) < least:
                entry.fronts.add(datagram[:HEADER_LENGTH])
            if len(entry.fronts) < least:
                # A sender that speaks TLS begins each packet with the same session id.
                return None
        if entry.times < max(least, entry.said * 10):
            return None
        entry.said = entry.times
        return _status(entry)

    def note_handshake(self, source: Endpoint, code: str, detail: str, now: UnixSeconds) -> None:
        """Note a handshake that failed because of the peer's identity or configuration."""
        self._note(source, code, detail, now).said = 1

    def note_refusal(
        self, source: Endpoint, code: str, detail: str, now: UnixSeconds
    ) -> RefusedStatus | None:
        """Note a packet of somebody who is refused. Returns what to log, at 1, 10, 100 … packets."""
        entry = self._note(source, code, detail, now)
        if entry.times < entry.said * 10:
            return None
        entry.said = entry.times
        return _status(entry)

    def forget(self, source: Endpoint) -> None:
        """A peer from there connected."""
        for key in [key for key in self._entries if key[0] == source.host]:
            del self._entries[key]

    def statuses(self, now: UnixSeconds) -> tuple[RefusedStatus, ...]:
        """The certain ones of the last hour, newest first."""
        entries = [entry for entry in self._entries.values() if entry.said]
        return tuple(_status(entry) for entry in reversed(entries) if now - entry.last_seen <= SHOWN_SECONDS)

    def _note(self, source: Endpoint, code: str, detail: str, now: UnixSeconds) -> _Refused:
        key = (source.host, code, detail)
        entry = self._entries.pop(key, None)
        if entry is None:
            if len(self._entries) >= REFUSED_MAX:
                del self._entries[next(iter(self._entries))]
            entry = _Refused(source, code, detail)
        # In order of the last packet.
        self._entries[key] = entry
        entry.endpoint, entry.last_seen = source, now
        entry.times += 1
        return entry


def _status(entry: _Refused) -> RefusedStatus:
    return RefusedStatus(str(entry.endpoint), entry.code, entry.detail, entry.times, entry.last_seen)
