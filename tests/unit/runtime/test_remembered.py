"""Which server worked last is known after a restart."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridged.addresses import Endpoint, Remote
from bridged.runtime.client.remembered import RememberedServer
from bridged.runtime.client.remote_order import Candidate

REMOTES = (Remote.parse("a.example:1194"), Remote.parse("b.example:1194/udp6"))
WORKED = Candidate(REMOTES[1], Endpoint("2001:db8::1", 1194))

GOOD = b"""{"remotes": ["a.example:1194", "b.example:1194/udp6"],
    "remote": "a.example:1194", "endpoint": "192.0.2.1:5"}"""


def test_what_worked_is_remembered_over_restarts(tmp_path: Path) -> None:
    path = tmp_path / "remotes" / "office.json"
    RememberedServer(path, REMOTES).save(WORKED)
    assert RememberedServer(path, REMOTES).load() == WORKED
    assert path.stat().st_mode & 0o777 == 0o600
    assert [found.name for found in path.parent.iterdir()] == ["office.json"]


def test_another_list_of_remotes_is_asked_in_its_own_order(tmp_path: Path) -> None:
    path = tmp_path / "office.json"
    RememberedServer(path, REMOTES).save(WORKED)
    assert RememberedServer(path, REMOTES[::-1]).load() is None
    assert RememberedServer(path, REMOTES[1:]).load() is None


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff\xfe",
        b'{"remotes": 1}',
        GOOD.replace(b'"a.example:1194", "end', b'7, "end'),
        GOOD.replace(b"192.0.2.1:5", b"x"),
        GOOD.replace(b"192.0.2.1:5", b"x:1"),
        GOOD.replace(b'"192.0.2.1:5"', b"5"),
        b"[" * 60000,
    ],
)
def test_a_damaged_file_is_as_none(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "office.json"
    path.write_bytes(text)
    remembered = RememberedServer(path, REMOTES)
    assert remembered.load() is None
    remembered.save(WORKED)
    assert RememberedServer(path, REMOTES).load() == WORKED


def test_the_file_of_these_tests_is_good(tmp_path: Path) -> None:
    path = tmp_path / "office.json"
    path.write_bytes(GOOD)
    assert RememberedServer(path, REMOTES).load() == Candidate(REMOTES[0], Endpoint("192.0.2.1", 5))


def test_a_folder_that_cannot_be_written_harms_nothing(tmp_path: Path) -> None:
    (tmp_path / "remotes").write_text("a file")
    remembered = RememberedServer(tmp_path / "remotes" / "office.json", REMOTES)
    assert remembered.load() is None
    remembered.save(WORKED)


def test_a_link_in_the_drafts_place_is_not_followed(tmp_path: Path) -> None:
    path, target = tmp_path / "office.json", tmp_path / "precious"
    target.write_text("precious")
    path.symlink_to(target)
    RememberedServer(path, REMOTES).save(WORKED)
    assert target.read_text() == "precious"
    assert not path.is_symlink()
