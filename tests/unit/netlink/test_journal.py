"""A journal that cannot be used is put aside and said; it never raises, whatever is in it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridged.link_planning.links import HostAddress, HostRoute, Link
from bridged.link_planning.wishes import BridgeTap, BridgeWish, Ownership
from bridged.netlink.journal import Journal

WISH = BridgeWish("br0", ports=("eth1",), taps=(BridgeTap("tap0"),), addresses=("192.0.2.1/24",), stp=False)
OURS = Ownership(
    bridge_made=True,
    links_before=(Link("eth1", 7),),
    handed_over=(HostAddress("eth1", "192.0.2.2/24", valid_until=12.5),),
    added_routes=(HostRoute(2, "0.0.0.0/0", "br0", gateway="192.0.2.254"),),
)


def _stored(folder: Path) -> Path:
    path = folder / "br0.json"
    Journal(path).store(OURS, WISH)
    return path


def test_what_was_stored_is_loaded(tmp_path: Path) -> None:
    journal = Journal(_stored(tmp_path))
    record = journal.load()
    assert record is not None and (record.ownership, record.wish) == (OURS, WISH)
    assert journal.damage is None


@settings(deadline=None)
@given(data=st.data())
def test_any_damage_is_put_aside_and_never_raises(data: st.DataObject, tmp_path_factory: Any) -> None:
    path = _stored(tmp_path_factory.mktemp("journal"))
    good = path.read_bytes()
    cut = st.integers(0, len(good) - 1).map(lambda length: good[:length])
    nested = st.integers(1, 200_000).map(lambda depth: b"[" * depth)
    foreign = st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    ).map(lambda value: json.dumps(value).encode())
    text = data.draw(st.binary(max_size=200) | cut | nested | foreign)
    path.write_bytes(text)
    journal = Journal(path)
    assert journal.load() is None
    assert journal.damage is not None and not path.exists()
    assert path.with_name("br0.json.damaged").read_bytes() == text
    journal.store(OURS, WISH)
    assert journal.load() is not None


@pytest.mark.parametrize("kind", ["directory", "fifo", "link", "huge"])
def test_what_is_no_ordinary_file_is_put_aside(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "br0.json"
    match kind:
        case "directory":
            path.mkdir()
        case "fifo":
            os.mkfifo(path)
        case "link":
            path.symlink_to("/etc/hostname")
        case "huge":
            with path.open("wb") as file:
                file.truncate(1 << 30)
    journal = Journal(path)
    assert journal.load() is None
    assert journal.damage is not None and not path.is_symlink() and not path.exists()


def test_a_value_of_the_right_type_that_makes_no_sense_is_damage(tmp_path: Path) -> None:
    path = _stored(tmp_path)
    record = json.loads(path.read_text())
    record["ownership"]["added_routes"][0]["family"] = 10
    path.write_text(json.dumps(record))
    journal = Journal(path)
    assert journal.load() is None and journal.damage is not None


def test_a_record_of_version_1_has_no_wish(tmp_path: Path) -> None:
    path = _stored(tmp_path)
    record = json.loads(path.read_text())
    del record["wish"]
    record["version"] = 1
    path.write_text(json.dumps(record))
    found = Journal(path).load()
    assert found is not None and found.wish is None and found.ownership == OURS
