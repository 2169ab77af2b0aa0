"""VLANs of a bridge port, and those that a TAP gets on a VLAN-aware bridge.

Source: IEEE 802.1Q-2022, 8.8 (member sets, PVID, untagged sets); bridge(8), `vlan`.
Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Final, TypeAlias

FIRST: Final = 1
LAST: Final = 4094
_TEXT: Final = re.compile(r"(\d{1,4})(?:-(\d{1,4}))?( untagged)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class VlanRange:
    """VLANs `first` to `last` of a port.

    `pvid`: untagged frames that arrive belong to it (one VLAN only). `untagged`: its frames leave without a
    tag.
    """

    first: int
    last: int
    pvid: bool = False
    untagged: bool = False


Flags: TypeAlias = tuple[bool, bool]
"""(PVID, untagged)"""


def parse_vlans(texts: Iterable[str]) -> tuple[VlanRange, ...]:
    """VLANs from texts such as `20`, `100-199` or `1 untagged` (which is also the PVID), each VLAN once.

    Raises:
        ValueError: another form, a number outside 1..4094, a VLAN twice, or two untagged ones.
    """
    found: dict[int, Flags] = {}
    for text in texts:
        matched = _TEXT.fullmatch(text)
        if matched is None:
            raise ValueError(f'{text!r} is not a VLAN: write 20, "100-199" or "1 untagged"')
        first, last = int(matched[1]), int(matched[2] or matched[1])
        if not FIRST <= first <= last <= LAST:
            raise ValueError(f"{text!r}: VLANs are {FIRST} to {LAST}")
        untagged = matched[3] is not None
        if untagged and (first != last or any(is_pvid for is_pvid, _ in found.values())):
            raise ValueError(f"{text!r}: one VLAN alone can be untagged")
        for number in range(first, last + 1):
            if number in found:
                raise ValueError(f"{text!r}: VLAN {number} is named twice")
            found[number] = (untagged, untagged)
    return ranges(found)


def ranges(members: Mapping[int, Flags]) -> tuple[VlanRange, ...]:
    """The form in which VLANs are compared: in order, neighbours of the same kind joined."""
    found = []
    # Consecutive numbers have the same difference to their place; the PVID stands alone.
    rows = enumerate(sorted(members))
    for (_, (pvid, untagged)), group in groupby(
        rows, lambda row: (row[1] if members[row[1]][0] else row[1] - row[0] - 10_000, members[row[1]])
    ):
        numbers = [number for _, number in group]
        found.append(VlanRange(numbers[0], numbers[-1], pvid, untagged))
    return tuple(found)


def members(vlans: Iterable[VlanRange]) -> dict[int, Flags]:
    """VLAN -> (PVID, untagged)."""
    return {
        number: (part.pvid, part.untagged) for part in vlans for number in range(part.first, part.last + 1)
    }


def joined(ports: Iterable[tuple[VlanRange, ...]]) -> tuple[VlanRange, ...]:
    """What one port needs to carry all VLANs of several: the first one's as they are, the others' tagged.

    Two untagged VLANs could not be distinguished at the far end.
    """
    found: dict[int, Flags] = {}
    for number, port in enumerate(ports):
        for vlan, flags in members(port).items():
            found.setdefault(vlan, flags if number == 0 else (False, False))
    return ranges(found)


def changes(
    was: tuple[VlanRange, ...], wished: tuple[VlanRange, ...]
) -> tuple[tuple[VlanRange, ...], tuple[VlanRange, ...]]:
    """(to set, to remove), for a port that has `was` and should have `wished`."""
    before, after = members(was), members(wished)
    to_set = {vlan: flags for vlan, flags in after.items() if before.get(vlan) != flags}
    to_remove = {vlan: flags for vlan, flags in before.items() if vlan not in after}
    return ranges(to_set), ranges(to_remove)
