"""What OpenVPN can do and this version cannot yet: one table.

Who adds an ability removes its entry here, and gives its directives mappers in `bridged.profiles.mapping`.
Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

Ability = Literal["vlans"]


@dataclass(frozen=True, slots=True)
class Missing:
    """One ability that is missing. `reason`: why a directive is refused, and what to do. `directives`: those
    that are refused whatever their values are.
    """

    reason: str
    directives: tuple[str, ...] = ()


NOT_YET: Final[Mapping[Ability, Missing]] = {
    "vlans": Missing(
        "OpenVPN keeps the clients of each VLAN apart, and a tunnel of this version would join them all; "
        "make a tunnel and a bridge for each VLAN, with ports such as `eth1.20`, then remove the lines with "
        "`vlan-`",
        ("vlan-tagging", "vlan-accept", "vlan-pvid"),
    ),
}
