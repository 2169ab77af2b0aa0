"""The compiled module, native/py. Only bridged/dataplane/native.py imports it, and tests of the builds."""

from typing import Final, TypedDict, final

from bridged.addresses import Endpoint
from bridged.dataplane.contract import (
    DataplaneSettings,
    Direction,
    FrameKind,
    PeerSettings,
    StationEventKind,
    TapPort,
)
from bridged.dataplane.native import _PlainAnswers
from bridged.protocol.keys.key_derivation import DataKey

__all__ = ["SEAM", "DataPlane", "Fdb", "ReplayWindow", "clamp_mss", "coalesce", "segment"]

SEAM: Final[int]
"""Version of what is between this module and native.py."""

class _PeerCounters(TypedDict):
    frames: dict[tuple[Direction, FrameKind], int]
    bytes: dict[tuple[Direction, FrameKind], int]
    wire_bytes: dict[Direction, int]
    wire_datagrams: dict[Direction, int]
    sequence: dict[str, int]
    drops: dict[tuple[Direction, str], int]

class _PeerSnapshot(TypedDict):
    handle: int
    endpoint: tuple[str, int]
    counters: _PeerCounters
    last_seen: float | None
    fdb_entries: int
    packet_id_used_ratio: float
    aead_used_ratio: float

class _Snapshot(TypedDict):
    dataplane: str
    aead: str
    workers: int
    peers: list[_PeerSnapshot]
    drops: dict[tuple[Direction, str], int]
    fdb_entries: int
    fdb_capacity: int
    counts: dict[str, dict[str, int]]
    offloads: dict[str, bool]
    offload_fallbacks: dict[tuple[str, str], int]
    queues: dict[str, tuple[int, int]]
    histograms: dict[str, tuple[tuple[float, ...], tuple[int, ...], float]]
    thread_cpu: dict[str, float]

@final
class DataPlane:
    """As `bridged.dataplane.contract.DataPlane`, in plain values. Errors are `DataplaneError`."""

    def __new__(cls, settings: DataplaneSettings) -> DataPlane: ...
    def start(self) -> None: ...
    def stop(self) -> None: ...
    def local_endpoint(self) -> tuple[str, int] | None: ...
    def attach_tap(self, tap: TapPort) -> None: ...
    def use_socket(self, descriptor: int | None) -> None: ...
    def use_sizes(self, wan_mtu: int, mss_limit: int) -> None: ...
    def add_peer(self, peer: PeerSettings) -> None: ...
    def remove_peer(self, handle: int) -> _PeerSnapshot: ...
    def expect_key(self, handle: int, key_id: int) -> None: ...
    def install_key(self, handle: int, key: DataKey) -> None: ...
    def use_key(self, handle: int, key_id: int) -> None: ...
    def remove_key(self, handle: int, key_id: int) -> None: ...
    def answer_resets(self, answers: _PlainAnswers | None) -> None: ...
    def expect(self, endpoint: Endpoint) -> None: ...
    def stop_expecting(self, endpoint: Endpoint) -> None: ...
    def send_control(self, datagram: bytes, destination: Endpoint) -> None: ...
    def send_payload(self, handle: int, payload: bytes) -> None: ...
    def event_fd(self) -> int: ...
    def poll_events(self, limit: int) -> list[tuple[str, *tuple[object, ...]]]: ...
    def snapshot(self) -> _Snapshot: ...
    def fdb(self) -> list[tuple[tuple[int, bytes], int | None, float, bool]]:
        """VLAN and MAC, port, age in seconds, and whether it is static."""

    def find_station(self, vlan: int, mac: bytes) -> tuple[int | None, float, bool] | None:
        """Port, age in seconds, and whether it is static."""

    def install_station(self, vlan: int, mac: bytes, handle: int | None, is_static: bool) -> None: ...
    def remove_station(self, vlan: int, mac: bytes) -> None: ...
    def station_events(
        self, after: int
    ) -> tuple[list[tuple[StationEventKind, int, bytes, int | None]], int, int]:
        """The events (kind, VLAN, MAC, port), the position behind them, and how many were lost."""

def segment(packet: bytes, vnet_octets: int, fit: int) -> list[bytes]:
    """The frames of one read of the TAP; TCP is cut to `fit` octets a frame (0: as it says itself).

    Raises:
        ValueError: a virtio-net header that does not fit the frame.
    """

def coalesce(
    frames: list[bytes], vnet_octets: int, has_uso: bool, tagged: bool
) -> list[tuple[bytes, int]]: ...
def clamp_mss(frame: bytes, limit: int) -> bytes | None: ...

@final
class ReplayWindow:
    """As `bridged.protocol.keys.replay.ReplayWindow`."""

    def __new__(cls, size: int) -> ReplayWindow: ...
    @property
    def highest(self) -> int: ...
    def verdict(self, packet_id: int) -> str | None: ...
    def accept(self, packet_id: int) -> bool: ...

@final
class Fdb:
    """As `bridged.dataplane.portable.tables.fdb.Fdb`; ports are peer handles from 1, or None for the TAP."""

    def __new__(cls, *, capacity: int, addresses_per_peer: int, ageing: float, move_hold: float) -> Fdb: ...
    def __len__(self) -> int: ...
    def learn(self, address: bytes, at: int | None, now: float) -> str | None: ...
    def find(self, address: bytes, now: float) -> tuple[int | None] | None:
        """`(port,)` of a known station."""

    def count(self, at: int | None) -> int: ...
    def flush(self, at: int | None) -> int: ...
    def sweep(self, now: float) -> int: ...
    def changes(self) -> list[tuple[str, int]]: ...
