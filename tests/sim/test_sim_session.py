"""Two session machines over a noisy wire, on a virtual clock, with real TLS."""

from __future__ import annotations

import pytest

from bridged.protocol.keys.cipher import Cipher
from bridged.protocol.role import Role
from bridged.protocol.session.events import InstallKey
from bridged.protocol.session.states import SessionState
from tests.sim.noisy_wire import TWO_FIVE, Noise, Simulation, assert_same_keys, renegotiations, settings

WRAPS = ("none", "tls-auth", "tls-crypt", "tls-crypt-v2", TWO_FIVE)


def simulation(mode: str = "tls-crypt", *, common: dict | None = None, **arguments: object) -> Simulation:
    common = common or {}
    return Simulation(
        settings(Role.CLIENT, mode, **common), settings(Role.SERVER, mode, **common), **arguments
    )


@pytest.mark.parametrize("use_exporter", [True, False], ids=["exporter", "prf"])
@pytest.mark.parametrize("tls_max", ["1.2", "1.3"])
@pytest.mark.parametrize("mode", WRAPS)
def test_both_ends_derive_the_same_keys(mode: str, tls_max: str, use_exporter: bool) -> None:
    sim = simulation(mode, common={"use_exporter": use_exporter}, tls_max=tls_max)
    sim.run_until(10)
    assert sim.client.established and sim.server.established
    assert_same_keys(sim)
    terms = sim.client.session.terms
    assert terms.key_derivation == ("exporter" if use_exporter else "prf")
    assert terms.dynamic_wrap == use_exporter and terms.is_epoch == use_exporter
    assert terms.transmit_peer_id == 7
    assert terms.ping == 10 and terms.ping_restart == 60
    assert not sim.client.session.drops and not sim.server.session.drops


def test_a_clean_wire_needs_no_retransmission() -> None:
    sim = simulation(noise=Noise(delay=0.001001))
    sim.run_until(10, stop=lambda s: s.client.established and s.server.established)
    assert sim.now < 1000.5
    assert all(key.send.retransmissions == 0 for key in sim.client.session.keys.newest_first())


def test_tls_1_3_ends_use_the_hybrid_group() -> None:
    sim = simulation()
    sim.run_until(5)
    assert sim.client.session.terms.tls.group == "X25519MLKEM768"


@pytest.mark.parametrize("loss", [0.0, 0.1, 0.2, 0.3, 0.4])
@pytest.mark.parametrize("mode", WRAPS)
def test_a_handshake_completes_or_gives_up_cleanly(mode: str, loss: float) -> None:
    completed = 0
    for seed in range(12):
        sim = simulation(mode, noise=Noise(loss, repeat=0.1, corrupt=0.02, delay=0.3), seed=seed)
        sim.run_until(200)
        for end in (sim.client, sim.server):
            if end.session is None or end.established:
                continue
            assert end.down is not None, f"seed {seed}: neither up nor down after 200 s"
            # A corrupted byte inside TLS fails the handshake where no wrap authenticates it.
            assert end.down.reason in ("timeout", "push_failed", "tls_failed")
            assert end.ended
        completed += sim.client.established and sim.server.established
        if sim.client.established and sim.server.established:
            assert_same_keys(sim)
    assert completed >= (12 if loss == 0 and mode != "none" else 10 if loss <= 0.2 and mode != "none" else 4)


@pytest.mark.parametrize("loss", [0.0, 0.2, 0.4])
def test_renegotiations_go_on_over_a_lossy_wire(loss: float) -> None:
    sim = simulation(common={"reneg_seconds": 60.0}, noise=Noise(loss, repeat=0.05, delay=0.2), seed=3)
    sim.run_until(900)
    assert sim.client.established and sim.server.established
    done = renegotiations(sim.client).count("established")
    assert done >= (12 if loss == 0 else 5)
    assert_same_keys(sim)


def test_key_ids_go_round_without_using_zero_again() -> None:
    sim = simulation(common={"reneg_seconds": 20.0})
    sim.run_until(230)
    used = [event.key.key_id for event in sim.client.events if isinstance(event, InstallKey)]
    assert used[:10] == [0, 1, 2, 3, 4, 5, 6, 7, 1, 2]


def test_an_old_key_opens_until_the_other_end_has_changed_over() -> None:
    sim = simulation(common={"reneg_seconds": 20.0})
    for _ in range(2000):
        sim.run_until(0.05)
        if sim.client.sealing is not None and sim.server.established:
            assert sim.client.sealing in sim.server.keys
        if sim.server.sealing is not None and sim.client.established:
            assert sim.server.sealing in sim.client.keys


def test_both_ends_may_start_a_renegotiation_at_once() -> None:
    sim = simulation()
    sim.run_until(5)
    assert sim.client.session.request_renegotiation("manual", sim.now)
    assert sim.server.session.request_renegotiation("manual", sim.now)
    sim.run_until(5)
    assert renegotiations(sim.client) == renegotiations(sim.server) == ["established"]
    assert set(sim.client.keys) == {0, 1}


def test_a_dead_wire_gives_up_after_the_hand_window() -> None:
    sim = simulation(noise=Noise(loss=1.0))
    sim.run_until(100)
    assert sim.client.down.reason == "timeout"
    assert 59 < sim.client.down.duration < 62
    assert sim.client.ended and sim.client.session.poll_timeout() is None


def test_a_renegotiation_into_a_dead_wire_leaves_the_old_key_in_use() -> None:
    sim = simulation(common={"reneg_seconds": 100.0, "tran_window": 300.0})
    sim.run_until(50)
    sim.noise.loss = 1.0
    sim.run_until(150)
    assert sim.client.session.state is SessionState.ESTABLISHED
    assert "timeout" in renegotiations(sim.client)
    assert sim.client.sealing == 0 and 0 in sim.client.keys
    sim.run_until(400)
    assert sim.client.down.reason == "renegotiation_failed"


def test_a_strangers_certificate_is_refused_and_both_ends_say_so() -> None:
    sim = simulation(client_name="stranger")
    sim.run_until(20)
    assert not sim.client.established and not sim.server.established
    assert sim.server.down.reason == "certificate_rejected"
    assert sim.client.down.reason in ("tls_failed", "certificate_rejected")
    assert sim.server.ended and sim.client.ended


def test_a_wrong_wrap_key_never_makes_a_session() -> None:
    client = settings(Role.CLIENT, "none")
    server = settings(Role.SERVER, "tls-crypt")
    sim = Simulation(client, server)
    sim.run_until(100)
    assert sim.server.session is None
    assert sim.client.down.reason == "timeout"
    assert sim.drops.get("wrap_mismatch", 0) + sim.drops.get("short_packet", 0) >= 5


def test_no_shared_cipher_is_told_to_the_client() -> None:
    client = settings(Role.CLIENT, "tls-crypt", ciphers=(Cipher.CHACHA20_POLY1305,))
    server = settings(Role.SERVER, "tls-crypt", ciphers=(Cipher.AES_256_GCM,))
    sim = Simulation(client, server)
    sim.run_until(20)
    assert sim.server.down.reason == "cipher_mismatch"
    assert sim.client.down.reason == "auth_failed"
    assert "no shared cipher" in sim.client.down.detail


def test_a_refused_client_learns_the_reason() -> None:
    sim = simulation(admit=False)
    sim.run_until(20)
    assert sim.client.down.reason == "auth_failed" and "not today" in sim.client.down.detail
    assert sim.server.down.reason == "auth_failed"


def test_a_client_that_finds_no_room_is_asked_to_come_again() -> None:
    sim = simulation(admit=False)
    sim.refusal = ("peer_limit", "no room")
    sim.run_until(20)
    assert sim.server.down.reason == "peer_limit"
    assert "temporary" in sim.client.down.detail and "no room" in sim.client.down.detail
    assert sim.client.down.retry_after == 3 and sim.client.down.advance == "remote"


def test_a_client_that_cannot_tell_a_passing_refusal_hears_nothing() -> None:
    sim = simulation(admit=False, common={"use_exporter": False})
    sim.refusal = ("peer_limit", "no room")
    sim.run_until(100)
    assert sim.server.down.reason == "peer_limit"
    assert sim.client.down.reason == "push_failed"


@pytest.mark.parametrize("who", ["client", "server"])
def test_the_other_end_hears_a_farewell(who: str) -> None:
    sim = simulation()
    sim.run_until(5)
    leaving, staying = (sim.client, sim.server) if who == "client" else (sim.server, sim.client)
    leaving.session.close("shutdown", "stopping", sim.now)
    sim._drain()
    sim.run_until(10)
    assert staying.down.reason == "exit_notify"
    assert leaving.down.reason == "shutdown"
    assert leaving.ended and staying.ended


def test_replayed_control_packets_change_nothing() -> None:
    sim = simulation(noise=Noise(repeat=1.0))
    sim.run_until(20)
    assert sim.client.established and sim.server.established
    assert sim.client.session.drops["replay"] > 0
    assert_same_keys(sim)
