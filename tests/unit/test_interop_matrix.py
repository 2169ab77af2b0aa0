"""The table of the interop matrix: every combination that real configurations have is one of its cells."""

from __future__ import annotations

from bridged.profiles import read_file
from tests.interop.matrix import SOFTETHER, Cell, cells
from tests.interop_report import InteropReport
from tests.unit.profiles.real_configurations import Row, rows

UNSET = ("", "BF-CBC")
"""Before 2.6 they mean the same."""


def covers(cell: Cell, row: Row) -> bool:
    """Whether OpenVPN has this file's lines in the cell, and our end the part of whoever had the file."""
    compression = "comp-lzo" if cell.their_compression.startswith("comp-lzo") else cell.their_compression
    return (
        cell.ours.startswith(row.role)
        and (cell.release, cell.transport, cell.wrap) == (row.release, row.transport, row.wrap)
        and (cell.digest, bool(cell.fragment)) == (row.digest, row.has_fragments)
        and compression == row.compression
        and (cell.their_cipher == row.cipher or {cell.their_cipher, row.cipher} <= set(UNSET))
    )


def test_every_combination_of_a_real_configuration_is_a_cell() -> None:
    table = cells()
    wanted = [row for row in rows() if not read_file(row.text({}), row.name).errors]
    assert len(wanted) >= 65
    assert [row.name for row in wanted if not any(covers(cell, row) for cell in table)] == []


def test_passwords_are_asked_for_in_both_roles_over_both_transports() -> None:
    asked = {(cell.ours, cell.transport) for cell in cells() if cell.login}
    assert asked == {(role, transport) for role in ("server", "client") for transport in ("udp", "tcp")}


def test_no_cell_stands_twice_in_the_table() -> None:
    names = [cell.name for cell in cells()]
    assert len(set(names)) == len(names)


def test_every_pair_of_role_wrap_cipher_and_release_is_a_cell() -> None:
    axes = ("ours", "wrap", "cipher", "release", "keys")
    wanted = {
        "ours": ("server", "client"),
        "wrap": ("none", "tls-auth", "tls-crypt"),
        "cipher": ("AES-256-GCM", "AES-128-GCM", "CHACHA20-POLY1305"),
        "release": ("2.5", "2.7", "installed"),
        "keys": ("exporter", "epoch", "prf"),
    }
    table = cells()
    missing = [
        (one, other)
        for number, first in enumerate(axes)
        for second in axes[number + 1 :]
        for one in wanted[first]
        for other in wanted[second]
        if not any((getattr(cell, first), getattr(cell, second)) == (one, other) for cell in table)
    ]
    # OpenVPN 2.5 has no exporter, and only 2.7 has epochs.
    assert missing == [("2.5", "exporter"), ("2.5", "epoch"), ("installed", "epoch")]


def test_old_ciphers_links_and_static_keys_are_cut_framed_and_carried_by_tcp() -> None:
    table = [cell for cell in cells() if cell.release != SOFTETHER]
    kinds = {
        "CBC": lambda cell: cell.cipher.endswith("-CBC") and not cell.is_link,
        "AES-192": lambda cell: cell.cipher.startswith("AES-192") and not cell.is_link,
        "epoch": lambda cell: cell.keys == "epoch",
        "link": lambda cell: cell.is_link and cell.keys != "static",
        "static": lambda cell: cell.keys == "static",
    }
    ways = {
        "tcp": lambda cell: cell.transport == "tcp",
        "fragment": lambda cell: bool(cell.fragment),
        "framing": lambda cell: bool(cell.framing),
    }
    ends = ("client", "server")
    missing = [
        (kind, way, end)
        for kind, is_kind in kinds.items()
        for way, goes in ways.items()
        for end in ends
        if not any(is_kind(cell) and goes(cell) and cell.ours.endswith(end) for cell in table)
    ]
    assert missing == []


def test_softether_s_server_is_called_over_both_transports_with_both_kinds_of_ciphers() -> None:
    table = [cell for cell in cells() if cell.release == SOFTETHER]
    assert {(cell.transport, cell.cipher.endswith("-CBC")) for cell in table} == {
        (transport, is_cbc) for transport in ("udp", "tcp") for is_cbc in (True, False)
    }


def test_a_report_names_every_column_and_the_result() -> None:
    report = InteropReport()
    report.rows["one"] = (["2.6", "server", "udp"], "**failed**")
    assert "1 cells, 1 failed." in report.text()
    assert "| 2.6 | server | udp | **failed** |" in report.text()
    assert all(f" {name} |" in report.text() for name in ("release", "wrap", "cipher", "framing", "result"))
