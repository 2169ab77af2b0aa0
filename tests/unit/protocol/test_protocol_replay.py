"""The sliding replay window."""

from __future__ import annotations

import pytest

from bridged.errors import ConfigurationError
from bridged.protocol.keys.replay import ReplayWindow


def test_zero_is_never_valid() -> None:
    window = ReplayWindow()
    assert window.verdict(0) == "replay" and not window.accept(0)
    assert window.accept(1) and window.verdict(0) == "replay"


def test_first_packet_may_have_any_id() -> None:
    assert ReplayWindow().accept(0xFFFFFFFF)


def test_window_edges() -> None:
    window = ReplayWindow(64)
    assert window.accept(100)
    assert window.verdict(37) is None
    assert window.verdict(36) == "replay_too_old"
    assert window.accept(37) and window.verdict(37) == "replay"
    assert window.highest == 100


def test_a_jump_of_more_than_the_window_restarts_it() -> None:
    window = ReplayWindow(8)
    for packet_id in (1, 2, 3):
        assert window.accept(packet_id)
    assert window.accept(1000)
    assert all(window.accept(packet_id) for packet_id in range(993, 1000))
    assert window.verdict(992) == "replay_too_old"


def test_a_jump_of_exactly_the_window_forgets_everything_before() -> None:
    window = ReplayWindow(8)
    assert window.accept(10) and window.accept(18)
    assert window.verdict(10) == "replay_too_old"
    assert window.accept(11)


def test_size_zero_takes_rising_ids_only() -> None:
    window = ReplayWindow(0)
    assert window.accept(5) and not window.accept(5) and not window.accept(4) and window.accept(6)


def test_verdict_records_nothing() -> None:
    window = ReplayWindow()
    assert window.check(9) and window.check(9) and window.highest == 0


def test_the_largest_window_holds_65536_ids() -> None:
    window = ReplayWindow(65536)
    assert window.accept(70000) and window.accept(70000 - 65535)
    assert window.verdict(70000 - 65536) == "replay_too_old"
    with pytest.raises(ConfigurationError):
        ReplayWindow(65537)
