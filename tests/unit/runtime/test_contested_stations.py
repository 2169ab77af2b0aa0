"""Stations that a peer and a LAN port contest: what they cost, however often they move."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bridged.addresses import MacAddress
from bridged.dataplane.contract import FdbEntry, Station, StationEvents
from bridged.netlink.fdb_watch import StationHeard
from bridged.runtime.watchers import reflections
from bridged.runtime.watchers.reflections import SUSPECTS_MAX, Reflections
from bridged.units import PeerHandle, Seconds

LAN, TAP = 1, 2


class Tunnel:
    tap_name = "tap0"

    def __init__(self) -> None:
        self.looked = 0
        self.contested: list[str] = []

    def find_station(self, address: MacAddress) -> tuple[FdbEntry, str | None] | None:
        self.looked += 1
        return FdbEntry(Station(0, address.octets), PeerHandle(1), Seconds(0.0)), "peer"

    def station_events(self, after: int) -> StationEvents:
        raise AssertionError("nothing is held, and nothing to be followed")

    def note_reflection(self, address: MacAddress, port: str, peer: str) -> None:
        raise AssertionError("a station that the LAN had first is never held")

    def note_contested(self, address: MacAddress, port: str, peer: str) -> None:
        self.contested.append(str(address))


class Timers:
    """Those that `Reflections` sets; they come when the test says so."""

    def __init__(self) -> None:
        self.steps: list[Callable[[], object]] = []

    def after(self, duty: str, seconds: float, step: Callable[[], object], subject: str = "") -> Timers:
        assert seconds > 0
        self.steps.append(step)
        return self

    def note_done(self, duty: str, subject: str = "") -> None: ...

    def cancel(self) -> None: ...


def station(number: int) -> MacAddress:
    return MacAddress(b"\2\0" + number.to_bytes(4, "big"))


@pytest.fixture
def timers(monkeypatch: pytest.MonkeyPatch) -> Timers:
    made = Timers()
    monkeypatch.setattr(reflections, "SUPERVISOR", made)
    monkeypatch.setattr(reflections, "_name_of", {LAN: "eth1", TAP: "tap0"}.get)
    monkeypatch.setattr(reflections, "protected_stations", lambda bridge: set())
    return made


def test_stations_that_move_at_each_frame_are_compared_a_few_times_a_second(timers: Timers) -> None:
    tunnel, watch = Tunnel(), Reflections()
    watch.apply({"br0": ["eth1"]}, {"br0": [tunnel]})
    for number in range(4):
        watch._hear([StationHeard(station(number), LAN), StationHeard(station(number), TAP)])
    for _ in range(500):
        for number in range(4):
            watch._hear([StationHeard(station(number), LAN), StationHeard(station(number), TAP)])
    assert tunnel.looked == 1 and len(timers.steps) == 1, "the first one; the others wait"
    timers.steps.pop()()
    assert tunnel.looked == 5, "what came meanwhile is compared together, once for each station"
    assert sorted(tunnel.contested) == [str(station(number)) for number in range(4)]
    timers.steps.pop()()
    assert tunnel.looked == 5 and not timers.steps, "nothing came, and no timer runs"


def test_who_invents_addresses_fills_no_memory_with_suspects(timers: Timers) -> None:
    tunnel, watch = Tunnel(), Reflections()
    watch.apply({"br0": ["eth1"]}, {"br0": [tunnel]})
    for _ in range(2):
        for number in range(2 * SUSPECTS_MAX):
            watch._hear([StationHeard(station(number), TAP), StationHeard(station(number), LAN)])
    assert sum(map(len, watch._suspects.values())) <= SUSPECTS_MAX
    watch.close()
