"""The native data plane: the compiled module bridged._native, made to fit the contract.

Source: bridged/dataplane/contract/verbs.py; its own source is native/. It alone imports bridged._native.
Frames pass in threads that never take the interpreter's lock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from bridged.addresses import Endpoint
from bridged.dataplane.contract import (
    STREAM_PACKET_OCTETS,
    ControlReceived,
    DataplaneEvent,
    DataplaneSettings,
    DataplaneSnapshot,
    FdbEntry,
    FramingRefused,
    Histogram,
    KeyNearLimit,
    OccReceived,
    PeerCounters,
    PeerExpired,
    PeerFloated,
    PeerSettings,
    PeerSnapshot,
    ResetAnswers,
    SessionUnknown,
    Station,
    StationEvent,
    StationEvents,
    StationMoved,
    StreamClosed,
    TapFailed,
    TapPort,
)
from bridged.errors import DataplaneError
from bridged.protocol.keys.key_derivation import DataKey
from bridged.protocol.packets.wrap import TlsCryptV2Server, WrapKeys
from bridged.protocol.strangers.cookie import CookieJar
from bridged.units import KeyId, PeerHandle, Seconds, UnixSeconds

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bridged import _native
    from bridged._native import _PeerSnapshot

SEAM: Final = 24
"""Interface version; must equal SEAM in native/py."""

_WHAT_TO_DO: Final = "install a wheel that contains it, or install Rust and run `make setup`"


def _load() -> tuple[Any, str]:
    """The compiled module, or None and why not."""
    try:
        module = import_module("bridged._native")
    except ModuleNotFoundError:
        return None, f"it is not built; {_WHAT_TO_DO}"
    except ImportError as error:
        return None, f"it cannot be loaded here ({error}); {_WHAT_TO_DO}"
    if getattr(module, "SEAM", None) != SEAM:
        return None, f"it was built from another version of the sources; {_WHAT_TO_DO}"
    return module, ""


_module, _missing = _load()


def unavailable() -> str:
    """Why there is no native data plane here, and what to do; empty if there is one."""
    return f"no native data plane: {_missing}" if _missing else ""


def require() -> None:
    """Return only if there is a native data plane.

    Raises:
        DataplaneError: `native_unavailable`.
    """
    if _missing:
        raise DataplaneError("native_unavailable", f"{unavailable()}; or set `dataplane: auto` or `portable`")


def coalesce(frames: list[bytes], vnet_octets: int) -> list[tuple[bytes, int]]:
    """See `bridged.dataplane.coalesce`.

    Raises:
        DataplaneError: `native_unavailable`.
    """
    require()
    writes: list[tuple[bytes, int]] = _module.coalesce(frames, vnet_octets, True, False)
    return writes


class NativeDataPlane:
    """A tunnel's frames in native threads; see `DataPlane` in the contract.

    Raises:
        DataplaneError: `native_unavailable`; `bad_setting`: a setting is out of range; `system`: the kernel
            refused something.
    """

    name = "native"

    def __init__(self, settings: DataplaneSettings) -> None:
        require()
        self._plane: _native.DataPlane = _module.DataPlane(settings)

    def start(self) -> None:
        self._plane.start()

    def stop(self) -> None:
        self._plane.stop()

    @property
    def local_endpoint(self) -> Endpoint | None:
        found = self._plane.local_endpoint()
        return None if found is None else Endpoint(*found)

    def attach_tap(self, tap: TapPort) -> None:
        self._plane.attach_tap(tap)

    def use_socket(self, descriptor: int | None) -> None:
        self._plane.use_socket(descriptor)

    def adopt_stream(
        self,
        descriptor: int,
        endpoint: Endpoint,
        received: bytes,
        packet_octets: int = STREAM_PACKET_OCTETS,
    ) -> None:
        self._plane.adopt_stream(descriptor, endpoint, received, packet_octets)

    def close_stream(self, endpoint: Endpoint) -> None:
        self._plane.close_stream(endpoint)

    def inherit_sockets(self, descriptors: Sequence[int]) -> None:
        self._plane.inherit_sockets(list(descriptors))

    def socket_descriptors(self) -> tuple[int, ...]:
        return tuple(self._plane.socket_descriptors())

    def hold(self, *, lan: bool, wan: bool) -> None:
        self._plane.hold(lan, wan)

    def ask_threads(self) -> None:
        self._plane.ask_threads()

    def silent_threads(self) -> tuple[str, ...]:
        return tuple(self._plane.silent_threads())

    def use_sizes(self, wan_mtu: int, mss_limit: int) -> None:
        self._plane.use_sizes(wan_mtu, mss_limit)

    def add_peer(self, peer: PeerSettings) -> None:
        self._plane.add_peer(peer)

    def remove_peer(self, handle: PeerHandle) -> PeerSnapshot:
        return _peer_snapshot(self._plane.remove_peer(handle))

    def expect_key(self, handle: PeerHandle, key_id: KeyId) -> None:
        self._plane.expect_key(handle, key_id)

    def install_key(self, handle: PeerHandle, key: DataKey) -> None:
        self._plane.install_key(handle, key)
        # The module has its own copy and overwrites it when the key goes.
        key.zeroise()

    def use_key(self, handle: PeerHandle, key_id: KeyId) -> None:
        self._plane.use_key(handle, key_id)

    def remove_key(self, handle: PeerHandle, key_id: KeyId) -> None:
        self._plane.remove_key(handle, key_id)

    def answer_resets(self, answers: ResetAnswers | None) -> None:
        self._plane.answer_resets(None if answers is None else _PlainAnswers.of(answers))

    def expect(self, endpoint: Endpoint) -> None:
        self._plane.expect(endpoint)

    def stop_expecting(self, endpoint: Endpoint) -> None:
        self._plane.stop_expecting(endpoint)

    def send_control(self, datagram: bytes, destination: Endpoint) -> None:
        self._plane.send_control(datagram, destination)

    def send_payload(self, handle: PeerHandle, payload: bytes) -> None:
        self._plane.send_payload(handle, payload)

    def probe_path(self, handle: PeerHandle, payload: bytes, octets: int) -> int:
        return self._plane.probe_path(handle, payload, octets)

    def use_path_mtu(self, handle: PeerHandle, octets: int) -> None:
        self._plane.use_path_mtu(handle, octets)

    def event_fd(self) -> int:
        return self._plane.event_fd()

    def poll_events(self, limit: int = 256) -> list[DataplaneEvent]:
        return [_EVENTS[name](*values) for name, *values in self._plane.poll_events(limit)]

    def snapshot(self) -> DataplaneSnapshot:
        figures = self._plane.snapshot()
        return DataplaneSnapshot(
            dataplane=figures["dataplane"],
            aead=figures["aead"],
            workers=figures["workers"],
            peers=tuple(_peer_snapshot(peer) for peer in figures["peers"]),
            drops=figures["drops"],
            fdb_entries=figures["fdb_entries"],
            fdb_capacity=figures["fdb_capacity"],
            counts=figures["counts"],
            offloads=figures["offloads"],
            offload_fallbacks=figures["offload_fallbacks"],
            queues=figures["queues"],
            histograms={name: Histogram(*values) for name, values in figures["histograms"].items()},
            thread_cpu=figures["thread_cpu"],
        )

    def fdb(self) -> list[FdbEntry]:
        return [
            FdbEntry(Station(*station), _handle(handle), Seconds(age), is_static)
            for station, handle, age, is_static in self._plane.fdb()
        ]

    def find_station(self, station: Station) -> FdbEntry | None:
        found = self._plane.find_station(*station)
        if found is None:
            return None
        handle, age, is_static = found
        return FdbEntry(station, _handle(handle), Seconds(age), is_static)

    def install_station(self, station: Station, handle: PeerHandle | None, *, is_static: bool) -> None:
        self._plane.install_station(*station, handle, is_static)

    def remove_station(self, station: Station) -> None:
        self._plane.remove_station(*station)

    def station_events(self, after: int) -> StationEvents:
        events, position, lost = self._plane.station_events(after)
        changes = (
            StationEvent(kind, Station(vlan, mac), _handle(handle)) for kind, vlan, mac, handle in events
        )
        return StationEvents(tuple(changes), position, lost)


@dataclass(frozen=True, slots=True)
class _PlainWrap:
    """A wrap's name and keys as the compiled module reads them. `old`: beside tls-crypt-v2."""

    name: str
    digest: str
    send: bytes = field(repr=False)
    receive: bytes = field(repr=False)
    send_cipher: bytes = field(repr=False)
    receive_cipher: bytes = field(repr=False)
    old: _PlainWrap | None = None

    @classmethod
    def of(cls, wrap: WrapKeys) -> _PlainWrap:
        keys = wrap.secrets
        old = wrap.old if isinstance(wrap, TlsCryptV2Server) else None
        return cls(
            wrap.name,
            keys.digest,
            keys.send,
            keys.receive,
            keys.send_cipher,
            keys.receive_cipher,
            None if old is None else cls.of(old),
        )


@dataclass(frozen=True, slots=True)
class _PlainAnswers:
    """`ResetAnswers` as the compiled module reads them."""

    wrap: _PlainWrap
    secret: bytes = field(repr=False)
    slot_seconds: int

    @classmethod
    def of(cls, answers: ResetAnswers) -> _PlainAnswers:
        return cls(
            _PlainWrap.of(answers.wrap),
            answers.cookie_secret,
            CookieJar(answers.cookie_secret, answers.hand_window).slot_seconds,
        )


def _handle(number: int | None) -> PeerHandle | None:
    return None if number is None else PeerHandle(number)


_EVENTS: Final[dict[str, Callable[..., DataplaneEvent]]] = {
    "control_received": lambda datagram, source: ControlReceived(datagram, Endpoint(*source)),
    "stream_closed": lambda endpoint, reason: StreamClosed(Endpoint(*endpoint), reason),
    "peer_floated": lambda handle, now, before: PeerFloated(handle, Endpoint(*now), Endpoint(*before)),
    "peer_expired": PeerExpired,
    "session_unknown": SessionUnknown,
    "framing_refused": FramingRefused,
    "key_near_limit": KeyNearLimit,
    "occ_received": OccReceived,
    "station_moved": lambda station, before, now: StationMoved(Station(*station), before, now),
    "tap_failed": TapFailed,
}
"""By the module's name for an event. Its values are the fields of the contract's class, in that order."""


def _peer_snapshot(peer: _PeerSnapshot) -> PeerSnapshot:
    last_seen = peer["last_seen"]
    return PeerSnapshot(
        handle=PeerHandle(peer["handle"]),
        endpoint=Endpoint(*peer["endpoint"]),
        counters=PeerCounters(**peer["counters"]),
        last_seen=None if last_seen is None else UnixSeconds(last_seen),
        fdb_entries=peer["fdb_entries"],
        replay_mark=peer["replay_mark"],
        packet_id_used_ratio=peer["packet_id_used_ratio"],
        aead_used_ratio=peer["aead_used_ratio"],
    )
