"""What both ends must agree on, or one of them is told: framing, fragments, and passwords."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bridged.protocol.keys.key_exchange import serialize_client_key_message
from bridged.protocol.role import Role
from bridged.protocol.session import conversation_client, conversation_server
from bridged.protocol.session.events import InstallKey
from bridged.protocol.session.key_state import KeyPhase
from tests.sim.conversing import make, say, waiting_for_admission
from tests.sim.noisy_wire import Simulation, settings


@pytest.mark.parametrize(
    ("framing", "pushed"), [("none", "comp-lzo yes"), ("none", "compress"), ("auto", "compress zstd")]
)
def test_a_pushed_framing_that_cannot_be_used_is_refused_with_the_cure(framing: str, pushed: str) -> None:
    sim = make(admit=None, framing=framing)
    sim.run_until(3)
    say(sim, sim.server, f"PUSH_REPLY,{pushed},peer-id 1,cipher AES-256-GCM")
    assert sim.client.down.reason == "framing_mismatch"
    assert f"`{pushed}`" in sim.client.down.detail and "compression_framing" in sim.client.down.detail


@pytest.mark.parametrize(
    ("pushed", "framing"),
    [
        ("comp-lzo no", "comp-lzo"),
        ("comp-lzo yes", "comp-lzo"),
        ("compress", "stub"),
        ("compress lz4", "stub"),
        ("compress lz4-v2", "stub-v2"),
        ("compress stub-v2", "stub-v2"),
        ("compress migrate", "none"),
        ("ping 1", "none"),
    ],
)
def test_a_client_uses_the_framing_that_is_pushed(pushed: str, framing: str) -> None:
    sim = waiting_for_admission()
    say(sim, sim.server, f"PUSH_REPLY,{pushed},peer-id 1,cipher AES-256-GCM")
    assert sim.client.session.terms.framing == framing


@pytest.mark.parametrize(
    ("client", "server", "agreed"),
    [
        ("auto", "auto", "none"),
        ("none", "auto", "none"),
        ("auto", "none", "none"),
        ("comp-lzo", "auto", "stub-v2"),
        ("stub", "auto", "stub-v2"),
        ("stub-v2", "auto", "stub-v2"),
        ("auto", "comp-lzo", "comp-lzo"),
        ("stub", "comp-lzo", "comp-lzo"),
        ("auto", "stub", "stub"),
        ("comp-lzo", "stub-v2", "stub-v2"),
        ("none", "stub", "none"),
    ],
)
def test_both_ends_agree_on_a_framing_without_a_warning(client: str, server: str, agreed: str) -> None:
    sim = Simulation(
        settings(Role.CLIENT, "tls-crypt", framing=client), settings(Role.SERVER, "tls-crypt", framing=server)
    )
    sim.run_until(5)
    for end in (sim.client, sim.server):
        assert end.established and end.session.terms.framing == agreed
        assert end.session.terms.remarks == ()


def with_option(monkeypatch: pytest.MonkeyPatch, who: str, old: str, new: str) -> None:
    """Let one end say another options string."""
    module = conversation_client if who == "client" else conversation_server
    build = module.build_options_string
    monkeypatch.setattr(module, "build_options_string", lambda options: build(options).replace(old, new, 1))


FRAMINGS = {
    "`comp-lzo` or `compress`": (",auth", ",comp-lzo,auth"),
    "`fragment`": (",auth", ",mtu-dynamic,auth"),
    "`dev-type tun`": ("dev-type tap", "dev-type tun"),
}


@pytest.mark.parametrize("named", FRAMINGS)
def test_a_client_with_another_framing_is_refused_with_the_option_and_the_cure(
    monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    with_option(monkeypatch, "client", *FRAMINGS[named])
    sim = make(framing="none")
    sim.run_until(5)
    assert not sim.server.established and not sim.server.of(InstallKey)
    assert sim.server.down.reason == "framing_mismatch" and sim.client.down.reason == "auth_failed"
    for end in (sim.client, sim.server):
        assert named in end.down.detail and "at the client" in end.down.detail


@pytest.mark.parametrize("named", FRAMINGS)
def test_a_server_with_another_framing_is_left_with_the_option_and_the_cure(
    monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    with_option(monkeypatch, "server", *FRAMINGS[named])
    sim = make(framing="none")
    sim.run_until(5)
    assert not sim.client.established and not sim.client.of(InstallKey)
    assert sim.client.down.reason == "framing_mismatch"
    assert named in sim.client.down.detail and "at the server" in sim.client.down.detail
    assert sim.server.down.reason == "exit_notify", "the server is told, and floods nothing at us"


@pytest.mark.parametrize(("client", "server"), [(1300, 0), (0, 1300)])
def test_fragment_at_one_end_only_is_refused_with_the_cure(client: int, server: int) -> None:
    sim = Simulation(
        settings(Role.CLIENT, "tls-crypt", fragment=client),
        settings(Role.SERVER, "tls-crypt", fragment=server),
    )
    sim.run_until(5)
    assert not sim.server.established and sim.server.down.reason == "framing_mismatch"
    assert "`fragment`" in sim.client.down.detail


def test_fragment_at_both_ends_is_agreed_whatever_the_sizes() -> None:
    sim = Simulation(
        settings(Role.CLIENT, "tls-crypt", fragment=1300), settings(Role.SERVER, "tls-crypt", fragment=1200)
    )
    sim.run_until(5)
    for end, size in ((sim.client, 1300), (sim.server, 1200)):
        assert end.established and end.session.terms.fragment == size
        assert end.session.terms.remarks == ()


@pytest.mark.parametrize(("username", "password"), [("lan", "secret"), ("", "secret"), ("lan", "")])
def test_a_password_that_nobody_asked_for_is_said(
    monkeypatch: pytest.MonkeyPatch, username: str, password: str
) -> None:
    write = serialize_client_key_message
    monkeypatch.setattr(
        conversation_client,
        "serialize_client_key_message",
        lambda message: write(replace(message, username=username, password=password)),
    )
    sim = make()
    sim.run_until(5)
    terms = sim.server.session.terms
    assert sim.server.established and terms.has_unasked_password
    assert any("auth-user-pass" in remark for remark in terms.remarks)
    assert "secret" not in repr(sim.server.events)


def test_a_client_without_a_password_is_not_said_to_have_one() -> None:
    sim = make()
    sim.run_until(5)
    assert sim.server.session.terms.remarks == ()


def test_a_refusal_without_a_reason_suspects_that_a_password_is_asked_for() -> None:
    sim = waiting_for_admission()
    say(sim, sim.server, "AUTH_FAILED")
    assert sim.client.down.reason == "auth_failed"
    assert "user name and password" in sim.client.down.detail


def test_a_server_that_falls_silent_behind_our_certificate_is_suspected_to_ask_for_a_password() -> None:
    """It has our whole TLS handshake; what it does not take is the key message."""
    sim = Simulation(settings(Role.CLIENT, "tls-crypt"), settings(Role.SERVER, "tls-crypt"))
    sim.run_until(5, stop=lambda s: s.client.session.keys.primary.is_tls_acknowledged)
    assert sim.client.session.keys.primary.phase is KeyPhase.EXCHANGE
    sim.noise.loss = 1.0
    sim._queue.clear()
    sim.run_until(100)
    assert sim.client.down.reason == "timeout" and "user name and password" in sim.client.down.detail
