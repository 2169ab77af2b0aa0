"""Many seeds over bad wires: sessions come up or give up, keys agree, memory stays small."""

from __future__ import annotations

import pytest

from bridged.protocol.role import Role
from tests.sim.noisy_wire import Noise, Simulation, assert_keys_agree, assert_small, renegotiations, settings

SEEDS = range(100, 115)
GOOD_OUTCOMES = {"timeout", "push_failed", "tls_failed"}


def make(mode: str, noise: Noise, seed: int, **common: object) -> Simulation:
    return Simulation(
        settings(Role.CLIENT, mode, **common), settings(Role.SERVER, mode, **common), noise=noise, seed=seed
    )


@pytest.mark.parametrize("corrupt", [0.0, 0.05])
@pytest.mark.parametrize("loss", [0.0, 0.1, 0.25, 0.4])
@pytest.mark.parametrize("mode", ["none", "tls-auth", "tls-crypt"])
def test_a_handshake_over_a_bad_wire_ends_one_way_or_the_other(
    mode: str, loss: float, corrupt: float
) -> None:
    completed = 0
    for seed in SEEDS:
        sim = make(mode, Noise(loss, repeat=0.2, corrupt=corrupt, delay=0.5), seed)
        sim.run_until(260)
        for end in (sim.client, sim.server):
            if end.session is None:
                continue
            assert_small(end.session)
            if not end.established:
                assert end.down is not None and end.down.reason in GOOD_OUTCOMES, end.down
                assert end.ended and end.session.poll_timeout() is None
        assert_keys_agree(sim)
        completed += sim.client.established and sim.server.established
    if mode != "none" or corrupt == 0:
        assert completed >= len(SEEDS) * (1.0 if loss <= 0.1 else 0.8 if loss <= 0.25 else 0.4)


@pytest.mark.parametrize("corrupt", [0.0, 0.02])
@pytest.mark.parametrize("loss", [0.1, 0.3])
@pytest.mark.parametrize("mode", ["tls-auth", "tls-crypt"])
def test_renegotiations_over_a_bad_wire_never_leave_the_ends_without_a_common_key(
    mode: str, loss: float, corrupt: float
) -> None:
    """Both ends renegotiate by their own clocks; a key that seals is one the other end can open."""
    done = 0
    for seed in SEEDS:
        sim = make(mode, Noise(0.0, delay=0.3), seed, reneg_seconds=90.0, tran_window=400.0)
        sim.run_until(5)
        assert sim.client.established and sim.server.established
        sim.noise = Noise(loss, repeat=0.2, corrupt=corrupt, delay=0.3)
        for _ in range(40):
            sim.run_until(20)
            if sim.client.down or sim.server.down:
                break
            assert sim.client.sealing in sim.server.keys
            assert sim.server.sealing in sim.client.keys
            assert_keys_agree(sim)
            assert_small(sim.client.session)
            assert_small(sim.server.session)
        done += renegotiations(sim.client).count("established")
    assert done >= len(SEEDS) * 6


@pytest.mark.parametrize("first", ["client", "server"])
@pytest.mark.parametrize("lead", [0.0, 0.01, 0.05, 0.3])
def test_two_renegotiations_in_flight_become_one(first: str, lead: float) -> None:
    for seed in SEEDS:
        sim = make("tls-crypt", Noise(0.15, repeat=0.2, delay=0.2), seed)
        sim.run_until(60)
        if not (sim.client.established and sim.server.established):
            continue
        one, other = (sim.client, sim.server) if first == "client" else (sim.server, sim.client)
        one.session.request_renegotiation("manual", sim.now)
        sim.run_until(lead)
        other.session.request_renegotiation("manual", sim.now)
        sim.run_until(130)
        assert renegotiations(sim.client) == renegotiations(sim.server) == ["established"]
        assert sim.client.sealing == sim.server.sealing == 1
        assert_keys_agree(sim)


def test_a_failed_renegotiation_is_tried_again_and_heals() -> None:
    sim = make("tls-crypt", Noise(), 5, reneg_seconds=100.0, tran_window=2000.0)
    sim.run_until(50)
    sim.noise.loss = 1.0
    sim.run_until(150)
    assert "timeout" in renegotiations(sim.client)
    sim.noise.loss = 0.0
    sim.run_until(200)
    assert sim.client.down is None and sim.server.down is None
    assert renegotiations(sim.client)[-1] == renegotiations(sim.server)[-1] == "established"
    assert sim.client.sealing == sim.server.sealing and sim.client.sealing >= 1
    assert_keys_agree(sim)
