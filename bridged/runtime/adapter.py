"""The TAP of one tunnel: opened with its address, handed to the data plane, opened again when it vanishes."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final

from bridged.addresses import MacAddress
from bridged.configuration.schema import Tunnel
from bridged.dataplane.contract import TapPort
from bridged.tap import MacPolicy, Offload, TapAdapter, TapSettings, choose_mac, open_tap
from bridged.units import Octets

_OFFLOAD_NAMES: Final = {
    Offload.CSUM: "csum",
    Offload.TSO4: "tso4",
    Offload.TSO6: "tso6",
    Offload.TSO_ECN: "tso_ecn",
    Offload.USO4: "uso4",
    Offload.USO6: "uso6",
}


def open_adapter(
    name: str,
    tunnel: Tunnel,
    state_directory: Path,
    offloads: Collection[str],
    taken: Collection[MacAddress],
    on_conflict: Callable[[MacAddress], None],
) -> TapAdapter:
    """Open and lock the adapter, with its MAC address chosen against `taken`; it is up afterwards.

    `offloads`: names of what the data plane reads from the TAP (`csum`, `tso4`, …). `on_conflict` hears of
    each candidate address that was taken.

    Raises:
        TapError, AdapterLockedError: as `open_tap` and `choose_mac`.
    """
    mac = choose_mac(
        MacPolicy.parse(tunnel.tap.mac), name, state_directory, taken.__contains__, on_conflict=on_conflict
    )
    wanted = Offload.NONE
    for offload, word in _OFFLOAD_NAMES.items():
        if tunnel.tap.offload and word in offloads:
            wanted |= offload
    adapter = open_tap(
        TapSettings(
            name=name,
            persistent=tunnel.tap.persistent,
            mac=mac,
            mtu=tunnel.tap.mtu or tunnel.mtu,
            txqueuelen=tunnel.tap.queue_frames,
            virtio_header=tunnel.tap.offload,
            offloads=wanted,
            lock=tunnel.tap.lock,
        )
    )
    try:
        adapter.up()
    except BaseException:
        adapter.close()
        raise
    return adapter


def tap_port(adapter: TapAdapter) -> TapPort:
    """The adapter as a data plane takes it."""
    return TapPort(
        fds=adapter.fds,
        name=adapter.name,
        mac=adapter.mac,
        mtu=Octets(adapter.mtu),
        virtio_header_size=adapter.virtio_header_size,
        offloads=frozenset(word for offload, word in _OFFLOAD_NAMES.items() if offload & adapter.offloads),
    )
