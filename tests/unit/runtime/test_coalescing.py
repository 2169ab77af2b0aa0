"""What may be joined into super-frames: the configuration, the kernel's release, and the self-test decide."""

from __future__ import annotations

from contextlib import nullcontext
from typing import NoReturn

import pytest
from structlog.testing import capture_logs

from bridged.addresses import MacAddress
from bridged.dataplane import Build, choose_dataplane
from bridged.dataplane.contract import TapPort
from bridged.errors import BridgedError
from bridged.runtime.tunnels.coalescing import CoalescingGuard
from bridged.units import Octets
from tests.unit.runtime.cutting_path import CuttingPath, changed

NEW, OLD = "6.8.5", "6.8.4"


def port(*offloads: str, vnet: int = 10) -> TapPort:
    return TapPort((0,), "tap0", MacAddress(bytes(6)), Octets(1500), vnet, frozenset(offloads))


@pytest.fixture
def native() -> Build:
    if choose_dataplane("auto").kind != "native":
        pytest.fail("this needs the native data plane; run `make setup` where there is Rust")
    return "native"


def never() -> NoReturn:
    raise AssertionError("nothing is to be tried")


def guard(release: str = NEW, path: CuttingPath | None = None) -> CoalescingGuard:
    return CoalescingGuard(release, lambda: nullcontext(path or CuttingPath()))


@pytest.mark.native
def test_switched_off_costs_nothing_and_joins_nothing(native: Build) -> None:
    decision = CoalescingGuard(NEW, never).decide("main", "off", native, port("uso4", "uso6"))
    assert decision.kinds == frozenset()
    assert decision.described() == {}


@pytest.mark.native
def test_switched_on_joins_what_the_tap_takes_untried(native: Build) -> None:
    decide = CoalescingGuard(OLD, never).decide
    assert decide("main", "on", native, port("uso4", "uso6")).kinds == {"tcp4", "tcp6", "udp4", "udp6"}
    assert decide("main", "on", native, port("tso4")).kinds == {"tcp4", "tcp6"}
    assert decide("main", "on", "portable", port("uso4", "uso6")).kinds == {"tcp4", "tcp6"}


@pytest.mark.native
def test_without_a_virtio_header_nothing_is_joined_or_tried(native: Build) -> None:
    for mode in ("auto", "on"):
        assert CoalescingGuard(NEW, never).decide("main", mode, native, port(vnet=0)).kinds == frozenset()


@pytest.mark.native
def test_a_sound_kernel_joins_all(native: Build) -> None:
    decision = guard().decide("main", "auto", native, port("uso4", "uso6"))
    assert decision.described() == dict.fromkeys(("tcp4", "tcp6", "udp4", "udp6"), "joined")
    assert decision.refused == {}


@pytest.mark.native
def test_a_kernel_before_6_8_5_joins_no_udp_and_says_so(native: Build) -> None:
    with capture_logs() as logs:
        decision = guard(OLD).decide("main", "auto", native, port("uso4", "uso6"))
    assert decision.kinds == {"tcp4", "tcp6"}
    assert {kind: cause for kind, (cause, _) in decision.refused.items()} == {
        "udp4": "config",
        "udp6": "config",
    }
    assert OLD in decision.described()["udp4"]
    told = [line for line in logs if line["event"] == "coalescing_refused"]
    assert [(line["tunnel"], line["frames"], line["cause"]) for line in told] == [
        ("main", "udp4", "config"),
        ("main", "udp6", "config"),
    ]


def test_a_kind_that_fails_is_refused_alone_and_said() -> None:
    with capture_logs() as logs:
        decision = guard(NEW, CuttingPath(changed(51), 6)).decide("main", "auto", "portable", port())
    assert decision.kinds == {"tcp4"}
    assert decision.refused["tcp6"][0] == "selftest"
    (told,) = [line for line in logs if line["event"] == "coalescing_refused"]
    assert told["log_level"] == "warning"
    assert "byte 51" in told["detail"]


def test_where_nothing_can_be_tried_all_goes_on_and_that_is_said() -> None:
    def forbidden() -> NoReturn:
        raise BridgedError("scratch", "no path for a trial: Operation not permitted")

    with capture_logs() as logs:
        decision = CoalescingGuard(NEW, forbidden).decide("main", "auto", "portable", port())
    assert decision.kinds == {"tcp4", "tcp6"}
    assert [(line["event"], line["log_level"]) for line in logs] == [("coalescing_not_tried", "info")]


def test_what_could_not_be_tried_is_tried_for_the_next_tunnel() -> None:
    paths = iter([None, CuttingPath(changed(51), 6)])

    def open_path() -> nullcontext[CuttingPath]:
        path = next(paths)
        if path is None:
            raise BridgedError("scratch", "no path for a trial: No such device")
        return nullcontext(path)

    shared = CoalescingGuard(NEW, open_path)
    first, second = (shared.decide(name, "auto", "portable", port()) for name in ("one", "two"))
    assert first.kinds == {"tcp4", "tcp6"}
    assert set(second.refused) == {"tcp6"}


def test_one_trial_serves_all_tunnels_of_a_build() -> None:
    opened: list[CuttingPath] = []

    def open_path() -> nullcontext[CuttingPath]:
        opened.append(CuttingPath(changed(51), 4))
        return nullcontext(opened[-1])

    shared = CoalescingGuard(NEW, open_path)
    first, second = (shared.decide(name, "auto", "portable", port()) for name in ("one", "two"))
    assert len(opened) == 1
    assert first == second
    assert set(first.refused) == {"tcp4"}
