"""Data planes: the contract, and the builds behind it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from bridged.catalogue.settings import COALESCE_KINDS, CoalesceKind
from bridged.dataplane import native
from bridged.dataplane.contract import DataPlane, DataplaneSettings, TapPort

DataplaneKind = Literal["auto", "portable", "native"]
Build = Literal["portable", "native"]

PORTABLE_TAP_OFFLOADS: Final[frozenset[str]] = frozenset()
"""Empty: the kernel cuts super-frames faster than Python does (measured: tests/bench/dataplane_pair.py)."""

NATIVE_TAP_OFFLOADS: Final[frozenset[str]] = frozenset({"csum", "tso4", "tso6", "tso_ecn", "uso4", "uso6"})


PORTABLE_COALESCE_KINDS: Final[frozenset[CoalesceKind]] = frozenset({"tcp4", "tcp6"})


@dataclass(frozen=True, slots=True)
class DataplaneChoice:
    """The build that a kind means here, and why. `is_fallback`: `auto` did not find the native one."""

    kind: Build
    reason: str
    is_fallback: bool = False


def choose_dataplane(kind: DataplaneKind) -> DataplaneChoice:
    """The build for a kind on this machine; `auto` is native if it is built, else portable.

    Raises:
        DataplaneError: `native_unavailable`, for `native` only; the text says what to do.
    """
    if kind == "portable":
        return DataplaneChoice("portable", "configured")
    if kind == "native":
        native.require()
        return DataplaneChoice("native", "configured")
    missing = native.unavailable()
    if missing:
        return DataplaneChoice("portable", missing, is_fallback=True)
    return DataplaneChoice("native", "native module available")


def create_dataplane(kind: DataplaneKind, settings: DataplaneSettings) -> DataPlane:
    """A data plane that has not started yet; see `choose_dataplane` for the build.

    Raises:
        DataplaneError: `native_unavailable`.
    """
    if choose_dataplane(kind).kind == "native":
        return native.NativeDataPlane(settings)
    from bridged.dataplane.portable.plane import PortableDataPlane

    return PortableDataPlane(settings)


def tap_offloads(kind: DataplaneKind) -> frozenset[str]:
    """The offloads to ask for when a TAP is opened for this kind; the kernel may have fewer.

    Raises:
        DataplaneError: `native_unavailable`.
    """
    return NATIVE_TAP_OFFLOADS if choose_dataplane(kind).kind == "native" else PORTABLE_TAP_OFFLOADS


def coalesce_kinds(build: Build, tap: TapPort) -> frozenset[CoalesceKind]:
    """What this build can join into super-frames for this TAP; nothing without a virtio-net header."""
    if not tap.virtio_header_size:
        return frozenset()
    if build == "portable":
        return PORTABLE_COALESCE_KINDS
    has_uso = bool(tap.offloads & {"uso4", "uso6"})
    return COALESCE_KINDS if has_uso else COALESCE_KINDS - {"udp4", "udp6"}


def coalesce(build: Build, frames: list[bytes], vnet_octets: int) -> list[tuple[bytes, int]]:
    """What this build writes to a TAP for one batch of frames: each write, and how many frames it holds.

    `vnet_octets`: bytes of the virtio-net header, 10 or 12.

    Raises:
        DataplaneError: `native_unavailable`.
    """
    if build == "native":
        return native.coalesce(frames, vnet_octets)
    from bridged.dataplane.portable.headers.coalesce import Coalescer

    return Coalescer(vnet_octets).coalesce(frames)


def fits_segments(kind: DataplaneKind, tap: TapPort) -> bool:
    """Whether TCP from this TAP is cut to fit each peer's path, and the MSS of SYN segments is lowered to it.

    Raises:
        DataplaneError: `native_unavailable`.
    """
    return choose_dataplane(kind).kind == "native" and {"tso4", "tso6"} <= tap.offloads


__all__ = [
    "Build",
    "CoalesceKind",
    "DataPlane",
    "DataplaneChoice",
    "DataplaneKind",
    "DataplaneSettings",
    "choose_dataplane",
    "coalesce",
    "coalesce_kinds",
    "create_dataplane",
    "fits_segments",
    "tap_offloads",
]
