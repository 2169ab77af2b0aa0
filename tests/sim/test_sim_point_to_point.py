"""Two session machines of a point-to-point link over a noisy wire: nothing is pushed."""

from __future__ import annotations

import pytest

from bridged.protocol.keys.cipher import Cipher
from bridged.protocol.role import Role
from tests.sim.noisy_wire import Noise, Simulation, assert_same_keys, settings

LINK = {"is_point_to_point": True}


def simulation(mode: str = "tls-crypt", use_exporter: bool = True, **arguments: object) -> Simulation:
    client = settings(Role.CLIENT, mode, **LINK, use_exporter=use_exporter)
    return Simulation(client, settings(Role.SERVER, mode, **LINK), **arguments)


@pytest.mark.parametrize("use_exporter", [True, False], ids=["exporter", "prf"])
@pytest.mark.parametrize("mode", ["none", "tls-auth", "tls-crypt"])
def test_both_ends_come_to_the_same_terms(mode: str, use_exporter: bool) -> None:
    sim = simulation(mode, use_exporter)
    sim.run_until(10)
    assert sim.client.established and sim.server.established
    assert_same_keys(sim)
    ours, theirs = sim.client.session.terms, sim.server.session.terms
    assert theirs.key_derivation == ("exporter" if use_exporter else "prf")
    assert theirs.dynamic_wrap == use_exporter
    assert (theirs.transmit_peer_id == 0x76706E) == (not use_exporter)
    assert ours.transmit_peer_id == theirs.transmit_peer_id
    assert (ours.key_derivation, ours.dynamic_wrap) == (theirs.key_derivation, theirs.dynamic_wrap)
    assert (ours.ping, ours.ping_restart, ours.is_epoch) == (10, 60, False)
    assert not ours.warnings and not theirs.warnings
    assert not sim.client.session.drops and not sim.server.session.drops


def test_the_order_of_the_tls_server_decides() -> None:
    orders = (
        (Cipher.CHACHA20_POLY1305, Cipher.AES_128_GCM),
        (Cipher.AES_256_GCM, Cipher.AES_128_GCM, Cipher.CHACHA20_POLY1305),
    )
    for ours, theirs in (orders, orders[::-1]):
        sim = Simulation(
            settings(Role.CLIENT, "tls-crypt", **LINK, ciphers=ours),
            settings(Role.SERVER, "tls-crypt", **LINK, ciphers=theirs),
        )
        sim.run_until(10)
        first = next(cipher for cipher in theirs if cipher in ours)
        assert sim.client.session.terms.cipher is sim.server.session.terms.cipher is first


@pytest.mark.parametrize("seed", range(6))
def test_a_lossy_wire_ends_in_the_same_keys(seed: int) -> None:
    sim = simulation(noise=Noise(0.2, repeat=0.1, corrupt=0.02, delay=0.3), seed=seed)
    sim.run_until(100)
    assert sim.client.established and sim.server.established
    assert_same_keys(sim)


def test_ends_without_a_common_cipher_part() -> None:
    sim = Simulation(
        settings(Role.CLIENT, "tls-crypt", **LINK, ciphers=(Cipher.AES_128_GCM,)),
        settings(Role.SERVER, "tls-crypt", **LINK, ciphers=(Cipher.AES_256_GCM,)),
    )
    sim.run_until(100)
    assert not sim.client.established and not sim.server.established
    assert sim.server.down is not None and sim.server.down.reason == "cipher_mismatch"
    assert sim.client.down is not None
