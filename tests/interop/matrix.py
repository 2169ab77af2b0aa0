"""The interop matrix: the rows of `matrix.txt`, each a test with real OpenVPN."""

from __future__ import annotations

from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Literal, get_args

from tests.lab.openvpn import INSTALLED, RELEASES, WrapMode

TABLE = Path(__file__).with_name("matrix.txt")
OUR_KINDS = Literal["server", "client", "link-server", "link-client"]
SOFTETHER = "softether"
DOMAINS: dict[str, frozenset[str]] = {
    "release": frozenset({*RELEASES, "installed", SOFTETHER}),
    "ours": frozenset(get_args(OUR_KINDS)),
    "transport": frozenset({"udp", "tcp"}),
    "wrap": frozenset({*get_args(WrapMode), "tls-crypt-v2", "static-key"}),
    "fragment": frozenset({"", "1300"}),
    "login": frozenset({"", "password"}),
    "keys": frozenset({"exporter", "epoch", "prf", "static"}),
    "framing": frozenset({"", "comp-lzo", "stub", "stub-v2"}),
}
"""What may stand in a column, for those with a choice of words."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One row; `matrix.txt` says what the columns mean. Empty: `-` in the table."""

    release: str
    ours: str
    transport: str
    wrap: str
    digest: str
    their_cipher: str
    their_compression: str
    fragment: str
    login: str
    cipher: str
    keys: str
    framing: str

    @property
    def name(self) -> str:
        """The test's: all columns."""
        return "_".join(value.replace(" ", "-") or "-" for value in astuple(self))

    @property
    def installed_or_release(self) -> str:
        return INSTALLED if self.release == "installed" else self.release

    @property
    def key_derivation(self) -> str:
        return "exporter" if self.keys == "epoch" else self.keys

    @property
    def is_link(self) -> bool:
        return self.ours.startswith("link-")

    @property
    def negotiates(self) -> bool:
        """Whether OpenVPN's end negotiates the cipher, as all do since 2.4 (point to point: since 2.6)."""
        names_old = self.their_cipher.startswith("AES-") and self.their_cipher.endswith("-CBC")
        return self.release != "2.5" or not (self.is_link or names_old)


def _lines() -> list[list[str]]:
    lines = [line for line in TABLE.read_text().splitlines() if line and not line.startswith("#")]
    return [[word.strip() for word in line.split("|")] for line in lines]


def heading() -> list[str]:
    """The names of the columns.

    Raises:
        ValueError: they are not those of `Cell`.
    """
    names = _lines()[0]
    if [name.replace(" ", "_") for name in names] != [field.name for field in fields(Cell)]:
        raise ValueError(f"{TABLE}: the columns are {names}")
    return names


def cells() -> list[Cell]:
    """All rows.

    Raises:
        ValueError: a word that its column does not have.
    """
    found = []
    for words in _lines()[1:]:
        values = ["" if word == "-" else word for word in words]
        cell = Cell(*values)
        for column, allowed in DOMAINS.items():
            if getattr(cell, column) not in allowed:
                raise ValueError(f"{TABLE}: {getattr(cell, column)!r} in {' | '.join(words)}")
        found.append(cell)
    return found
