"""MAC addresses: drawn, derived, kept; and the birthday formula against the exact product."""

from __future__ import annotations

import os
import tempfile
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridged_tap import MacAddress, MacMode, MacPolicy, TapError, choose_mac, collision_probability, draw_mac
from bridged_tap.mac import FREE_BITS, derive_mac, load_mac, store_mac
from bridged_tap.settings import check_name

octets6 = st.binary(min_size=6, max_size=6)
machine_ids = st.text("0123456789abcdef", min_size=32, max_size=32)
names = st.text(
    st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="/:%"), min_size=1, max_size=15
).filter(lambda name: name not in {".", ".."})
MASK = 0xFCFFFFFFFFFF
"""The 46 free bits; 0x02 of the first byte is set and 0x01 is clear."""


def free(_: MacAddress) -> bool:
    return False


@given(octets6)
def test_a_drawn_address_is_local_unicast_and_keeps_every_free_bit(drawn: bytes) -> None:
    mac = draw_mac(free, lambda size: drawn[:size])
    assert mac.octets[0] & 2
    assert not mac.is_multicast
    assert len(mac.octets) == 6
    assert int.from_bytes(mac.octets, "big") & MASK == int.from_bytes(drawn, "big") & MASK


def test_exactly_46_bits_are_free() -> None:
    assert MASK.bit_count() == FREE_BITS == 46
    # Each of them really moves the result, and no other bit of the source does.
    zero = draw_mac(free, bytes)
    moved = {draw_mac(free, lambda size, b=bit: (1 << b).to_bytes(size, "big")) for bit in range(48)}
    assert len(moved - {zero}) == 46


@given(st.lists(octets6, min_size=1, max_size=20, unique=True), octets6)
def test_taken_candidates_are_drawn_again_and_reported_in_order(rejected: list[bytes], last: bytes) -> None:
    taken = [draw_mac(free, lambda size, d=drawn: d) for drawn in rejected]
    if draw_mac(free, lambda size: last) in taken:
        last = b"\xa0" + os.urandom(5)
    source = iter([*rejected, last])
    conflicts: list[MacAddress] = []
    mac = draw_mac(taken.__contains__, lambda size: next(source), on_conflict=conflicts.append)
    assert mac not in taken
    assert conflicts == taken


@given(st.integers(1, 100))
def test_a_draw_gives_up_after_its_attempts(attempts: int) -> None:
    asked: list[MacAddress] = []

    def all_taken(mac: MacAddress) -> bool:
        asked.append(mac)
        return True

    with pytest.raises(TapError) as caught:
        draw_mac(all_taken, attempts=attempts)
    assert caught.value.code == "mac_exhausted"
    assert len(asked) == attempts


@given(machine_ids, names, st.integers(0, 70))
def test_a_derived_address_is_local_unicast_and_repeatable(machine_id: str, name: str, counter: int) -> None:
    mac = derive_mac(machine_id, name, counter)
    assert mac == derive_mac(machine_id, name, counter)
    assert mac.octets[0] & 2
    assert not mac.is_multicast


@given(machine_ids, st.lists(names, min_size=2, max_size=8, unique=True))
def test_derived_addresses_differ_between_names_counters_and_machines(
    machine_id: str, many: list[str]
) -> None:
    other = format(int(machine_id, 16) ^ 1, "032x")
    derived = [
        derive_mac(machine, name, n) for machine in (machine_id, other) for name in many for n in (0, 1)
    ]
    assert len(set(derived)) == len(derived)


@given(machine_ids, names, st.integers(0, 5))
def test_stable_mixes_a_counter_in_until_the_address_is_free(machine_id: str, name: str, taken: int) -> None:
    used = {derive_mac(machine_id, name, counter) for counter in range(taken)}
    policy = MacPolicy(MacMode.STABLE)
    mac = choose_mac(policy, name, Path("/nonexistent"), used.__contains__, machine_id)
    assert mac == derive_mac(machine_id, name, taken)


@given(names, octets6)
def test_a_stored_address_is_loaded_again(name: str, drawn: bytes) -> None:
    mac = draw_mac(free, lambda size: drawn)
    with tempfile.TemporaryDirectory() as directory:
        assert load_mac(Path(directory), name) is None
        store_mac(Path(directory), name, mac)
        assert load_mac(Path(directory), name) == mac
        assert [path.name for path in (Path(directory) / "mac").iterdir()] == [name]


@given(st.binary(max_size=80))
def test_a_kept_file_with_anything_in_it_is_an_address_or_a_clear_refusal(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "mac" / "tap0"
        path.parent.mkdir()
        path.write_bytes(content)
        try:
            mac = load_mac(Path(directory), "tap0")
        except TapError as error:
            assert error.code == "mac_state"
            assert str(path) in error.message
        else:
            assert mac is not None and str(mac) == content.decode().strip().lower().replace("-", ":")


@given(octets6)
def test_a_fixed_address_is_taken_as_it_is_or_refused(octets: bytes) -> None:
    mac = MacAddress(octets)
    if mac.is_multicast or mac.is_zero:
        with pytest.raises(TapError) as caught:
            MacPolicy(MacMode.FIXED, mac)
        assert caught.value.code == "mac_address"
    else:
        policy = MacPolicy.parse(str(mac))
        assert policy == MacPolicy(MacMode.FIXED, mac)
        assert MacPolicy.parse(str(policy)) == policy
        assert choose_mac(policy, "tap0", Path("/nonexistent"), free) == mac


@given(st.text(max_size=40))
def test_any_text_is_a_policy_or_a_clear_refusal(text: str) -> None:
    try:
        policy = MacPolicy.parse(text)
    except TapError as error:
        assert error.code == "mac_address"
    else:
        assert str(policy) == text.strip().lower().replace("-", ":")


@given(st.integers(0, 300))
def test_the_formula_is_the_birthday_product_over_2_to_the_46(adapters: int) -> None:
    distinct = Fraction(1)
    for number in range(adapters):
        distinct *= 1 - Fraction(number, 2**46)
    exact = float(1 - distinct)
    assert collision_probability(adapters) == pytest.approx(exact, rel=1e-9, abs=1e-30)


@given(st.integers(0, 10**9), st.integers(0, 10**9))
def test_more_adapters_never_collide_less(a: int, b: int) -> None:
    low, high = sorted((a, b))
    assert 0.0 <= collision_probability(low) <= collision_probability(high) <= 1.0


@given(st.text(max_size=20))
def test_a_checked_name_holds_what_the_kernel_demands(name: str) -> None:
    try:
        check_name(name)
    except TapError as error:
        assert error.code == "tap_settings"
    else:
        raw = name.encode()
        assert 1 <= len(raw) <= 15
        assert name not in {".", ".."}
        assert not any(c in "/:" or c.isspace() for c in name)
