"""A renegotiation authenticates again: whom we refuse then has no old key to live on."""

from __future__ import annotations

import pytest

from bridged.errors import RemoteProtocolError
from bridged.protocol.role import Role
from bridged.protocol.session.states import SessionState
from bridged.tls import TlsSettings, make_engine_factory
from tests.sim.noisy_wire import Simulation, identities, renegotiations, settings


def connected(mode: str = "tls-crypt") -> Simulation:
    simulation = Simulation(settings(Role.CLIENT, mode), settings(Role.SERVER, mode))
    simulation.run_until(20, stop=lambda s: s.client.established and s.server.established)
    return simulation


def refusing(role: str) -> object:
    """An engine factory of that end which lets nobody in."""
    ca, certificate, key = identities()[role]
    usage = "client" if role == "server" else "server"
    return make_engine_factory(TlsSettings(role, certificate, key, ca, peer_usage=usage, peer_name="nobody"))


@pytest.mark.parametrize("mode", ["none", "tls-crypt"])
@pytest.mark.parametrize("role", ["server", "client"])
@pytest.mark.parametrize("starter", ["server", "client"])
def test_a_peer_that_fails_its_reauthentication_is_out_at_once(mode: str, role: str, starter: str) -> None:
    simulation = connected(mode)
    judging = getattr(simulation, role)
    judging.session.keys._make_engine = refusing(role)
    assert getattr(simulation, starter).session.request_renegotiation("time", simulation.now)
    simulation.run_until(1.0, stop=lambda _: judging.down is not None)
    assert judging.down is not None and judging.down.reason == "auth_expired"
    assert "nobody" in judging.down.detail
    assert renegotiations(judging) == ["name_mismatch"]
    # The other one hears of it, too: it does not seal for nobody until its ping-restart.
    other = simulation.client if role == "server" else simulation.server
    simulation.run_until(5.0, stop=lambda _: other.down is not None)
    assert other.down is not None


def test_another_certificate_in_a_renegotiation_ends_the_session() -> None:
    simulation = connected()
    ca, certificate, key = identities()["second"]
    simulation.client.session.keys._make_engine = make_engine_factory(
        TlsSettings("client", certificate, key, ca, peer_usage="server")
    )
    simulation.client.session.request_renegotiation("time", simulation.now)
    simulation.run_until(2.0, stop=lambda s: s.server.down is not None)
    assert simulation.server.down is not None and simulation.server.down.reason == "auth_expired"
    assert "another certificate" in simulation.server.down.detail


def test_what_the_peer_says_of_our_certificate_leaves_us_the_old_key() -> None:
    """Its refusal is its own to carry out; an alert is no proof of anything."""
    simulation = connected()
    simulation.server.session.keys._make_engine = refusing("server")
    simulation.server.session._farewell.say = lambda *_: None  # a server that says nothing
    simulation.client.session.request_renegotiation("time", simulation.now)
    simulation.run_until(3.0)
    assert simulation.server.down is not None
    assert simulation.client.session.state is SessionState.ESTABLISHED
    assert simulation.client.sealing == 0


def test_a_renegotiation_that_fails_otherwise_leaves_the_old_key() -> None:
    simulation = connected()

    def broken(*_: object) -> None:
        raise RemoteProtocolError("tls_failed", "not a key message")

    simulation.server.session.conversation.receive_key_message = broken
    simulation.client.session.request_renegotiation("time", simulation.now)
    simulation.run_until(5.0)
    assert renegotiations(simulation.server) == ["tls_failed"]
    assert simulation.server.session.state is SessionState.ESTABLISHED


def test_a_farewell_is_a_server_s_to_choose_and_reaches_the_client() -> None:
    simulation = connected()
    simulation.server.session.close("kicked", "", simulation.now, farewell="AUTH_FAILED,revoked")
    simulation.run_until(1.0, stop=lambda s: s.client.down is not None)
    assert simulation.client.down is not None and simulation.client.down.reason == "auth_expired"
    assert "revoked" in simulation.client.down.detail
    again = connected()
    again.client.session.close("kicked", "", again.now, farewell="AUTH_FAILED,x")
    again.run_until(1.0, stop=lambda s: s.server.down is not None)
    assert again.server.down is not None and again.server.down.reason == "exit_notify"
