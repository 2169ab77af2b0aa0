"""Data planes: the contract, and the builds behind it."""

from __future__ import annotations

from typing import Literal

from bridged.dataplane.contract import DataPlane, DataplaneSettings
from bridged.dataplane.portable import PortableDataPlane
from bridged.errors import DataplaneError

DataplaneKind = Literal["auto", "portable", "native"]


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


__all__ = ["DataPlane", "DataplaneKind", "DataplaneSettings", "create_dataplane"]
