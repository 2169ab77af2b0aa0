"""The forwarding database under any sequence of frames and verbs: its events tell the whole story."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bridged.dataplane.contract import Station
from bridged.dataplane.portable.tables.fdb import Fdb, Port
from bridged.units import MonotonicSeconds, PeerHandle, Seconds

STATIONS = [Station(vlan, b"\2\0\0\0\0" + bytes([number])) for vlan in (0, 7) for number in range(1, 5)]
PORTS: list[Port] = [None, PeerHandle(1), PeerHandle(2)]
AGEING = 10.0

stations, ports = st.sampled_from(STATIONS), st.sampled_from(PORTS)
steps = st.one_of(
    st.tuples(st.just("learn"), stations, ports),
    st.tuples(st.just("install"), stations, ports),
    st.tuples(st.just("install static"), stations, ports),
    st.tuples(st.just("remove"), stations, ports),
    st.tuples(st.just("flush"), stations, ports),
    st.tuples(st.just("sweep"), stations, ports),
)


def apply(fdb: Fdb, step: str, station: Station, port: Port, now: MonotonicSeconds) -> None:
    match step:
        case "learn":
            fdb.learn(station, port, now)
        case "install" | "install static":
            fdb.install(station, port, now, is_static=step == "install static")
        case "remove":
            fdb.remove(station)
        case "flush":
            fdb.flush(port)
        case "sweep":
            fdb.sweep(now)


@given(
    capacity=st.integers(1, 9),
    each=st.integers(1, 9),
    story=st.lists(st.tuples(steps, st.sampled_from([0.0, 0.1, 3.0, 11.0])), max_size=60),
)
def test_the_events_rebuild_the_table_and_static_stations_stay(
    capacity: int, each: int, story: list[tuple[tuple[str, Station, Port], float]]
) -> None:
    fdb = Fdb(capacity=capacity, addresses_per_peer=each, ageing=Seconds(AGEING), move_hold=Seconds(0.25))
    rebuilt: dict[Station, Port] = {}
    static: dict[Station, Port] = {}
    now, position = 1000.0, 0
    for (step, station, port), pause in story:
        now += pause
        moment = MonotonicSeconds(now)
        version = fdb.version
        known = {name: fdb.find(name, moment) is not None for name in STATIONS}
        apply(fdb, step, station, port, moment)
        if step.startswith("install") and (known[station] or fdb.find(station, moment) is not None):
            static.pop(station, None)
            if step == "install static":
                static[station] = port
        elif step == "remove":
            static.pop(station, None)
        elif step == "flush":
            static = {name: where for name, where in static.items() if where != port}

        told = fdb.events(position)
        assert told.lost == 0
        position = told.next
        for event in told.events:
            if event.kind == "removed":
                assert rebuilt.pop(event.station) == event.handle
            else:
                assert (event.kind == "learned") == (event.station not in rebuilt)
                rebuilt[event.station] = event.handle
        assert not told.events or fdb.version != version

        assert len(fdb) == len(rebuilt) <= capacity
        for where in PORTS:
            assert fdb.count(where) == sum(1 for other in rebuilt.values() if other == where)
        for name, entry in fdb.entries(moment):
            assert rebuilt[name] == entry.port
            assert entry.is_static == (name in static)
        for name, where in static.items():
            entry_now = fdb.find(name, moment)
            assert entry_now is not None and entry_now.port == where
