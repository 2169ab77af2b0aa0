"""Policy for frames from the LAN: every rule that can keep one from the peers.

Rules on single frames: their length, and the magic of pings and OCC messages, which a peer would take for
these. Rules on runs of frames with the same addresses are verdicts (guards of the FDB, destinations).
"""

from __future__ import annotations

from bridged.dataplane.portable.control.counters import DropCounter
from bridged.dataplane.portable.policy.verdicts import Verdict, Verdicts
from bridged.dataplane.portable.tables.keys import LEAST_FRAME_OCTETS
from bridged.protocol.packets.occ import MAGIC_ADDRESSES, begins_as_housekeeping


class FromLan:
    """The policy stage from the LAN to the WAN; what it refuses is counted in `drops`."""

    def __init__(self, verdicts: Verdicts, drops: DropCounter) -> None:
        self._verdicts = verdicts
        # Looked up once: a lone frame is made of few steps.
        self._known, self._remembered = verdicts.of_tap, verdicts.remembered
        self._drops = drops

    def admits_super_frame(self, frame: bytes) -> bool:
        """Whether to cut this super-frame: its frames would all begin alike."""
        if begins_as_housekeeping(frame):
            self._drops.count("transmit", "housekeeping_magic")
            return False
        return True

    def admitted(self, addresses: bytes, run: list[bytes]) -> list[bytes]:
        """The frames of a run that no rule on single frames refuses; `addresses`: their first 12 bytes."""
        if min(map(len, run)) < LEAST_FRAME_OCTETS:
            long_enough = [frame for frame in run if len(frame) >= LEAST_FRAME_OCTETS]
            self._drops.count("transmit", "short_frame", len(run) - len(long_enough))
            run = long_enough
        if addresses in MAGIC_ADDRESSES:
            frames = [frame for frame in run if not begins_as_housekeeping(frame)]
            self._drops.count("transmit", "housekeeping_magic", len(run) - len(frames))
            run = frames
        return run

    def verdict(self, addresses: bytes, run: list[bytes], now: float) -> Verdict | None:
        """What becomes of an admitted run; None if it was dropped (and counted)."""
        verdict = self._verdicts.judge(None, addresses, now)
        if verdict.drop is not None:
            self._drops.count("transmit", verdict.drop, len(run))
            return None
        return verdict

    def remembered(self, frame: bytes, now: float) -> Verdict | None:
        """An earlier verdict for a single frame; None: ask `admitted` and `verdict`."""
        if len(frame) < LEAST_FRAME_OCTETS:
            return None
        return self._remembered(self._known, frame[:12], now)
