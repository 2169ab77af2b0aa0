"""Which build stands behind `dataplane: auto`, with and without the compiled module."""

from __future__ import annotations

import importlib.util
import socket
from dataclasses import replace

import pytest

from bridged.addresses import MacAddress
from bridged.dataplane import choose_dataplane, create_dataplane, fits_segments, native, tap_offloads
from bridged.dataplane.contract import DataplaneSettings, TapPort
from bridged.errors import DataplaneError
from bridged.units import Octets

SUPER = frozenset({"csum", "tso4", "tso6"})
PORT = TapPort((0,), "tap0", MacAddress(bytes.fromhex("02005e000001")), Octets(1500), 10, SUPER)


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "_missing", "it is not built; do this")


@pytest.fixture
def having(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "_missing", "")


def test_auto_without_a_native_build_is_portable_and_says_why(without: None) -> None:
    choice = choose_dataplane("auto")
    assert (choice.kind, choice.is_fallback) == ("portable", True)
    assert choice.reason == "no native data plane: it is not built; do this"
    assert tap_offloads("auto") == frozenset()
    assert not fits_segments("auto", PORT)


def test_native_that_is_not_there_is_refused_with_what_to_do(without: None) -> None:
    with pytest.raises(DataplaneError, match="it is not built; do this; or set `dataplane: auto`") as caught:
        create_dataplane("native", DataplaneSettings("t", PORT, None))
    assert caught.value.code == "native_unavailable"


def test_auto_is_native_where_it_is_built_and_takes_super_frames(having: None) -> None:
    choice = choose_dataplane("auto")
    assert (choice.kind, choice.is_fallback) == ("native", False)
    assert tap_offloads("auto") == {"csum", "tso4", "tso6", "tso_ecn", "uso4", "uso6"}


def test_portable_is_portable_whatever_is_built(having: None) -> None:
    choice = choose_dataplane("portable")
    assert (choice.kind, choice.is_fallback) == ("portable", False)
    near, far = socket.socketpair()
    with near, far:
        tap = replace(PORT, fds=(near.fileno(),))
        plane = create_dataplane("portable", DataplaneSettings("t", tap, None))
        assert plane.name == "portable"
        plane.stop()


def test_segments_are_fitted_only_where_the_tap_hands_over_super_frames(having: None) -> None:
    assert fits_segments("native", PORT)
    assert not fits_segments("native", replace(PORT, offloads=frozenset({"csum"})))
    assert not fits_segments("portable", PORT)


def test_a_module_of_other_sources_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "import_module", lambda _: type("Other", (), {"SEAM": native.SEAM + 1}))
    module, reason = native._load()
    assert module is None
    assert "another version of the sources" in reason


def test_the_module_counts_as_missing_only_where_it_is_missing() -> None:
    assert bool(native.unavailable()) == (importlib.util.find_spec("bridged._native") is None)
