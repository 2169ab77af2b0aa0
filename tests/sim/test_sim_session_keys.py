"""When keys begin, take over and die: the schedule of `session_keys` on an undisturbed wire."""

from __future__ import annotations

import pytest

from bridged.protocol.role import Role
from bridged.protocol.session.events import ExpectKey, InstallKey, RemoveKey, Renegotiated, UseKey
from bridged.protocol.session.key_slots import RETIRE_SECONDS, next_key_id
from tests.sim.noisy_wire import End, Noise, Simulation, renegotiations, settings


class Timed(Simulation):
    """Notes when each key was installed, used and removed."""

    def __init__(self, client: dict | None = None, server: dict | None = None) -> None:
        super().__init__(
            settings(Role.CLIENT, "tls-crypt", **(client or {})),
            settings(Role.SERVER, "tls-crypt", **(server or {})),
            noise=Noise(delay=0.0011),
        )
        self.times: dict[str, list[tuple[float, str, int]]] = {"client": [], "server": []}
        for name, end in (("client", self.client), ("server", self.server)):
            end.take = self._noting(name, end)  # type: ignore[method-assign]

    def _noting(self, name: str, end: End):
        def take(event) -> None:
            match event:
                case ExpectKey(key_id):
                    self.times[name].append((self.now - 1000, "expect", key_id))
                case InstallKey(key):
                    self.times[name].append((self.now - 1000, "install", key.key_id))
                case UseKey(key_id):
                    self.times[name].append((self.now - 1000, "use", key_id))
                case RemoveKey(key_id):
                    self.times[name].append((self.now - 1000, "remove", key_id))
            End.take(end, event)

        return take

    def at(self, name: str, what: str, key_id: int) -> list[float]:
        return [at for at, kind, key in self.times[name] if (kind, key) == (what, key_id)]


def test_key_ids_follow_one_another_and_skip_zero() -> None:
    assert [next_key_id(key_id) for key_id in range(8)] == [1, 2, 3, 4, 5, 6, 7, 1]


def test_the_lower_timer_of_both_ends_wins() -> None:
    sim = Timed({"reneg_seconds": 500.0}, {"reneg_seconds": 3600.0})
    sim.run_until(510)
    assert sim.at("client", "install", 1)[0] == pytest.approx(500, abs=1)
    assert [event.trigger for event in sim.client.of(Renegotiated)] == ["time"]
    assert [event.trigger for event in sim.server.of(Renegotiated)] == ["peer"]


def test_a_client_expects_each_key_of_a_renegotiation_before_it_has_it() -> None:
    sim = Timed({"reneg_seconds": 20.0}, {"reneg_seconds": 3600.0})
    sim.run_until(70)
    kinds = [(kind, key) for _, kind, key in sim.times["client"] if kind in ("expect", "install")]
    assert kinds[0] == ("install", 0)
    assert kinds[1:] == [(kind, key) for key in (1, 2, 3) for kind in ("expect", "install")]
    for key_id in (1, 2, 3):
        # The server can seal once it has our key message: a delay of the wire later.
        assert sim.at("client", "expect", key_id)[0] < sim.at("server", "install", key_id)[0]
    assert not any(kind == "expect" for _, kind, _ in sim.times["server"])


def test_a_server_comes_a_random_tenth_earlier() -> None:
    sim = Timed({"reneg_seconds": 1000.0}, {"reneg_seconds": 1000.0})
    sim.run_until(1005)
    assert 899 < sim.at("server", "install", 1)[0] <= 1000.5
    assert [event.trigger for event in sim.server.of(Renegotiated)] == ["time"]


def test_without_a_time_nothing_is_renegotiated() -> None:
    sim = Timed()
    sim.run_until(100_000)
    assert renegotiations(sim.client) == renegotiations(sim.server) == []


@pytest.mark.parametrize(
    ("reneg", "before", "wait"), [(0.0, 200, 60), (3600.0, 200, 60), (40.0, 39.9, 20), (3600.0, 10, 5)]
)
def test_sealing_changes_over_a_hand_window_or_half_the_interval_after_the_start(
    reneg: float, before: float, wait: float
) -> None:
    """The interval is ours, or the one between the newest two starts: the peer may be the faster one."""
    sim = Timed({"reneg_seconds": reneg}, {"reneg_seconds": reneg * 10})
    sim.run_until(before)
    start = sim.now - 1000
    sim.client.session.request_renegotiation("manual", sim.now)
    sim._drain()
    sim.run_until(wait + 1)
    assert sim.at("client", "install", 1)[0] == pytest.approx(start, abs=0.5)
    assert sim.at("client", "use", 1)[0] == pytest.approx(start + wait, abs=0.1)


def test_an_old_key_dies_with_the_transition_window() -> None:
    sim = Timed({"tran_window": 200.0}, {"tran_window": 300.0})
    sim.run_until(3)
    start = sim.now - 1000
    sim.client.session.request_renegotiation("manual", sim.now)
    sim._drain()
    sim.run_until(400)
    assert sim.at("client", "remove", 0)[0] == pytest.approx(start + 200, abs=0.1)
    assert sim.at("server", "remove", 0)[0] == pytest.approx(start + 300, abs=0.5)
    assert sim.client.down is None and sim.server.down is None


def test_an_old_key_dies_soon_after_the_next_renegotiation_has_taken_over() -> None:
    sim = Timed()
    sim.run_until(200)
    for _ in range(2):
        second = sim.now - 1000
        sim.client.session.request_renegotiation("manual", sim.now)
        sim._drain()
        sim.run_until(130)
    for name in ("client", "server"):
        assert sim.at(name, "remove", 0)[0] == pytest.approx(second + 60 + RETIRE_SECONDS, abs=0.5)
        assert sim.at(name, "remove", 1) == []


def test_a_renegotiation_right_behind_another_takes_the_newer_key_into_use() -> None:
    sim = Timed()
    sim.run_until(3)
    for _ in range(12):
        assert sim.client.session.request_renegotiation("manual", sim.now)
        sim._drain()
        sim.run_until(1)
        assert sim.client.sealing in sim.server.keys and sim.server.sealing in sim.client.keys
    sim.run_until(70)
    assert sim.client.sealing == sim.server.sealing == 5
    assert renegotiations(sim.server) == ["established"] * 12


def test_a_key_id_that_comes_round_again_was_removed_before() -> None:
    sim = Timed()
    sim.run_until(3)
    for _ in range(30):
        sim.client.session.request_renegotiation("manual", sim.now)
        sim._drain()
        sim.run_until(0.5)
    for name in ("client", "server"):
        alive: set[int] = set()
        for _, what, key_id in sim.times[name]:
            if what == "install":
                assert key_id not in alive
                alive.add(key_id)
            elif what == "remove":
                alive.remove(key_id)
        assert len(alive) <= 8


def test_only_one_renegotiation_runs_at_a_time() -> None:
    sim = Timed()
    assert not sim.client.session.request_renegotiation("manual", sim.now), "before there is a key"
    sim.run_until(3)
    assert sim.client.session.request_renegotiation("bytes", sim.now)
    assert not sim.client.session.request_renegotiation("packets", sim.now)
    sim._drain()
    sim.run_until(3)
    assert sim.client.session.request_renegotiation("packets", sim.now)


def test_a_session_that_is_going_down_starts_none() -> None:
    sim = Timed({"reneg_seconds": 4.0})
    sim.run_until(3)
    sim.client.session.handle_occ_exit(sim.now)
    assert not sim.client.session.request_renegotiation("manual", sim.now)
    sim._drain()
    sim.run_until(10)
    assert sim.client.ended and sim.at("client", "install", 1) == []


def test_a_new_key_opens_before_it_is_acknowledged_and_seals_only_behind() -> None:
    sim = Timed()
    sim.run_until(3)
    sim.client.session.request_renegotiation("manual", sim.now)
    sim._drain()
    sim.run_until(90)
    for name, other in (("client", "server"), ("server", "client")):
        assert sim.at(name, "install", 1)[0] < sim.at(other, "use", 1)[0]
