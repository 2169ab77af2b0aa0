"""The table of all directives of OpenVPN 2.3 to 2.8, and what bridged does with each.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

from bridged.profiles.directives import (
    IGNORED,
    NOTED,
    OF_CONNECTIONS,
    REFUSED,
    SERVER_IGNORED,
    SERVER_NOTED,
    SERVER_REFUSED,
    treatment_by_prefix,
)
from bridged.profiles.draft import FileRole, Mapper
from bridged.profiles.mapping import INLINE, MAPPERS
from bridged.profiles.mapping_server import SERVER_MAPPERS
from bridged.profiles.not_yet import NOT_YET, Ability


@dataclass(frozen=True, slots=True)
class Directive:
    """What bridged does with one directive.

    `taken`: it has a counterpart here, and a `mapper` (except those that the importer handles itself).
    `ignored`: it has no effect, or bridged does so anyway. `noted`: it has no effect, and `text` says so.
    `refused`: `text` says why, and what to do; `needs`: because this version lacks an ability. `is_block`:
    can be written `<name>`. `is_of_connection`: may be used in `<connection>`.
    """

    kind: Literal["taken", "ignored", "noted", "refused"]
    text: str = ""
    mapper: Mapper | None = None
    is_block: bool = True
    is_of_connection: bool = False
    needs: Ability | None = None


def _mapped(mappers: Mapping[str, Mapper]) -> dict[str, Directive]:
    return {name: Directive("taken", "", mapper, name in INLINE) for name, mapper in mappers.items()}


def _texts(kind: Literal["noted", "refused"], texts: Mapping[str, str]) -> dict[str, Directive]:
    return {name: Directive(kind, text) for name, text in texts.items()}


def _missing() -> dict[str, Directive]:
    return {
        name: Directive("refused", missing.reason, needs=ability)
        for ability, missing in NOT_YET.items()
        for name in missing.directives
    }


def _of_client() -> dict[str, Directive]:
    found = {
        **_mapped(MAPPERS),
        **{name: Directive("taken") for name in ("connection", "setenv")},
        **{name: Directive("ignored") for name in IGNORED},
        **_texts("noted", NOTED),
        **_texts("refused", REFUSED),
        **_missing(),
    }
    return {name: replace(entry, is_of_connection=name in OF_CONNECTIONS) for name, entry in found.items()}


def _of_server() -> dict[str, Directive]:
    return {
        **_of_client(),
        **_mapped(SERVER_MAPPERS),
        **{name: Directive("ignored") for name in SERVER_IGNORED},
        **_texts("noted", SERVER_NOTED),
        **_texts("refused", SERVER_REFUSED),
    }


DIRECTIVES: Final[Mapping[FileRole, Mapping[str, Directive]]] = {
    "client": _of_client(),
    "server": _of_server(),
}


def find_directive(name: str, role: FileRole = "client") -> Directive | None:
    """What bridged does with `name` in a file of this role; None if OpenVPN does not know it."""
    if name in DIRECTIVES[role]:
        return DIRECTIVES[role][name]
    family = treatment_by_prefix(name)
    if family is None:
        return None
    return Directive("noted" if family[0] == "note" else "refused", family[1])
