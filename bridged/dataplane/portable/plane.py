"""The portable data plane: the contract, put together from the parts of this package.

Source: bridged/dataplane/contract.py.
Called by the control plane's thread; the frames pass in the loop's. Every method that changes something
takes the gate, which the loop holds for one batch at most.
"""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path as FilePath
from typing import Final

from bridged.addresses import Endpoint
from bridged.dataplane.contract import (
    CONTROL_QUEUE_DATAGRAMS,
    EVENT_QUEUE_EVENTS,
    STRANGER_QUEUE_DATAGRAMS,
    DataplaneSettings,
    DataplaneSnapshot,
    Direction,
    Event,
    FdbEntry,
    PeerExpired,
    PeerSettings,
    PeerSnapshot,
    ResetAnswers,
    Station,
    StationEvents,
    TapFailed,
    TapPort,
)
from bridged.dataplane.portable.control.events import EventQueue
from bridged.dataplane.portable.control.timers import Schedule
from bridged.dataplane.portable.fast_path import FastPath
from bridged.dataplane.portable.forwarding import Forwarding
from bridged.dataplane.portable.headers.priority import dscp_reader
from bridged.dataplane.portable.loop import TICK_SECONDS, Gate, Loop
from bridged.dataplane.portable.tables.fdb import Fdb, age_of, check_station
from bridged.dataplane.portable.tables.key_use import KeyUse
from bridged.dataplane.portable.tables.keys import KeySlot
from bridged.dataplane.portable.tables.peers import Peer, PeerTable
from bridged.dataplane.portable.tables.switch import Switch
from bridged.dataplane.portable.tap_io import TapIo
from bridged.dataplane.portable.transport.udp import Wire
from bridged.errors import DataplaneError
from bridged.protocol.keys.cipher import Cipher
from bridged.protocol.keys.key_derivation import DataKey
from bridged.protocol.packets.occ import PING
from bridged.units import KeyId, MonotonicSeconds, PeerHandle, Seconds, UnixSeconds, WirePeerId

LEAST_PAUSE_SECONDS: Final = 0.01
THREAD_NAME: Final = "wire-0"
"""Of the one thread: it serves the TAP as well."""


class PortableDataPlane:
    """A tunnel's frames in one Python thread; see `DataPlane` in the contract."""

    name = "portable"

    def __init__(self, settings: DataplaneSettings) -> None:
        self._settings = settings
        self._gate = Gate()
        self._events = EventQueue()
        self._table = PeerTable()
        self._fdb = Fdb(
            capacity=settings.fdb_capacity,
            addresses_per_peer=settings.addresses_per_peer,
            ageing=settings.ageing,
            move_hold=settings.move_hold,
        )
        self._switch = Switch(
            self._fdb, self._table, self._put, forward_between_peers=settings.forward_between_peers
        )
        self._wire = Wire(settings.bind, settings.socket_buffer, self._drop_sent)
        dscp_of = dscp_reader(settings.priority)
        self._forwarding = Forwarding(
            self._table, self._switch, self._wire, self._events, settings.mss_limit, dscp_of
        )
        self._fast_path = FastPath(
            self._table, self._fdb, self._switch, self._wire, self._forwarding, settings.mss_limit, dscp_of
        )
        self._loop = Loop(
            THREAD_NAME, self._gate, self._wire, self._forwarding, self._fast_path, self._tick, self._tap_gone
        )
        self._schedule = Schedule()
        self._changed: set[PeerHandle] = set()
        """Peers whose timers have changed, or that have gone."""
        self._tap = self._tap_io(settings.tap)
        self._forwarding.carries = self._tap.carries
        self._loop.watch_tap(self._tap)
        self._cipher: Cipher | None = None
        self._swept_at = 0.0
        self._txqueue_dropped = 0
        # Adapters before this one that did not take super-frames.
        self._refusals = 0
        self._stopped = False

    def start(self) -> None:
        self._wire.open()
        if self._wire.is_open:
            self._loop.watch_wire()
        self._loop.start()

    def stop(self) -> None:
        if self._stopped:
            return
        self._stopped = True
        self._loop.stop()
        self._wire.close()
        for peer in list(self._table.by_handle.values()):
            peer.close_keys()
            self._table.remove(peer)
        self._events.close()

    @property
    def local_endpoint(self) -> Endpoint | None:
        return self._wire.local_endpoint

    def attach_tap(self, tap: TapPort) -> None:
        tap_io = self._tap_io(tap)
        with self._gate:
            # Histograms go on over adapters, and so do counters.
            tap_io.frames_per_write = self._tap.frames_per_write
            self._refusals += self._tap.has_refused
            self._tap = tap_io
            self._forwarding.carries = tap_io.carries
            self._loop.watch_tap(tap_io)

    def use_sizes(self, wan_mtu: int, mss_limit: int) -> None:
        # `wan_mtu` is left to `mss_limit` here.
        with self._gate:
            self._forwarding.mss_limit = self._fast_path.mss_limit = mss_limit

    def use_socket(self, descriptor: int | None) -> None:
        with self._gate:
            if self._stopped:
                return
            self._wire.adopt(descriptor)
            self._loop.watch_wire()
        self._loop.wake()

    def add_peer(self, peer: PeerSettings) -> None:
        with self._gate:
            self._ensure_socket(peer.endpoint)
            try:
                path = self._wire.path(peer.endpoint)
            except OSError as error:
                raise DataplaneError("bind_failed", f"peer {peer.name}: {error.strerror}") from None
            self._table.add(Peer(peer, path, time.monotonic()))
            self._switch.forget_verdicts()
            self._changed.add(peer.handle)
        self._loop.wake()

    def update_peer(
        self,
        handle: PeerHandle,
        *,
        ping: Seconds | None,
        ping_restart: Seconds | None,
        receive_peer_id: WirePeerId | None,
        transmit_peer_id: WirePeerId | None,
    ) -> None:
        with self._gate:
            peer = self._table.get(handle)
            self._table.identify(peer, receive_peer_id, transmit_peer_id)
            peer.restart_timers(ping, ping_restart, time.monotonic())
            self._changed.add(handle)
        self._loop.wake()

    def remove_peer(self, handle: PeerHandle) -> PeerSnapshot:
        with self._gate:
            peer = self._table.get(handle)
            snapshot = self._peer_snapshot(peer)
            self._table.remove(peer)
            self._fdb.flush(handle)
            self._switch.forget_verdicts()
            peer.close_keys()
            self._events.forget(handle)
            self._changed.add(handle)
        return snapshot

    def install_key(self, handle: PeerHandle, key: DataKey) -> None:
        use = KeyUse(
            is_aes_gcm=key.cipher.is_aes_gcm,
            renegotiate_bytes=self._settings.renegotiate_bytes,
            renegotiate_packets=self._settings.renegotiate_packets,
        )
        slot = KeySlot(key, self._settings.replay_window, use)
        with self._gate:
            self._table.install(self._table.get(handle), slot)
            self._cipher = key.cipher

    def use_key(self, handle: PeerHandle, key_id: KeyId) -> None:
        with self._gate:
            peer = self._table.get(handle)
            slot = peer.slots.get(key_id)
            if slot is None:
                raise DataplaneError("unknown_key", f"peer {peer.name} has no key {key_id}")
            peer.sealing = slot
            peer.has_sealed = True
            self._changed.add(handle)
        self._loop.wake()

    def remove_key(self, handle: PeerHandle, key_id: KeyId) -> None:
        with self._gate:
            peer = self._table.by_handle.get(handle)
            if peer is not None:
                self._table.drop_key(peer, key_id)

    def answer_resets(self, answers: ResetAnswers | None) -> None:
        with self._gate:
            self._forwarding.answers.apply(answers)

    def expect(self, endpoint: Endpoint) -> None:
        with self._gate:
            self._events.control.expect(endpoint)

    def stop_expecting(self, endpoint: Endpoint) -> None:
        with self._gate:
            self._events.control.stop_expecting(endpoint)

    def send_control(self, datagram: bytes, destination: Endpoint) -> None:
        with self._gate:
            self._ensure_socket(destination)
            self._wire.send_to(datagram, destination)

    def send_payload(self, handle: PeerHandle, payload: bytes) -> None:
        with self._gate:
            self._forwarding.send_payload(self._table.get(handle), payload, time.monotonic())

    def event_fd(self) -> int:
        return self._events.fileno()

    def poll_events(self, limit: int = 256) -> list[Event]:
        return self._events.take(limit)

    def snapshot(self) -> DataplaneSnapshot:
        # Without the gate: each figure is copied in one step of the interpreter.
        wire, tap, forwarding = self._wire, self._tap, self._forwarding
        offloads = tap.port.offloads
        return DataplaneSnapshot(
            dataplane=self.name,
            aead=self._cipher.value if self._cipher is not None else "",
            workers=1,
            peers=tuple(self._peer_snapshot(peer) for peer in list(self._table.by_handle.values())),
            drops=forwarding.drops.copy(),
            fdb_entries=len(self._fdb),
            fdb_capacity=self._fdb.capacity,
            fdb_changes=self._fdb.changes.copy(),
            offloads={
                "tap_vnet": tap.port.virtio_header_size > 0,
                "tap_tso": bool(offloads & {"tso4", "tso6"}),
                "tap_uso": bool(offloads & {"uso4", "uso6"}),
                "udp_gso": wire.has_segment,
                "udp_gro": wire.has_gro,
                "udp_steering": False,
                "coalesce": tap.coalesces,
            },
            offload_fallbacks=self._fallbacks(),
            mtu_events=forwarding.mtu_events.copy(),
            kernel_drops={"tap_txqueue": self._txqueue_drops(), "udp_receive_buffer": wire.overflow},
            queues={
                "control": (self._events.control_depth, CONTROL_QUEUE_DATAGRAMS + STRANGER_QUEUE_DATAGRAMS),
                "events": (self._events.event_depth, EVENT_QUEUE_EVENTS),
            },
            histograms={
                "segments_per_send": wire.segments_per_send.histogram(),
                "datagrams_per_receive": wire.datagrams_per_receive.histogram(),
                "frames_per_tap_write": tap.frames_per_write.histogram(),
            },
            thread_cpu={THREAD_NAME: self._loop.cpu_seconds()},
        )

    def fdb(self) -> list[FdbEntry]:
        with self._gate:
            return self._switch.entries(time.monotonic())

    def find_station(self, station: Station) -> FdbEntry | None:
        with self._gate:
            now = MonotonicSeconds(time.monotonic())
            entry = self._fdb.find(station, now)
            if entry is None:
                return None
            return FdbEntry(station, entry.port, age_of(entry, now), entry.is_static)

    def install_station(self, station: Station, handle: PeerHandle | None, *, is_static: bool) -> None:
        check_station(station)
        with self._gate:
            if handle is not None:
                self._table.get(handle)
            now = MonotonicSeconds(time.monotonic())
            if not self._fdb.install(station, handle, now, is_static=is_static):
                raise DataplaneError("fdb_full", f"{self._fdb.capacity} stations are known already")

    def remove_station(self, station: Station) -> None:
        with self._gate:
            self._fdb.remove(station)

    def station_events(self, after: int) -> StationEvents:
        with self._gate:
            return self._fdb.events(after)

    def _fallbacks(self) -> dict[tuple[str, str], int]:
        fallbacks = self._wire.fallbacks.copy()
        refusals = self._refusals + self._tap.has_refused
        return fallbacks | ({("coalesce", "einval"): refusals} if refusals else {})

    def _tap_io(self, tap: TapPort) -> TapIo:
        return TapIo(tap, coalesce=self._settings.coalesce, drop=self._drop_tap)

    def _ensure_socket(self, destination: Endpoint) -> None:
        if not self._stopped and self._wire.ensure(destination):
            self._loop.watch_wire()

    def _drop_sent(self, reason: str, packets: int) -> None:
        self._forwarding.drop("transmit", reason, packets)

    def _drop_tap(self, direction: Direction, reason: str, frames: int) -> None:
        self._forwarding.drop(direction, reason, frames)

    def _tap_gone(self, number: int) -> None:
        self._put(TapFailed(number))

    def _put(self, event: Event) -> None:
        if not self._events.put(event):
            self._forwarding.drop("receive", "event_queue_full")

    def _tick(self, now: float) -> float:
        """Pings, expiries, ageing; when to come back. Looks at the peers that are due or have changed."""
        schedule = self._schedule
        changed, self._changed = self._changed, set()
        for handle in changed:
            schedule.set(handle, self._look_at(handle, now))
        while (due := schedule.take_due(now)) is not None:
            schedule.set(due, self._look_at(due, now))
        if now - self._swept_at >= TICK_SECONDS:
            self._swept_at = now
            self._fdb.sweep(MonotonicSeconds(now))
        return min(now + TICK_SECONDS, schedule.next())

    def _look_at(self, handle: PeerHandle, now: float) -> float | None:
        """Ping and expiry of one peer; when to look again, later than `now`.

        None: it has no timers, or has gone.
        """
        peer = self._table.by_handle.get(handle)
        if peer is None:
            return None
        if peer.ping is not None and peer.sealing is not None and now - peer.sent_at >= peer.ping:
            self._forwarding.send_payload(peer, PING, now)
            peer.sent_at = now  # also where its packet ids ran out
        if peer.ping_restart is not None:
            is_silent = now - peer.heard_at() >= peer.ping_restart
            if is_silent and not peer.expired:
                self._put(PeerExpired(handle))
            peer.expired = is_silent
        due = peer.next_deadline()
        if peer.expired:
            due = min(due, now + TICK_SECONDS)  # it may be heard again
        return None if due == float("inf") else max(now + LEAST_PAUSE_SECONDS, due)

    def _peer_snapshot(self, peer: Peer) -> PeerSnapshot:
        slots = list(peer.slots.values())
        return PeerSnapshot(
            handle=peer.handle,
            endpoint=peer.endpoint,
            counters=peer.traffic.counters(slot.use for slot in slots),
            last_seen=_unix(peer.seen_at),
            fdb_entries=self._fdb.count(peer.handle),
            packet_id_used_ratio=max(
                (KeyUse.packet_id_ratio(slot.highest_packet_id) for slot in slots), default=0.0
            ),
            aead_used_ratio=max((slot.use.aead_ratio() for slot in slots), default=0.0),
        )

    def _txqueue_drops(self) -> int:
        """Frames that the kernel dropped because the TAP's queue was full; the last figure if it is gone."""
        with suppress(OSError, ValueError, IndexError):
            for line in FilePath("/proc/thread-self/net/dev").read_text().splitlines():
                name, _, figures = line.partition(":")
                if name.strip() == self._tap.port.name:
                    self._txqueue_dropped = max(self._txqueue_dropped, int(figures.split()[11]))
        return self._txqueue_dropped


def _unix(moment: float | None) -> UnixSeconds | None:
    return None if moment is None else UnixSeconds(time.time() - (time.monotonic() - moment))
