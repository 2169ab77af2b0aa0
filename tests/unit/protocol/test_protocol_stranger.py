"""A packet that cannot be opened tells how its sender wraps, and what to do about it."""

from __future__ import annotations

import random

import pytest

from bridged.addresses import Endpoint
from bridged.errors import RemoteProtocolError
from bridged.protocol.keys.static_key import StaticKey
from bridged.protocol.packets.packet import ControlBody, ControlHeader, Opcode, serialize_body
from bridged.protocol.packets.wrap import NoWrap, TlsAuthKeys, TlsCryptKeys, WrapKeys
from bridged.protocol.role import Role
from bridged.protocol.strangers.cookie import CookieJar
from bridged.protocol.strangers.listener import Listener
from bridged.protocol.strangers.stranger import recognise
from bridged.units import KeyId

SOURCE = Endpoint("192.0.2.1", 1194)
OURS = StaticKey(bytes(range(256)))
OTHER = StaticKey(bytes(reversed(range(256))))
RESET = ControlHeader(Opcode.HARD_RESET_CLIENT_V2, KeyId(0), b"SESSION1")
SERVERS: dict[str, WrapKeys] = {
    "none": NoWrap(),
    "tls-auth": TlsAuthKeys(OURS, 0, "SHA256"),
    "tls-crypt": TlsCryptKeys(OURS, Role.SERVER),
}
CLIENTS: dict[str, WrapKeys] = {
    "none": NoWrap(),
    "tls-auth": TlsAuthKeys(OTHER, 1, "SHA256"),
    "tls-crypt": TlsCryptKeys(OTHER, Role.CLIENT),
}


def first_packet(keys: WrapKeys, packet_id: int = 1) -> bytes:
    return keys.seal(RESET, packet_id, 1_800_000_000, serialize_body(ControlBody((), None, 0)))


def test_the_servers_listener_refuses_every_packet_that_is_recognised() -> None:
    for ours in SERVERS.values():
        for kind, theirs in CLIENTS.items():
            if kind == ours.name == "none":
                continue
            with pytest.raises(RemoteProtocolError):
                Listener(ours, CookieJar(bytes(32))).receive(first_packet(theirs), SOURCE, 1.0, 1.0)


@pytest.mark.parametrize("ours", SERVERS)
@pytest.mark.parametrize("theirs", CLIENTS)
def test_another_kind_of_wrap_is_named_with_the_cure(ours: str, theirs: str) -> None:
    if ours == theirs:
        return
    found = recognise(first_packet(CLIENTS[theirs]), SERVERS[ours])
    assert found is not None and found.code == "wrap_other_kind"
    assert ("does not wrap" if theirs == "none" else f"wraps with {theirs}") in found.advice
    assert f"remove `{theirs}`" in found.advice if ours == "none" else f"`{ours}` key" in found.advice


@pytest.mark.parametrize("packet_id", [7, 16 * 999_999])
@pytest.mark.parametrize("kind", ["tls-auth", "tls-crypt"])
def test_another_key_of_the_same_kind_is_named(kind: str, packet_id: int) -> None:
    found = recognise(first_packet(CLIENTS[kind], packet_id=packet_id), SERVERS[kind])
    assert found is not None and found.code == "wrap_mismatch" and "compare the key" in found.advice


def test_another_digest_under_tls_auth_is_named_with_both() -> None:
    found = recognise(first_packet(TlsAuthKeys(OURS, 1, "SHA1")), SERVERS["tls-auth"])
    assert found is not None and found.code == "wrap_mismatch"
    assert "SHA1" in found.advice and "SHA256" in found.advice and "`auth`" in found.advice


@pytest.mark.parametrize("ours", SERVERS)
@pytest.mark.parametrize("octet", [0x50, 0x58])
def test_tls_crypt_v2_is_named(ours: str, octet: int) -> None:
    packet = bytes((octet,)) + b"SESSION1" + b"\0\0\0\1" + bytes(4) + bytes(32 + 5 + 290)
    later = packet[:9] + b"\x0f\xf4\x23\xf1" + packet[13:-2] + (290).to_bytes(2, "big")
    assert recognise(later, SERVERS[ours]) == recognise(packet, SERVERS[ours])
    found = recognise(packet, SERVERS[ours])
    assert found is not None and found.code == "tls_crypt_v2" and "tls-crypt-v2" in found.advice


def test_blocks_without_a_header_are_taken_for_a_static_key() -> None:
    draw = random.Random(3)
    for blocks in (2, 3, 90):
        packet = b"\x3a" + draw.randbytes(20 + 16 * blocks - 1)
        found = recognise(packet, SERVERS["tls-crypt"])
        assert found is not None and found.code == "static_key" and "`secret`" in found.advice


def test_what_is_nothing_of_that_kind_is_not_named() -> None:
    for packet in (
        b"",
        b"\x38",
        b"\x38SESSION1" + bytes(4),
        b"\x38" + b"x" * 40,
        b"\x20SESSION1" + bytes(26),
    ):
        assert recognise(packet, SERVERS["tls-crypt"]) is None


def test_a_first_packet_that_fits_is_not_named() -> None:
    assert recognise(first_packet(NoWrap()), NoWrap()) is None


def test_random_octets_are_hardly_ever_taken_for_another_wrap() -> None:
    draw = random.Random(4)
    found = [
        recognise(bytes((draw.choice((0x38, 0x50)),)) + draw.randbytes(draw.randrange(1, 1400)), ours)
        for ours in SERVERS.values()
        for _ in range(5000)
    ]
    assert sum(one is not None and one.code != "static_key" for one in found) < 3
