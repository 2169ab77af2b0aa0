"""The file of refused keys: what people write into it, and what the CA does."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bridged.pki import EmbeddedCa, refused_keys_path
from bridged.pki.refused_list import add_refused, parse_refused, remove_refused

ONE, TWO = "0" * 31 + "a", "F" * 32


def test_a_list_without_a_last_line_break_loses_nobody(tmp_path: Path) -> None:
    authority = EmbeddedCa.create(tmp_path)
    authority.make_wrap_keys()
    authority.issue("office", "client")
    path = refused_keys_path(tmp_path)
    path.write_text(f"{ONE} laptop")
    authority.revoke("office")
    lines = path.read_text().splitlines()
    assert lines[0] == f"{ONE} laptop" and lines[1].endswith(" office")
    found, problem = parse_refused(path.read_text())
    assert (len(found), problem) == (2, "")


def test_lines_comments_and_capitals(tmp_path: Path) -> None:
    text = f"# stolen in May\n\n{TWO} van # white\n  {ONE}\nlaptop\n"
    found, problem = parse_refused(text)
    assert found == {bytes.fromhex(ONE), bytes.fromhex(TWO)} and "line 5" in problem
    path = tmp_path / "refused-keys"
    path.write_text(text)
    assert add_refused(path, [(TWO.lower(), "van")]) == 0
    assert remove_refused(path, TWO.lower()) and not remove_refused(path, TWO.lower())
    assert path.read_text() == f"# stolen in May\n\n  {ONE}\nlaptop\n"


@pytest.mark.parametrize("size", [0, 1, 100_000])
def test_no_line_is_beyond_what_is_read(size: int) -> None:
    keys = [os.urandom(16) for _ in range(size)]
    assert parse_refused("".join(f"{key.hex()} name\n" for key in keys)) == (frozenset(keys), "")
