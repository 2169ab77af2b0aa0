"""The portable data plane: the contract, put together from the rooms of this package.

Source: bridged/dataplane/contract/verbs.py.
The control plane's thread calls it; frames pass in the loop's thread. Every method that changes something
takes the gate, which the loop holds for one batch at most.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Final

from bridged.addresses import Endpoint
from bridged.dataplane.contract import (
    STREAM_PACKET_OCTETS,
    DataplaneEvent,
    DataplaneSettings,
    DataplaneSnapshot,
    FdbEntry,
    PeerSettings,
    PeerSnapshot,
    ResetAnswers,
    Station,
    StationEvents,
    TapFailed,
    TapPort,
)
from bridged.dataplane.portable.control.counters import DropCounter, new_batch_sizes
from bridged.dataplane.portable.control.events import EventQueue
from bridged.dataplane.portable.directions import Directions
from bridged.dataplane.portable.gate import Gate
from bridged.dataplane.portable.lan_to_wan.path_fitter import PathFitter
from bridged.dataplane.portable.loop import TICK_SECONDS, Loop
from bridged.dataplane.portable.snapshots import Snapshots
from bridged.dataplane.portable.tables.fdb import Fdb, age_of, check_station
from bridged.dataplane.portable.tables.key_formats import make_slot
from bridged.dataplane.portable.tables.key_use import KeyUse
from bridged.dataplane.portable.tables.peers import Peer, PeerTable
from bridged.dataplane.portable.timers import PeerTimers
from bridged.dataplane.portable.transport.streams import Streams
from bridged.dataplane.portable.transport.udp import UdpTransport
from bridged.dataplane.portable.transport.wires import Wires
from bridged.endings import take_every_step
from bridged.errors import DataplaneError
from bridged.protocol.keys.key_derivation import DataKey
from bridged.units import KeyId, MonotonicSeconds, PeerHandle

THREAD_NAME: Final = "wire-0"
"""Of the one thread: it serves the TAP as well."""


class PortableDataPlane:
    """A tunnel's frames in one Python thread; see `DataPlane` in the contract."""

    name = "portable"

    def __init__(self, settings: DataplaneSettings) -> None:
        self._settings = settings
        self._gate = Gate()
        self._drops = DropCounter()
        self._events = EventQueue()
        self._table = PeerTable()
        self._fdb = Fdb(
            capacity=settings.fdb_capacity,
            addresses_per_peer=settings.addresses_per_peer,
            ageing=settings.ageing,
            move_hold=settings.move_hold,
        )
        sizes = new_batch_sizes()
        self._transport = UdpTransport(settings.bind, settings.socket_buffer, self._drop_sent, sizes)
        self._streams = Streams(sizes["segments_per_send"], self._tell)
        self._wires = Wires(self._transport, self._streams, self._drop_sent)
        self._directions = Directions(
            settings, self._table, self._fdb, self._wires, self._events, self._drops, sizes, self._tell
        )
        self._path_fitter = PathFitter(self._table, self._transport, self._directions.mss)
        self._timers = PeerTimers(self._table, self._directions.sealer, self._tell)
        self._snapshots = Snapshots(
            self._table, self._fdb, self._transport, self._directions, self._events, self._drops, sizes
        )
        self._loop = Loop(
            THREAD_NAME,
            self._gate,
            self._wires,
            self._directions,
            self._drops,
            self._tick,
            lambda number: self._tell(TapFailed(number)),
        )
        self._loop.watch_tap()
        self._swept_at = 0.0
        self._stopped = False

    # --- its life

    def start(self) -> None:
        if not self._transport.is_open:
            self._transport.open()
        if self._transport.is_open:
            self._loop.watch_wire()
        self._loop.start()

    def stop(self) -> None:
        if self._stopped:
            return
        self._stopped = True
        peers = list(self._table.by_handle.values())
        take_every_step(
            [
                self._loop.stop,
                self._transport.close,
                self._streams.close,
                *(peer.close_keys for peer in peers),
                *(partial(self._table.remove, peer) for peer in peers),
                self._events.close,
            ]
        )

    # --- adapter and transport

    @property
    def local_endpoint(self) -> Endpoint | None:
        return self._transport.local_endpoint

    def attach_tap(self, tap: TapPort) -> None:
        with self._gate:
            before = self._directions.writer
            self._snapshots.keep_from_old_tap(before.has_refused)
            self._directions.attach(tap)
            self._loop.watch_tap()

    def adopt_stream(
        self,
        descriptor: int,
        endpoint: Endpoint,
        received: bytes,
        packet_octets: int = STREAM_PACKET_OCTETS,
    ) -> None:
        with self._gate:
            if self._stopped:
                return
            self._streams.adopt(descriptor, endpoint, received, packet_octets)
            # The one before it may have ended by itself a moment ago.
            self._events.forget_stream(endpoint)
        self._loop.wake()

    def close_stream(self, endpoint: Endpoint) -> None:
        with self._gate:
            self._streams.close_stream(endpoint, time.monotonic())
            # It may have ended by itself a moment ago.
            self._events.forget_stream(endpoint)

    def inherit_sockets(self, descriptors: Sequence[int]) -> None:
        if len(descriptors) != 1:
            raise DataplaneError(
                "bad_setting", f"{len(descriptors)} sockets were inherited; this build uses one"
            )
        self._transport.adopt(descriptors[0])

    def socket_descriptors(self) -> tuple[int, ...]:
        return (self._transport.fileno(),) if self._transport.is_open else ()

    def hold(self, *, lan: bool, wan: bool) -> None:
        with self._gate:
            self._loop.hold(lan=lan, wan=wan)

    def ask_threads(self) -> None:
        self._loop.ask()

    def silent_threads(self) -> tuple[str, ...]:
        return () if self._loop.has_answered else (THREAD_NAME,)

    def use_sizes(self, wan_mtu: int, mss_limit: int) -> None:
        # TCP is left to `mss_limit`.
        with self._gate:
            self._directions.mss.limit = self._path_fitter.limit = mss_limit
            self._path_fitter.fit()
            if self._directions.too_big is not None:
                self._directions.too_big.wan_mtu = wan_mtu

    def use_socket(self, descriptor: int | None) -> None:
        with self._gate:
            if self._stopped:
                return
            self._transport.adopt(descriptor)
            self._loop.watch_wire()
        self._loop.wake()

    # --- peers and keys

    def add_peer(self, peer: PeerSettings) -> None:
        with self._gate:
            self._ensure_socket(peer.endpoint)
            try:
                path = self._wires.path(peer.endpoint)
            except OSError as error:
                raise DataplaneError("bind_failed", f"peer {peer.name}: {error.strerror}") from None
            self._table.add(Peer(peer, path, time.monotonic()))
            self._directions.verdicts.forget()
            self._timers.change(peer.handle)
        self._loop.wake()

    def remove_peer(self, handle: PeerHandle) -> PeerSnapshot:
        with self._gate:
            peer = self._table.get(handle)
            self._drop_early(peer, peer.early.expect(None))
            snapshot = self._snapshots.peer(peer)
            self._table.remove(peer)
            self._fdb.flush(handle)
            self._directions.verdicts.forget()
            self._path_fitter.fit()
            peer.close_keys()
            self._events.forget(handle)
            self._timers.change(handle)
        return snapshot

    def expect_key(self, handle: PeerHandle, key_id: KeyId) -> None:
        with self._gate:
            peer = self._table.get(handle)
            self._drop_early(peer, peer.early.expect(key_id))

    def install_key(self, handle: PeerHandle, key: DataKey) -> None:
        use = KeyUse(
            # Epochs end before their keys are worn.
            is_aes_gcm=key.cipher.is_aes_gcm and not key.is_epoch,
            renegotiate_bytes=self._settings.renegotiate_bytes,
            renegotiate_packets=self._settings.renegotiate_packets,
        )
        with self._gate:
            peer = self._table.get(handle)
            # A stream keeps the order: ids have to rise.
            window = 0 if peer.path.carrier.is_stream else self._settings.replay_window
            slot = make_slot(key, window, use)
            self._table.install(peer, slot)
            self._snapshots.cipher = key.cipher
            if peer.early.expected == key.key_id:
                early, stale = peer.early.release(time.monotonic())
                self._drop_early(peer, stale)
                self._directions.receiver.early += early
        self._loop.wake()

    def use_key(self, handle: PeerHandle, key_id: KeyId) -> None:
        with self._gate:
            peer = self._table.get(handle)
            slot = peer.slots.get(key_id)
            if slot is None:
                raise DataplaneError("unknown_key", f"peer {peer.name} has no key {key_id}")
            peer.sealing = slot
            peer.has_sealed = True
            self._timers.change(handle)
        self._loop.wake()

    def remove_key(self, handle: PeerHandle, key_id: KeyId) -> None:
        with self._gate:
            peer = self._table.by_handle.get(handle)
            if peer is None:
                return
            self._table.drop_key(peer, key_id)
            if peer.early.expected == key_id:
                self._drop_early(peer, peer.early.expect(None))

    # --- control packets and events

    def answer_resets(self, answers: ResetAnswers | None) -> None:
        with self._gate:
            self._directions.answers.apply(answers)

    def expect(self, endpoint: Endpoint) -> None:
        with self._gate:
            self._events.control.expect(endpoint)

    def stop_expecting(self, endpoint: Endpoint) -> None:
        with self._gate:
            self._events.control.stop_expecting(endpoint)

    def send_control(self, datagram: bytes, destination: Endpoint) -> None:
        with self._gate:
            self._ensure_socket(destination)
            self._wires.send_to(datagram, destination)

    def send_payload(self, handle: PeerHandle, payload: bytes) -> None:
        with self._gate:
            self._directions.sealer.send_payload(self._table.get(handle), payload, time.monotonic())

    def probe_path(self, handle: PeerHandle, payload: bytes, octets: int) -> int:
        with self._gate:
            return self._path_fitter.probe(self._table.get(handle), payload, octets, time.monotonic())

    def use_path_mtu(self, handle: PeerHandle, octets: int) -> None:
        with self._gate:
            self._path_fitter.use(self._table.get(handle), octets)

    def event_fd(self) -> int:
        return self._events.fileno()

    def poll_events(self, limit: int = 256) -> list[DataplaneEvent]:
        return self._events.take(limit)

    def snapshot(self) -> DataplaneSnapshot:
        return self._snapshots.take(self.name, {THREAD_NAME: self._loop.cpu_seconds()})

    # --- stations

    def fdb(self) -> list[FdbEntry]:
        with self._gate:
            now = MonotonicSeconds(time.monotonic())
            return [
                FdbEntry(station, entry.port, age_of(entry, now), entry.is_static)
                for station, entry in self._fdb.entries(now)
            ]

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
                raise DataplaneError("fdb_full", f"there is no room: {self._fdb.capacity} stations are known")

    def remove_station(self, station: Station) -> None:
        with self._gate:
            self._fdb.remove(station)

    def station_events(self, after: int) -> StationEvents:
        with self._gate:
            return self._fdb.events(after)

    # --- called by its own parts

    def _ensure_socket(self, destination: Endpoint) -> None:
        if destination.transport == "tcp":
            return
        if not self._stopped and self._transport.ensure(destination):
            self._loop.watch_wire()

    def _drop_early(self, peer: Peer, packets: int) -> None:
        if packets:
            self._drops.count("receive", "unknown_key_id", packets, peer.traffic.drops)

    def _drop_sent(self, reason: str, packets: int) -> None:
        self._drops.count("transmit", reason, packets)

    def _tell(self, event: DataplaneEvent) -> None:
        if not self._events.put(event):
            self._drops.count("receive", "event_queue_full")

    def _tick(self, now: float) -> float:
        """Timers and ageing; returns when to call again."""
        due = self._timers.handle_timeout(now)
        if now - self._swept_at >= TICK_SECONDS:
            self._swept_at = now
            self._fdb.sweep(MonotonicSeconds(now))
            self._streams.handle_timeout(now)
        return min(now + TICK_SECONDS, due)
