"""How long a reflected station is held at the TAP: the tunnel's FDB and its events decide."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from bridged.addresses import MacAddress
from bridged.dataplane.contract import FdbEntry, Station, StationEvents
from bridged.dataplane.portable.tables.fdb import Fdb, age_of
from bridged.netlink.fdb_watch import StationHeard
from bridged.runtime.watchers import reflections
from bridged.runtime.watchers.reflections import FIRST_HOLD_SECONDS, LONGEST_HOLD_SECONDS, Reflections
from bridged.units import MonotonicSeconds, PeerHandle, Seconds

LAN, TAP = 1, 2
ALICE = PeerHandle(1)
ADDRESS = MacAddress(b"\2\0\0\0\0\1")
STATION = Station(0, ADDRESS.octets)


@dataclass
class World:
    """A clock, the kernel's holds, the timers of `Reflections`, and a tunnel with a real FDB."""

    now: float = 1000.0
    held: set[MacAddress] = field(default_factory=set)
    steps: dict[str, Callable[[], object]] = field(default_factory=dict)
    tap_name: str | None = "tap0"
    looked: int = 0

    def __post_init__(self) -> None:
        self.fdb = Fdb(capacity=1000, addresses_per_peer=100, ageing=Seconds(1000.0), move_hold=Seconds(0.0))
        self.watch = Reflections()
        self.watch.apply({"br0": ["eth1"]}, {"br0": [self]})

    def __hash__(self) -> int:
        return id(self)

    def find_station(self, address: MacAddress) -> tuple[FdbEntry, str | None] | None:
        self.looked += 1
        moment = MonotonicSeconds(self.now)
        entry = self.fdb.find(Station(0, address.octets), moment)
        if entry is None:
            return None
        known = FdbEntry(Station(0, address.octets), entry.port, age_of(entry, moment))
        return known, None if entry.port is None else "alice"

    def station_events(self, after: int) -> StationEvents:
        return self.fdb.events(after)

    def note_reflection(self, address: MacAddress, port: str, peer: str) -> None:
        assert (address, port, peer) == (ADDRESS, "eth1", "alice")

    def note_contested(self, address: MacAddress, port: str, peer: str) -> None:
        raise AssertionError("a peer had it first")

    def monotonic(self) -> float:
        return self.now

    # --- of the supervisor

    def after(self, duty: str, seconds: float, step: Callable[[], object], subject: str = "") -> World:
        self.steps[duty] = step
        return self

    def every(self, duty: str, seconds: float, step: Callable[[], object]) -> World:
        self.steps[duty] = step
        return self

    def cancel(self) -> None:
        self.steps.pop("reflections", None)

    # --- what happens

    def speak(self) -> None:
        """Its peer sends a frame of it."""
        self.fdb.learn(STATION, ALICE, MonotonicSeconds(self.now))

    def reflect(self) -> None:
        """A LAN port returns that frame."""
        self.watch._hear([StationHeard(ADDRESS, TAP), StationHeard(ADDRESS, LAN)])
        self.watch._compare_all()

    def pass_seconds(self, seconds: int) -> None:
        for _ in range(seconds):
            self.now += 1.0
            step = self.steps.get("reflections")
            if step is not None:
                step()


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    made = World()
    monkeypatch.setattr(reflections, "SUPERVISOR", made)
    monkeypatch.setattr(reflections, "time", made)
    monkeypatch.setattr(reflections, "_name_of", {LAN: "eth1", TAP: "tap0"}.get)
    monkeypatch.setattr(reflections, "protected_stations", lambda bridge: set())
    monkeypatch.setattr(reflections, "hold_station", lambda address, tap: made.held.add(address))
    monkeypatch.setattr(reflections, "release_station", lambda address, tap: made.held.remove(address))
    yield made


def test_a_silent_station_is_released_when_its_time_is_over(world: World) -> None:
    world.speak()
    world.reflect()
    assert world.held == {ADDRESS}
    world.pass_seconds(int(FIRST_HOLD_SECONDS))
    assert world.held == {ADDRESS}
    world.pass_seconds(1)
    assert not world.held and "reflections" not in world.steps


def test_a_station_that_speaks_is_held_and_seldom_looked_at(world: World) -> None:
    world.speak()
    world.reflect()
    looked = world.looked
    for _ in range(60):
        world.speak()
        world.pass_seconds(1)
    assert world.held == {ADDRESS}
    assert world.looked - looked <= 60 / (FIRST_HOLD_SECONDS - 1) + 2


@pytest.mark.parametrize("how", ["moved to the LAN", "gone with its peer"])
def test_a_station_is_released_at_once_by_its_event(world: World, how: str) -> None:
    world.speak()
    world.reflect()
    world.pass_seconds(1)
    if how == "moved to the LAN":
        world.fdb.learn(STATION, None, MonotonicSeconds(world.now))
    else:
        world.fdb.flush(ALICE)
    world.pass_seconds(1)
    assert not world.held


def test_a_move_is_found_although_its_event_was_lost(world: World) -> None:
    world.speak()
    world.reflect()
    world.pass_seconds(1)
    world.fdb.learn(STATION, None, MonotonicSeconds(world.now))
    for number in range(5000):
        world.fdb.learn(Station(0, b"\2\1" + number.to_bytes(4, "big")), None, MonotonicSeconds(world.now))
        world.fdb.remove(Station(0, b"\2\1" + number.to_bytes(4, "big")))
    assert world.fdb.events(1).lost
    world.pass_seconds(1)
    assert not world.held


def test_each_further_reflection_holds_for_twice_as_long(world: World) -> None:
    for seconds in (3, 6, 12, 24):
        world.speak()
        world.reflect()
        world.pass_seconds(seconds)
        assert world.held == {ADDRESS}, seconds
        world.pass_seconds(1)
        assert not world.held
    assert LONGEST_HOLD_SECONDS > 24


def test_a_tunnel_that_lost_its_last_hold_to_another_one_is_not_followed_any_more(world: World) -> None:
    other = World(tap_name="tap1")
    world.watch.apply({"br0": ["eth1"]}, {"br0": [world, other]})
    world.speak()
    other.speak()
    world.reflect()
    assert world.held == {ADDRESS} and list(world.watch._followed) == [other]
    other.now += 2 * FIRST_HOLD_SECONDS + 1
    world.pass_seconds(1)
    assert not world.held and not world.watch._followed, "it is silent at the other one"
