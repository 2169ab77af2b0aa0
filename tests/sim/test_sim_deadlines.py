"""When a session wants to be called next, and why, through its whole life."""

from __future__ import annotations

from bridged.protocol.role import Role
from bridged.protocol.session.states import SessionState
from tests.sim.noisy_wire import End, Noise, Simulation, settings


def make(**common: object) -> Simulation:
    return Simulation(
        settings(Role.CLIENT, "tls-crypt", **common), settings(Role.SERVER, "tls-crypt", **common)
    )


def wait(sim: Simulation, end: End) -> tuple[str, float]:
    """Why this end waits, and for how many seconds."""
    deadline = end.session.poll_timeout()
    return deadline.reason, deadline.at - sim.now


def test_an_unanswered_client_waits_for_retransmissions_and_at_last_for_the_end_of_the_handshake() -> None:
    sim = Simulation(
        settings(Role.CLIENT, "tls-crypt"), settings(Role.SERVER, "tls-crypt"), noise=Noise(loss=1.0)
    )
    assert wait(sim, sim.client) == ("retransmission", 2.0)
    sim.run_until(2.0)
    assert wait(sim, sim.client) == ("retransmission", 4.0)
    sim.run_until(57.0)
    assert wait(sim, sim.client) == ("handshake window", 1.0)
    sim.run_until(2.0)
    assert sim.client.down.reason == "timeout"


def test_a_client_without_options_waits_to_ask_for_them() -> None:
    sim = Simulation(settings(Role.CLIENT, "tls-crypt"), settings(Role.SERVER, "tls-crypt"), admit=None)
    sim.run_until(30)
    assert wait(sim, sim.client)[0] == "push request"
    assert wait(sim, sim.server)[0] == "push request"


def test_an_established_session_waits_for_its_next_renegotiation() -> None:
    sim = make(reneg_seconds=3600.0)
    sim.run_until(10)
    reason, seconds = wait(sim, sim.client)
    assert reason == "renegotiation" and 3580 < seconds < 3600


def test_an_established_session_that_renews_nothing_waits_for_nothing() -> None:
    sim = make()
    sim.run_until(10)
    assert sim.client.session.state is SessionState.ESTABLISHED
    assert sim.client.session.poll_timeout() is None


def test_a_renegotiated_session_waits_to_change_over_then_for_the_old_key_to_die() -> None:
    sim = make()
    sim.run_until(200)
    assert sim.client.session.request_renegotiation("manual", sim.now)
    sim.run_until(5)
    reason, seconds = wait(sim, sim.client)
    assert reason == "key change" and 54 < seconds <= 60
    sim.run_until(60)
    assert wait(sim, sim.client)[0] == "lame duck"


def test_a_farewell_waits_for_its_acknowledgement_but_not_for_long() -> None:
    sim = make()
    sim.run_until(10)
    sim.noise.loss = 1.0
    sim.client.session.close("shutdown", "over", sim.now)
    sim._drain()
    assert wait(sim, sim.client) == ("drain", 1.0)
    sim.run_until(1.5)
    assert sim.client.session.state is SessionState.CLOSED
    assert sim.client.session.poll_timeout() is None
