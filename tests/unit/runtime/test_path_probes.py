"""Which links are probed, and what becomes of the results, with a data plane and links that are made up."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from bridged.addresses import Endpoint
from bridged.protocol.packets.occ import load_of, parse_occ
from bridged.protocol.packets.path_mtu import PathMtu
from bridged.runtime.tunnels.path_probes import PathProbes
from bridged.units import PeerHandle

LARGEST = 1518 + 28 + 24


class Link:
    def __init__(self, host: str = "192.0.2.1", transport: Any = "udp", bears: int = 1420) -> None:
        self.endpoint = Endpoint(host, 1194, transport)
        self.handle = PeerHandle(1)
        self.name = "site"
        self.is_attached = True
        self.bears = bears
        self.is_proven = True
        self.sent: list[int] = []
        self.probes: PathProbes | None = None

    def probe_path(self, payload: bytes, octets: int) -> int | None:
        if not self.is_proven:
            return None
        octets = min(octets, LARGEST)
        self.sent.append(octets)
        answer = load_of(parse_occ(payload), 1500)
        assert answer is not None
        assert self.probes is not None
        if octets <= self.bears:
            size = 17 + len(answer.body)
            asyncio.get_running_loop().call_soon(self.probes.handle_answer, self, size)
        return octets


class Clock:
    """Seconds that pass only by `run`."""

    def __init__(self) -> None:
        self.now = 0.0


def run(
    link: Link, seconds: float, *, is_auto: bool = True, most: int | None = None
) -> tuple[list[Any], list[Any]]:
    """What the data plane and the records were told within so many seconds."""
    used: list[Any] = []
    noted: list[Any] = []

    async def live() -> None:
        clock = Clock()
        loop: Any = asyncio.get_running_loop()
        calls: list[tuple[float, Any]] = []

        def call_at(at: float, call: Any) -> Any:
            entry = (at, call)
            calls.append(entry)
            return SimpleNamespace(cancel=lambda: calls.remove(entry) if entry in calls else None)

        loop.call_at = call_at
        plane = SimpleNamespace(use_path_mtu=lambda handle, octets: used.append(octets))
        plan = SimpleNamespace(
            name="a", probes_paths=is_auto, wan_mtu_most=most, session=SimpleNamespace(tun_mtu=1500)
        )
        sessions: Any = SimpleNamespace(plan=plan, now=lambda: clock.now, dataplane=plane)
        probes = link.probes = PathProbes(sessions, lambda _, octets: noted.append(octets))
        peer: Any = link
        probes.begin(peer)
        while calls and min(calls, key=lambda entry: entry[0])[0] < seconds:
            entry = min(calls, key=lambda entry: entry[0])
            calls.remove(entry)
            clock.now = max(clock.now, entry[0])
            entry[1]()
            for _ in range(3):
                await asyncio.sleep(0)
        probes.end(peer)
        probes.close()

    asyncio.run(live())
    return used, noted


def test_the_data_plane_and_the_records_hear_of_the_result_and_of_the_end() -> None:
    assert run(Link(), 30) == ([1420], [1420, None])


def test_everything_crosses_after_two_probes() -> None:
    link = Link(bears=9000)
    assert run(link, 30) == ([LARGEST], [LARGEST, None])
    assert link.sent == [576, LARGEST]


def test_a_stated_wan_mtu_is_the_most_that_is_tried() -> None:
    link = Link(bears=9000)
    assert run(link, 30, most=1400) == ([1400], [1400, None])
    assert max(link.sent) == 1400


def test_over_ipv6_1280_bytes_always_cross() -> None:
    link = Link("2001:db8::1", bears=1280)
    assert run(link, 30) == ([1280], [1280, None])
    assert min(link.sent) == 1280


def test_tcp_and_other_tunnels_are_not_probed() -> None:
    for link, is_auto in ((Link(transport="tcp"), True), (Link(), False)):
        assert run(link, 30, is_auto=is_auto) == ([], [])
        assert link.sent == []


def test_an_unproven_endpoint_gets_no_probes() -> None:
    link = Link()
    link.is_proven = False
    assert run(link, 30) == ([], [None])


def test_a_peer_that_connects_costs_no_look_at_all_others(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = [0]
    real = PathMtu.next_deadline

    def counted(path: PathMtu) -> float:
        looks[0] += 1
        return real(path)

    monkeypatch.setattr(PathMtu, "next_deadline", counted)

    async def connect(number: int) -> None:
        plan = SimpleNamespace(
            name="a", probes_paths=True, wan_mtu_most=None, session=SimpleNamespace(tun_mtu=1500)
        )
        sessions: Any = SimpleNamespace(plan=plan, now=asyncio.get_running_loop().time, dataplane=None)
        probes = PathProbes(sessions, lambda _, octets: None)
        for handle in range(number):
            peer: Any = Link()
            peer.handle = PeerHandle(handle)
            probes.begin(peer)
        probes.close()

    asyncio.run(connect(300))
    assert looks[0] <= 2 * 300
