"""VLANs of a port: in text, as ranges, of several ports, and what to change."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridged.link_planning.vlans import VlanRange, changes, joined, members, parse_vlans, ranges

FLAGS = st.sampled_from(((False, False), (False, True)))
MEMBERS = st.dictionaries(st.integers(1, 4094), FLAGS, max_size=60)


def test_vlans_are_written_as_number_range_or_untagged() -> None:
    assert parse_vlans(["20", "100-199", "1 untagged"]) == (
        VlanRange(1, 1, pvid=True, untagged=True),
        VlanRange(20, 20),
        VlanRange(100, 199),
    )


@pytest.mark.parametrize(
    ("texts", "reason"),
    [
        (["0"], "1 to 4094"),
        (["4095"], "1 to 4094"),
        (["30-20"], "1 to 4094"),
        (["all"], "not a VLAN"),
        (["-5"], "not a VLAN"),
        (["20", "10-30"], "twice"),
        (["1 untagged", "2 untagged"], "one VLAN"),
        (["1-2 untagged"], "one VLAN"),
    ],
)
def test_what_makes_no_sense_is_refused(texts: list[str], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_vlans(texts)


@given(MEMBERS, st.none() | st.integers(1, 4094))
def test_ranges_say_the_same_as_the_members_and_are_the_shortest(
    found: dict[int, tuple[bool, bool]], pvid: int | None
) -> None:
    if pvid is not None:
        found[pvid] = (True, True)
    parts = ranges(found)
    assert members(parts) == found
    for part, following in itertools.pairwise(parts):
        assert part.last < following.first
        mergeable = not (part.pvid or following.pvid) and part.untagged == following.untagged
        assert not (mergeable and part.last + 1 == following.first)
    assert all(part.first == part.last for part in parts if part.pvid)


@given(MEMBERS, MEMBERS)
def test_changes_make_the_one_of_the_other(
    was: dict[int, tuple[bool, bool]], wished: dict[int, tuple[bool, bool]]
) -> None:
    to_set, to_remove = changes(ranges(was), ranges(wished))
    now = {**was, **members(to_set)}
    for vlan in members(to_remove):
        del now[vlan]
    assert now == wished


@given(st.lists(MEMBERS, max_size=4))
def test_several_ports_together_have_all_vlans_and_no_second_untagged_one(
    ports: list[dict[int, tuple[bool, bool]]],
) -> None:
    found = members(joined(map(ranges, ports)))
    assert found.keys() == {vlan for port in ports for vlan in port}
    first = ports[0] if ports else {}
    assert all(flags == first.get(vlan, (False, False)) for vlan, flags in found.items())
