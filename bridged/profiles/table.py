"""The table of all directives of OpenVPN 2.3 to 2.8, and what bridged does with each.

Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from bridged.profiles.directives import IGNORED, NOTED, OF_CONNECTIONS, REFUSED, treatment_by_prefix
from bridged.profiles.draft import Mapper
from bridged.profiles.mapping import INLINE, MAPPERS


@dataclass(frozen=True, slots=True)
class Directive:
    """What bridged does with one directive.

    `taken`: it has a counterpart here, and a `mapper` (except those that the importer handles itself).
    `ignored`: it has no effect, or bridged does so anyway. `noted`: it has no effect, and `text` says so.
    `refused`: `text` says why, and what to do. `is_block`: can be written `<name>`. `is_of_connection`: may
    be used in `<connection>`.
    """

    kind: Literal["taken", "ignored", "noted", "refused"]
    text: str = ""
    mapper: Mapper | None = None
    is_block: bool = True
    is_of_connection: bool = False


def _table() -> dict[str, Directive]:
    found = {
        **{name: Directive("taken", "", mapper, name in INLINE) for name, mapper in MAPPERS.items()},
        **{name: Directive("taken") for name in ("connection", "setenv")},
        **{name: Directive("ignored") for name in IGNORED},
        **{name: Directive("noted", text) for name, text in NOTED.items()},
        **{name: Directive("refused", text) for name, text in REFUSED.items()},
    }
    return {
        name: Directive(entry.kind, entry.text, entry.mapper, entry.is_block, name in OF_CONNECTIONS)
        for name, entry in found.items()
    }


DIRECTIVES: Final = _table()


def find_directive(name: str) -> Directive | None:
    """What bridged does with `name`; None if OpenVPN does not know it."""
    if name in DIRECTIVES:
        return DIRECTIVES[name]
    family = treatment_by_prefix(name)
    if family is None:
        return None
    return Directive("noted" if family[0] == "note" else "refused", family[1])
