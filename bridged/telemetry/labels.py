"""Label values in the form that the collector needs. Pure: no I/O. Source: bridged/catalogue/counters.py."""

from __future__ import annotations

from typing import Final, get_args

from bridged.catalogue.counters import DROP_REASONS, DropClass

DIRECTIONS: Final = ("receive", "transmit")
FRAME_KINDS: Final = ("unicast", "unknown_unicast", "broadcast", "multicast")

DROP_CLASSES: Final[tuple[DropClass, ...]] = get_args(DropClass)
ALL_DROP_REASONS: Final = tuple(reason.name for reason in DROP_REASONS)

_CLASS_OF_REASON: Final[dict[str, DropClass]] = {reason.name: reason.group for reason in DROP_REASONS}


def drop_class(reason: str) -> DropClass:
    """The class of a reason. A reason that is not in the table is the peer's: `malformed`."""
    return _CLASS_OF_REASON.get(reason, "malformed")
