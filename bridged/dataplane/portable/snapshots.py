"""The figures of a data plane at one moment.

Source: bridged/dataplane/contract/snapshots.py, `DataplaneSnapshot`. Without the gate: one step of the
interpreter copies each figure.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path as FilePath
from typing import Final

from bridged.catalogue.figures import OFFLOADS
from bridged.dataplane.contract import (
    CONTROL_QUEUE_DATAGRAMS,
    EVENT_QUEUE_EVENTS,
    STRANGER_QUEUE_DATAGRAMS,
    DataplaneSnapshot,
    PeerSnapshot,
)
from bridged.dataplane.portable.control.counters import BatchSizes, DropCounter
from bridged.dataplane.portable.control.events import EventQueue
from bridged.dataplane.portable.directions import Directions
from bridged.dataplane.portable.tables.fdb import Fdb
from bridged.dataplane.portable.tables.key_use import KeyUse
from bridged.dataplane.portable.tables.peers import Peer, PeerTable
from bridged.dataplane.portable.transport.udp import UdpTransport
from bridged.protocol.keys.cipher import Cipher
from bridged.units import UnixSeconds

_TXQUEUE_DROPS_FIELD: Final = 11
"""Of /proc/net/dev: frames of an interface that were dropped on the way out."""


class Snapshots:
    """Takes snapshots; it keeps what would otherwise be lost with a replaced adapter.

    `cipher`: that of the latest key (None: there was none).
    """

    def __init__(
        self,
        table: PeerTable,
        fdb: Fdb,
        transport: UdpTransport,
        directions: Directions,
        events: EventQueue,
        drops: DropCounter,
        batch_sizes: Mapping[str, BatchSizes],
    ) -> None:
        self._table = table
        self._fdb = fdb
        self._transport = transport
        self._directions = directions
        self._events = events
        self._drops = drops
        self._batch_sizes = batch_sizes
        self.cipher: Cipher | None = None
        self._txqueue_dropped = 0
        self._refusals_before = 0

    def keep_from_old_tap(self, refused: bool) -> None:
        """An adapter is replaced; `refused`: it did not take super-frames."""
        self._refusals_before += refused

    def take(self, dataplane: str, thread_cpu: dict[str, float]) -> DataplaneSnapshot:
        """All figures now."""
        return DataplaneSnapshot(
            dataplane=dataplane,
            aead=self.cipher.value if self.cipher is not None else "",
            workers=1,
            peers=tuple(self.peer(peer) for peer in list(self._table.by_handle.values())),
            drops=self._drops.totals.copy(),
            fdb_entries=len(self._fdb),
            fdb_capacity=self._fdb.capacity,
            counts=self._counts(),
            offloads=self._offloads(),
            offload_fallbacks=self._fallbacks(),
            queues={
                "control": (self._events.control_depth, CONTROL_QUEUE_DATAGRAMS + STRANGER_QUEUE_DATAGRAMS),
                "events": (self._events.event_depth, EVENT_QUEUE_EVENTS),
            },
            histograms={name: sizes.histogram() for name, sizes in self._batch_sizes.items()},
            thread_cpu=thread_cpu,
        )

    def peer(self, peer: Peer) -> PeerSnapshot:
        """The figures of one peer."""
        slots = list(peer.slots.values())
        return PeerSnapshot(
            handle=peer.handle,
            endpoint=peer.endpoint,
            counters=peer.traffic.counters(slot.use for slot in slots),
            last_seen=_unix(peer.seen_at),
            fdb_entries=self._fdb.count(peer.handle),
            replay_mark=max((slot.replay_mark for slot in slots), default=0),
            packet_id_used_ratio=max(
                (KeyUse.packet_id_ratio(slot.highest_packet_id) for slot in slots), default=0.0
            ),
            aead_used_ratio=max((slot.use.aead_ratio() for slot in slots), default=0.0),
        )

    def _offloads(self) -> dict[str, bool]:
        transport, port = self._transport, self._directions.tap.port
        return dict.fromkeys((offload.name for offload in OFFLOADS), False) | {
            "tap_vnet": port.virtio_header_size > 0,
            "tap_tso": bool(port.offloads & {"tso4", "tso6"}),
            "tap_uso": bool(port.offloads & {"uso4", "uso6"}),
            "udp_gso": transport.has_segment,
            "udp_gro": transport.has_gro,
            "coalesce": self._directions.writer.joins,
        }

    def _counts(self) -> dict[str, dict[str, int]]:
        counts = {family: values.copy() for family, values in self._directions.counts.items()}
        counts["fdb_changes"].update(self._fdb.changes)
        counts["kernel_drops"] = {
            "tap_txqueue": self._txqueue_drops(),
            "udp_receive_buffer": self._transport.overflow,
        }
        return counts

    def _fallbacks(self) -> dict[tuple[str, str], int]:
        fallbacks = self._transport.fallbacks.copy()
        refusals = self._refusals_before + self._directions.writer.has_refused
        return fallbacks | ({("coalesce", "einval"): refusals} if refusals else {})

    def _txqueue_drops(self) -> int:
        """Frames that the kernel dropped because the TAP's queue was full; the last figure if it is gone."""
        with suppress(OSError, ValueError, IndexError):
            for line in FilePath("/proc/thread-self/net/dev").read_text().splitlines():
                name, _, figures = line.partition(":")
                if name.strip() == self._directions.tap.port.name:
                    dropped = int(figures.split()[_TXQUEUE_DROPS_FIELD])
                    self._txqueue_dropped = max(self._txqueue_dropped, dropped)
        return self._txqueue_dropped


def _unix(moment: float | None) -> UnixSeconds | None:
    """The Unix time of a monotonic moment."""
    return None if moment is None else UnixSeconds(time.time() - (time.monotonic() - moment))
