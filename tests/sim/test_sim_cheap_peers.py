"""What one peer can make the other end do: repeat control packets, send to others, renegotiate."""

from __future__ import annotations

import itertools

from bridged.protocol.role import Role
from bridged.protocol.session.events import SendDatagram
from bridged.protocol.session.renegotiation import PEER_RENEGOTIATION_SECONDS, PEER_RENEGOTIATIONS_BURST
from bridged.tls.engine import PyOpenSslEngine
from tests.sim.noisy_wire import Noise, Simulation, renegotiations, settings


def joined(**common: object) -> Simulation:
    sim = Simulation(
        settings(Role.CLIENT, "tls-crypt", **common),
        settings(Role.SERVER, "tls-crypt", **common),
        noise=Noise(delay=0.0011),
    )
    sim.run_until(5)
    assert sim.client.established and sim.server.established
    return sim


def sent_by(session) -> int:
    count = 0
    while (event := session.poll_event()) is not None:
        count += isinstance(event, SendDatagram)
    return count


def test_floats_repeat_what_is_unacknowledged_once_in_a_retransmission_time() -> None:
    server = joined().server.session
    now = 1005.0
    server.request_renegotiation("manual", now)
    assert sent_by(server) == 1
    times: list[float] = []
    for step in range(1, 900):
        at = now + step * 0.007
        server.handle_float(at)
        if sent_by(server):
            times.append(at - now)
        server.handle_timeout(at)
        if sent_by(server):
            times.append(at - now)
    assert times[0] < 0.01, "the first float repeats at once"
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert len(times) >= 3 and min(gaps) > 1.99, times


def test_a_path_change_repeats_at_once_each_time() -> None:
    client = joined().client.session
    client.request_renegotiation("manual", 1005.0)
    assert sent_by(client) == 1
    for step in range(1, 6):
        client.handle_path_change(1005.0 + step * 0.1)
        assert sent_by(client) == 1


def test_a_peer_cannot_renegotiate_as_fast_as_it_can() -> None:
    sim = joined()
    seconds = 60.0
    until = sim.now + seconds
    while sim.now < until:
        sim.client.session.request_renegotiation("manual", sim.now)
        sim._drain()
        sim.run_until(0.05)
    done = renegotiations(sim.server).count("established")
    assert done <= PEER_RENEGOTIATIONS_BURST + seconds / PEER_RENEGOTIATION_SECONDS
    assert sim.server.session.drops["renegotiation_rate"] > 0
    assert sim.client.down is None and sim.server.down is None


def test_a_renegotiation_that_came_too_soon_is_only_later() -> None:
    sim = joined()
    for _ in range(PEER_RENEGOTIATIONS_BURST + 1):
        assert sim.client.session.request_renegotiation("manual", sim.now)
        sim._drain()
        sim.run_until(10, stop=lambda s: s.client.session.keys.primary.phase.name != "PRE_START")
        sim.run_until(0.05)
    sim.run_until(5)
    assert renegotiations(sim.client) == ["established"] * (PEER_RENEGOTIATIONS_BURST + 1)
    assert sim.client.down is None and sim.server.down is None


def test_ends_that_renegotiate_every_two_seconds_are_not_slowed() -> None:
    sim = joined(reneg_seconds=2.0)
    sim.run_until(60)
    assert renegotiations(sim.server).count("established") > 28
    assert (
        sim.server.session.drops["renegotiation_rate"] == sim.client.session.drops["renegotiation_rate"] == 0
    )


def test_a_key_that_is_not_sealed_with_any_more_keeps_no_tls_session() -> None:
    sim = joined(tran_window=3600.0)
    sim.client.session.request_renegotiation("manual", sim.now)
    sim._drain()
    sim.run_until(100)
    for end in (sim.client, sim.server):
        assert end.session.keys.lame_duck.is_released and not end.session.keys.primary.is_released
        engine = end.session.keys.lame_duck.engine
        assert isinstance(engine, PyOpenSslEngine) and engine._connection is None
    sim.client.session.request_renegotiation("manual", sim.now)
    sim._drain()
    sim.run_until(100)
    assert renegotiations(sim.client) == ["established"] * 2
    sim.client.session.close("shutdown", "stopping", sim.now)
    sim._drain()
    sim.run_until(5)
    assert sim.server.down.reason == "exit_notify"
