"""When to ping which peer, and when a silent one has expired.

Source: docs/protocol/data.md#5-1. No clock: the loop passes `now` in monotonic seconds, with the gate held.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from bridged.dataplane.contract import PeerExpired
from bridged.dataplane.portable.control.schedule import Schedule
from bridged.dataplane.portable.lan_to_wan.batch_sealer import BatchSealer
from bridged.dataplane.portable.tables.peers import PeerTable
from bridged.protocol.packets.occ import PING
from bridged.units import PeerHandle

LEAST_PAUSE_SECONDS: Final = 0.01
EXPIRED_PAUSE_SECONDS: Final = 1.0
"""How often to look whether an expired peer is heard again."""


class PeerTimers:
    """Pings and expiries. It looks only at peers that are due or have changed, however many there are."""

    def __init__(self, table: PeerTable, sealer: BatchSealer, tell: Callable[[PeerExpired], None]) -> None:
        self._table = table
        self._sealer = sealer
        self._tell = tell
        self._schedule = Schedule()
        self._changed: set[PeerHandle] = set()

    def change(self, handle: PeerHandle) -> None:
        """A peer's timers have changed, or it has gone."""
        self._changed.add(handle)

    def handle_timeout(self, now: float) -> float:
        """Do what is due; returns when something is due next (inf: never)."""
        schedule = self._schedule
        changed, self._changed = self._changed, set()
        for handle in changed:
            schedule.set(handle, self._look_at(handle, now))
        while (due := schedule.take_due(now)) is not None:
            schedule.set(due, self._look_at(due, now))
        return schedule.next()

    def _look_at(self, handle: PeerHandle, now: float) -> float | None:
        """Ping and expiry of one peer; returns when to look again, later than `now`.

        None: it has no timers, or has gone.
        """
        peer = self._table.by_handle.get(handle)
        if peer is None:
            return None
        if peer.ping is not None and peer.sealing is not None and now - peer.sent_at >= peer.ping:
            self._sealer.send_payload(peer, PING, now)
            # Set here as well: without packet ids nothing was sent.
            peer.sent_at = now
        if peer.ping_restart is not None:
            is_silent = now - peer.heard_at() >= peer.ping_restart
            if is_silent and not peer.expired:
                self._tell(PeerExpired(handle))
            peer.expired = is_silent
        due = peer.next_deadline()
        if peer.expired:
            due = min(due, now + EXPIRED_PAUSE_SECONDS)
        return None if due == float("inf") else max(now + LEAST_PAUSE_SECONDS, due)
