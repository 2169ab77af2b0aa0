"""Wrap keys of strangers that brought one along, for packets that follow without it.

Source: docs/protocol/control.md#2-5: OpenVPN 2.5 sends its key only once; docs/decisions/0100.
Pure: callers pass `now` (monotonic seconds).
"""

from __future__ import annotations

from typing import Final

from bridged.addresses import Endpoint
from bridged.protocol.packets.wrap import WrapKeys

KEYS_MAX: Final = 2048
KEY_SECONDS: Final = 60.0


class KeyMemory:
    """By endpoint and session id. Holds KEYS_MAX keys for KEY_SECONDS; the oldest is forgotten first."""

    def __init__(self) -> None:
        self._keys: dict[tuple[Endpoint, bytes], tuple[WrapKeys, float]] = {}

    def __len__(self) -> int:
        return len(self._keys)

    def note(self, source: Endpoint, session_id: bytes, keys: WrapKeys, now: float) -> None:
        """This stranger's packets are wrapped with these keys."""
        self._keys.pop((source, session_id), None)
        while self._keys:
            oldest = next(iter(self._keys))
            if len(self._keys) < KEYS_MAX and self._keys[oldest][1] > now:
                break
            del self._keys[oldest]
        self._keys[source, session_id] = keys, now + KEY_SECONDS

    def find(self, source: Endpoint, session_id: bytes, now: float) -> WrapKeys | None:
        keys, until = self._keys.get((source, session_id), (None, now))
        return keys if until > now else None
