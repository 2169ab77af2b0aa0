"""Fuzz target: a TLS engine and hostile bytes, alone and in the middle of a true handshake.

The first byte chooses the role of the engine under attack, whether a true peer talks to it first, and
how many of its flights arrive unharmed; the second the size of the pieces.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from bridged.errors import TlsError
from bridged.pki.certificates import (
    Validity,
    build_authority,
    build_certificate,
    certificate_pem,
    generate_key,
    key_pem,
)
from bridged.protocol.session.tls_session import TlsEngine, TlsEngineFactory
from bridged.tls import TlsSettings, make_engine_factory


def _factories() -> dict[str, TlsEngineFactory]:
    now = datetime.now(UTC)
    validity = Validity(now - timedelta(days=1), now + timedelta(days=2))
    root_key = generate_key()
    root = build_authority("CA", root_key, validity)
    made: dict[str, TlsEngineFactory] = {}
    for role in ("client", "server"):
        key = generate_key()
        certificate = build_certificate(role, key.public_key(), role, root, root_key, validity)
        made[role] = make_engine_factory(
            TlsSettings(role, certificate_pem(certificate), key_pem(key), certificate_pem(root))
        )
    return made


FACTORIES = _factories()


def _attack(engine: TlsEngine, octets: bytes, step: int) -> None:
    try:
        for start in range(0, len(octets), step):
            engine.receive(octets[start : start + step])
    except TlsError as error:
        assert error.code and error.message and error.message.isprintable()
    engine.take_ciphertext()
    engine.read()


def one_input(data: bytes) -> None:
    if len(data) < 2:
        return
    choice, step = data[0], data[1] * 8 + 1
    role, other = ("server", "client") if choice & 1 else ("client", "server")
    victim, peer = FACTORIES[role](), FACTORIES[other]()
    victim.start()
    peer.start()
    if choice & 2:
        for _ in range((choice >> 2) & 3):
            victim.receive(peer.take_ciphertext())
            peer.receive(victim.take_ciphertext())
        if choice & 16:
            # The peer's next flight, changed by the rest of the input.
            flight = bytearray(peer.take_ciphertext())
            for index, octet in enumerate(data[2:]):
                if flight:
                    flight[(index * 31 + octet) % len(flight)] ^= octet
            _attack(victim, bytes(flight), step)
    _attack(victim, data[2:], step)
    victim.close()
    peer.close()
