"""Totals of one peer: they only grow, and outlive its keys.

Source: bridged/dataplane/contract/snapshots.py, `PeerCounters`.
No I/O. Written under the loop's gate; a reader copies whole lists and dicts, which needs no lock.
"""

from __future__ import annotations

from collections.abc import Iterable

from bridged.dataplane.contract import Direction, FrameKind, PeerCounters
from bridged.dataplane.portable.control.counters import KINDS, Drops
from bridged.dataplane.portable.tables.key_use import KeyUse


class Traffic:
    """Frames, bytes and outer datagrams of one peer. Lists are indexed by kind."""

    __slots__ = (
        "drops",
        "received_bytes",
        "received_frames",
        "retired",
        "sent_bytes",
        "sent_frames",
    )

    def __init__(self) -> None:
        self.received_frames = [0] * len(KINDS)
        self.received_bytes = [0] * len(KINDS)
        self.sent_frames = [0] * len(KINDS)
        self.sent_bytes = [0] * len(KINDS)
        self.retired = (0, 0, 0, 0, 0, 0)
        """Datagrams received and sent, bytes received and sent, ids jumped over and late ones, under keys
        that have gone."""
        self.drops: Drops = {}

    def counters(self, uses: Iterable[KeyUse]) -> PeerCounters:
        """All figures now; `uses` of the keys that are there."""
        received, sent, received_octets, sent_octets, skipped, late = self.retired
        for use in uses:
            received += use.packets_received
            sent += use.packets_sent
            received_octets += use.octets_received
            sent_octets += use.octets_sent
            skipped += use.skipped
            late += use.late
        return PeerCounters(
            frames=_by_kind(self.received_frames, self.sent_frames),
            bytes=_by_kind(self.received_bytes, self.sent_bytes),
            wire_bytes={"receive": received_octets, "transmit": sent_octets},
            wire_datagrams={"receive": received, "transmit": sent},
            sequence={"skipped": skipped, "late": late},
            drops=self.drops.copy(),
        )

    def count_received(self, kind: int, frames: int, octets: int) -> None:
        """Frames of one kind that came from the peer, with `octets` between them."""
        self.received_frames[kind] += frames
        self.received_bytes[kind] += octets

    def count_sent(self, kind: int, frames: int, octets: int) -> None:
        """Frames of one kind that were sealed to the peer."""
        self.sent_frames[kind] += frames
        self.sent_bytes[kind] += octets

    def retire(self, use: KeyUse) -> None:
        """A key goes; its figures stay."""
        received, sent, received_octets, sent_octets, skipped, late = self.retired
        self.retired = (
            received + use.packets_received,
            sent + use.packets_sent,
            received_octets + use.octets_received,
            sent_octets + use.octets_sent,
            skipped + use.skipped,
            late + use.late,
        )


def _by_kind(received: list[int], sent: list[int]) -> dict[tuple[Direction, FrameKind], int]:
    figures: dict[tuple[Direction, FrameKind], int] = {}
    for kind, value in zip(KINDS, received, strict=True):
        figures["receive", kind] = value
    for kind, value in zip(KINDS, sent, strict=True):
        figures["transmit", kind] = value
    return figures
