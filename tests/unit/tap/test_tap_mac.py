"""Choosing an address by policy: what is kept, what is drawn again, what is refused."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from bridged_tap import (
    MacAddress,
    MacMode,
    MacPolicy,
    TapError,
    choose_mac,
    collision_probability,
    derive_mac,
)
from bridged_tap import mac as tap_mac

RANDOM = MacPolicy(MacMode.RANDOM)
MACHINE_ID = "0123456789abcdef0123456789abcdef"


def free(_: MacAddress) -> bool:
    return False


def code_of(policy: MacPolicy, name: str, state: Path, machine_id: str | None = None) -> str:
    with pytest.raises(TapError) as caught:
        choose_mac(policy, name, state, free, machine_id)
    return caught.value.code


def test_a_random_address_is_kept_across_restarts_in_a_private_file(tmp_path: Path) -> None:
    state = tmp_path / "state"
    first = choose_mac(RANDOM, "tap0", state, free)
    assert choose_mac(RANDOM, "tap0", state, free) == first
    assert choose_mac(RANDOM, "tap1", state, free) != first
    path = state / "mac" / "tap0"
    assert path.read_text() == f"{first}\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_kept_address_that_somebody_else_has_is_drawn_anew_and_reported(tmp_path: Path) -> None:
    kept = choose_mac(RANDOM, "tap0", tmp_path, free)
    conflicts: list[MacAddress] = []
    new = choose_mac(RANDOM, "tap0", tmp_path, {kept}.__contains__, on_conflict=conflicts.append)
    assert new != kept
    assert conflicts == [kept]
    assert choose_mac(RANDOM, "tap0", tmp_path, free) == new


def test_an_ephemeral_address_is_new_each_time_and_leaves_no_file(tmp_path: Path) -> None:
    policy = MacPolicy.parse("ephemeral")
    drawn = {choose_mac(policy, "tap0", tmp_path, free) for _ in range(20)}
    assert len(drawn) == 20
    assert list(tmp_path.iterdir()) == []


def test_a_stable_address_depends_on_machine_and_name_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = MacPolicy.parse("stable")
    # Computed once with `openssl dgst -sha256 -mac HMAC`: the derivation must never change.
    assert str(choose_mac(policy, "tap0", tmp_path, free, MACHINE_ID)) == "86:82:aa:cf:31:4c"
    assert str(derive_mac(MACHINE_ID, "tap0", 1)) == "8a:d9:c6:62:d1:de"
    file = tmp_path / "machine-id"
    file.write_text(MACHINE_ID + "\n")
    monkeypatch.setattr(tap_mac, "MACHINE_ID_FILE", file)
    assert choose_mac(policy, "tap0", tmp_path, free) == derive_mac(MACHINE_ID, "tap0")
    file.write_text("uninitialized\n")
    assert code_of(policy, "tap0", tmp_path) == "mac_machine_id"
    file.unlink()
    assert code_of(policy, "tap0", tmp_path) == "mac_machine_id"


def test_a_fixed_address_is_used_even_if_taken_and_the_conflict_reported(tmp_path: Path) -> None:
    mac = MacAddress.parse("02:00:5e:10:00:01")
    conflicts: list[MacAddress] = []
    policy = MacPolicy(MacMode.FIXED, mac)
    assert choose_mac(policy, "tap0", tmp_path, lambda _: True, on_conflict=conflicts.append) == mac
    assert conflicts == [mac]


def test_a_name_pattern_cannot_have_a_kept_or_stable_address(tmp_path: Path) -> None:
    assert code_of(RANDOM, "tap%d", tmp_path) == "tap_settings"
    assert code_of(MacPolicy(MacMode.STABLE), "tap%d", tmp_path, MACHINE_ID) == "tap_settings"
    assert code_of(RANDOM, "../etc", tmp_path) == "tap_settings"
    choose_mac(MacPolicy(MacMode.EPHEMERAL), "tap%d", tmp_path, free)


@pytest.mark.parametrize(
    "content", ["", "nonsense", "01:00:5e:00:00:01", "00:00:00:00:00:00", "02:00:5e:10:00:01:99"]
)
def test_a_spoilt_kept_file_is_refused_not_silently_replaced(tmp_path: Path, content: str) -> None:
    path = tmp_path / "mac" / "tap0"
    path.parent.mkdir()
    path.write_text(content)
    assert code_of(RANDOM, "tap0", tmp_path) == "mac_state"
    assert path.read_text() == content


def test_a_kept_file_that_is_a_link_or_a_pipe_is_refused_without_hanging(tmp_path: Path) -> None:
    (tmp_path / "mac").mkdir()
    (tmp_path / "target").write_text("02:00:5e:10:00:01\n")
    (tmp_path / "mac" / "tap0").symlink_to(tmp_path / "target")
    os.mkfifo(tmp_path / "mac" / "tap1")
    assert code_of(RANDOM, "tap0", tmp_path) == "mac_state"
    assert code_of(RANDOM, "tap1", tmp_path) == "mac_state"


def test_a_state_directory_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file where the directory should be")
    assert code_of(RANDOM, "tap0", tmp_path / "state") == "mac_state"


@pytest.mark.parametrize(
    "text", ["", "randm", "02:00:5e:10:00", "01:00:5e:00:00:01", "00:00:00:00:00:00", "fixed"]
)
def test_a_policy_that_is_neither_mode_nor_usable_address_is_refused(text: str) -> None:
    with pytest.raises(TapError) as caught:
        MacPolicy.parse(text)
    assert caught.value.code == "mac_address"


def test_a_policy_with_an_address_it_does_not_use_is_refused() -> None:
    with pytest.raises(TapError):
        MacPolicy(MacMode.RANDOM, MacAddress.parse("02:00:5e:10:00:01"))
    with pytest.raises(TapError):
        MacPolicy(MacMode.FIXED)


def test_the_documented_collision_chances_are_true() -> None:
    assert collision_probability(0) == collision_probability(1) == 0.0
    assert collision_probability(2) == pytest.approx(2**-46)
    assert collision_probability(1000) == pytest.approx(7.1e-9, rel=0.01)
    assert collision_probability(10**6) == pytest.approx(0.0071, rel=0.01)
    assert collision_probability(10**7) == pytest.approx(0.51, rel=0.01)
    with pytest.raises(ValueError):
        collision_probability(-1)
