"""Packets that came before their key: a peer may seal with a new key before this end has made it.

No I/O; callers pass `now` in monotonic seconds. Source: bridged/dataplane/contract/verbs.py, `expect_key`.
"""

from __future__ import annotations

from bridged.dataplane.contract import EARLY_LEAST_OCTETS, EARLY_OCTETS, EARLY_SECONDS
from bridged.dataplane.portable.transport.seam import Received
from bridged.units import KeyId


class EarlyPackets:
    """Those of one peer, in their order, for one key id at a time. `expected` is None: none is held."""

    __slots__ = ("_held", "_octets", "expected")

    def __init__(self) -> None:
        self.expected: KeyId | None = None
        self._held: list[tuple[Received, int, float]] = []
        self._octets = 0

    def expect(self, key_id: KeyId | None) -> int:
        """Hold packets under this key id from now on; returns how many packets were held for another."""
        self.expected = key_id
        lost = sum(count for _, count, _ in self._held)
        self._held.clear()
        self._octets = 0
        return lost

    def hold(self, packets: list[bytes], received: Received, now: float) -> bool:
        """Keep packets of one read; False: there is no room."""
        _, size, source, pinned_source = received
        data = b"".join(packets)
        cost = max(len(data), EARLY_LEAST_OCTETS)
        if self._octets + cost > EARLY_OCTETS:
            return False
        self._octets += cost
        self._held.append(((data, size, source, pinned_source), len(packets), now))
        return True

    def release(self, now: float) -> tuple[list[Received], int]:
        """The key is there: what was held, without packets that waited too long, and how many those are."""
        fresh = [received for received, _, at in self._held if now - at <= EARLY_SECONDS]
        stale = sum(count for _, count, at in self._held if now - at > EARLY_SECONDS)
        self.expect(None)
        return fresh, stale
