"""Differential: two whole data planes, one of each build, see the same frames and do the same with them.

Random scripts of a few stations behind a TAP and three peers. After each step both must have said the same to
everybody, learned the same, and dropped the same for the same reason. In between stations are installed and
removed from outside.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from bridged.dataplane.contract import Station
from bridged.errors import DataplaneError
from bridged.protocol.keys.cipher import Cipher
from bridged.units import PeerHandle
from tests.contract.dataplane_rig import BROADCAST, Rig, frame, station, until

STEPS = 80
PEERS = 3
STATIONS = 6
TAP = 0


def marker(port: int) -> bytes:
    """A broadcast of a station known behind this port: when it is heard, all before it has been seen to."""
    return frame(100 + port, BROADCAST, b"marker")


class Twin:
    """One build of the two."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.between = rig.settings.forward_between_peers
        self.peers = [rig.peer(number, Cipher.CHACHA20_POLY1305) for number in range(1, PEERS + 1)]
        for port in range(PEERS + 1):
            self.said(port, [])

    def said(self, port: int, frames: list[bytes]) -> list[list[bytes]]:
        """What TAP and peers hear of frames that come from a port."""
        if port == TAP:
            self.rig.put(*frames, marker(port))
        else:
            self.peers[port - 1].send(*frames, marker(port))
        return [self._heard(at, port) for at in range(PEERS + 1)]

    def _heard(self, at: int, port: int) -> list[bytes]:
        if at == port or (TAP not in (at, port) and not self.between):
            # No marker comes here; ports are asked in order, and all of this was sent before another's.
            return self._waiting(at)
        heard: list[bytes] = []
        while marker(port) not in heard:
            heard += self._next(at)
        assert heard.pop() == marker(port)
        return heard

    def _next(self, at: int) -> list[bytes]:
        return self.rig.frames() if at == TAP else self.peers[at - 1].payloads()

    def _waiting(self, at: int) -> list[bytes]:
        heard: list[bytes] = []
        while not (self.rig.tap_is_quiet(0) if at == TAP else self.peers[at - 1].is_quiet(0)):
            heard += self._next(at)
        return heard

    def changed(self, verb: str, known: Station, number: int | None) -> str:
        """Install or remove a station; the code of a refusal, else empty."""
        plane = self.rig.plane
        if verb == "remove":
            plane.remove_station(known)
            return ""
        port = None if number is None else PeerHandle(number)
        try:
            plane.install_station(known, port, is_static=verb == "install static")
        except DataplaneError as error:
            return error.code
        return ""

    def knows(self) -> dict[Station, tuple[int | None, bool]]:
        return {entry.station: (entry.handle, entry.is_static) for entry in self.rig.plane.fdb()}

    def counted(self) -> object:
        figures = self.rig.snapshot()
        drops = {key: count for key, count in figures.drops.items() if count}
        frames = [
            {key: count for key, count in peer.counters.frames.items() if count} for peer in figures.peers
        ]
        # `refused` counts frames in one build and batches in the other.
        changes = {
            change: count for change, count in figures.counts["fdb_changes"].items() if change != "refused"
        }
        return drops, frames, changes


@pytest.fixture
def twins(native_module: object) -> Iterator[Callable[..., list[Twin]]]:
    """Makes a portable and a native data plane with the same settings."""
    assert native_module is not None
    with ExitStack() as stack:
        yield lambda **limits: [
            Twin(stack.enter_context(Rig(build, **limits))) for build in ("portable", "native")
        ]


def drawn_frames(script: random.Random) -> list[bytes]:
    source = script.choice([station(number) for number in range(1, STATIONS)] * 3 + [bytes(6), b"\x03" * 6])
    known = [station(number) for number in range(1, STATIONS + 2)] * 2
    destination = script.choice([*known, BROADCAST, bytes.fromhex("01005e000001"), b"\x33\x33" + bytes(4)])
    text = script.randbytes(script.choice([0, 1, 46, 100, 1400, 1486]))
    octets = frame(source, destination, text, script.choice([0x88B5, 0x0800, 0x86DD, 0x8100, 0x0030]))
    if script.random() < 0.05:
        octets = octets[: script.randint(1, 20)]
    return [octets] * script.choice([1, 1, 2, 5])


def drawn_change(script: random.Random) -> tuple[str, Station, int | None]:
    """A verb for a station and, if it is installed, its port."""
    verb = script.choice(["install", "install static", "remove", "remove"])
    return verb, Station(0, station(script.randint(1, STATIONS))), script.choice([None, 1, 2, PEERS])


@pytest.mark.parametrize("between", [True, False])
@pytest.mark.parametrize("seed", range(6))
def test_both_builds_switch_alike(twins: Callable[..., list[Twin]], seed: int, between: bool) -> None:
    script = random.Random(seed)
    pair = twins(
        forward_between_peers=between,
        move_hold=0.0,
        fdb_capacity=script.choice([4 + PEERS, 1000]),
        addresses_per_peer=script.choice([3, 1000]),
    )
    for number in range(STEPS):
        if script.random() < 0.15:
            change = drawn_change(script)
            refusals = [twin.changed(*change) for twin in pair]
            assert refusals[0] == refusals[1], f"seed {seed}, step {number}: {change}"
        port, frames = script.randint(0, PEERS), drawn_frames(script)
        what = f"seed {seed}, step {number}: {len(frames)} of {frames[0][:14].hex()} from {port}"
        reference, native = (twin.said(port, frames) for twin in pair)
        assert native == reference, what
        assert pair[1].knows() == pair[0].knows(), what
        # Frames are counted behind their sending.
        until(lambda: pair[1].counted() == pair[0].counted(), what)
    reference_events, native_events = (twin.rig.plane.station_events(0) for twin in pair)
    assert native_events == reference_events, f"seed {seed}"
