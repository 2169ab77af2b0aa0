"""Data planes: the contract, and the builds behind it."""

from __future__ import annotations

from typing import Final, Literal

from bridged.dataplane.contract import DataPlane, DataplaneSettings
from bridged.dataplane.portable import PortableDataPlane
from bridged.errors import DataplaneError

DataplaneKind = Literal["auto", "portable", "native"]


PORTABLE_TAP_OFFLOADS: Final[frozenset[str]] = frozenset()
"""None: the kernel cuts super-frames faster than Python does (measured: tests/bench/dataplane_pair.py)."""


def create_dataplane(kind: DataplaneKind, settings: DataplaneSettings) -> DataPlane:
    """A data plane that has not started yet. `auto` takes the fastest build there is.

    Raises:
        DataplaneError: `native_unavailable`.
    """
    if kind == "native":
        raise DataplaneError(
            "native_unavailable", "this build has no native data plane; set `dataplane: auto` or `portable`"
        )
    return PortableDataPlane(settings)


def tap_offloads(kind: DataplaneKind) -> frozenset[str]:
    """Offloads with which a TAP shall be opened for this kind, as far as the kernel has them."""
    del kind  # one build so far
    return PORTABLE_TAP_OFFLOADS


__all__ = ["DataPlane", "DataplaneKind", "DataplaneSettings", "create_dataplane", "tap_offloads"]
