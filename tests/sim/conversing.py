"""Two ends behind the keys, one of which says something that the test has chosen."""

from __future__ import annotations

from bridged.protocol.role import Role
from bridged.protocol.session.states import SessionState
from tests.sim.noisy_wire import End, Simulation, settings


def make(mode: str = "tls-crypt", *, admit: bool | None = True, **common: object) -> Simulation:
    return Simulation(
        settings(Role.CLIENT, mode, **common), settings(Role.SERVER, mode, **common), admit=admit
    )


def say(sim: Simulation, end: End, text: str) -> None:
    end.session.keys.say(text, sim.now)
    end.session.handle_timeout(sim.now)
    sim._drain()
    sim.run_until(3)


def waiting_for_admission() -> Simulation:
    sim = make(admit=None)
    sim.run_until(3)
    assert sim.client.session.state is SessionState.HANDSHAKE
    return sim
