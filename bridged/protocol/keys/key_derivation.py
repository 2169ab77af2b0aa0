"""Data keys: from 256 bytes of key material to the keys of both directions.

Source: docs/protocol/data.md#1.
Pure: secrets in, secrets out.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from typing import Final

from bridged.errors import LocalProtocolError
from bridged.protocol.keys.cipher import Cipher
from bridged.protocol.keys.digest import digest_length
from bridged.protocol.keys.epoch_keys import SECRET_OCTETS
from bridged.protocol.keys.key_exchange import ClientKeyMessage, ServerKeyMessage
from bridged.protocol.keys.static_key import StaticKey
from bridged.protocol.role import Role
from bridged.units import KeyId

EXPORTER_DATA_KEYS: Final = "EXPORTER-OpenVPN-datakeys"
EXPORTER_DYNAMIC_TLS_CRYPT: Final = "EXPORTER-OpenVPN-dynamic-tls-crypt"
EXPORTER_PEER_ID: Final = "EXPORTER-OpenVPN-p2p-peerid"
KEY_MATERIAL_LENGTH: Final = 256
IMPLICIT_IV_LENGTH: Final = 8

_MASTER_LABEL: Final = b"OpenVPN master secret"
_EXPANSION_LABEL: Final = b"OpenVPN key expansion"
_MASTER_LENGTH: Final = 48
_SLOT: Final = 64


@dataclass(slots=True)
class DataKey:
    """Keys of one key id, seen from this end. Secret bytes never show in repr.

    Keys have `cipher.key_length` bytes, IVs (the implicit part of the nonce) 8. With a CBC cipher there are
    no IVs, but `digest` and the keys of its HMAC.
    """

    key_id: KeyId
    cipher: Cipher
    send_key: bytearray = field(repr=False)
    send_iv: bytearray = field(repr=False)
    receive_key: bytearray = field(repr=False)
    receive_iv: bytearray = field(repr=False)
    digest: str | None = field(default=None, repr=False)
    is_epoch: bool = field(default=False, repr=False)
    """`send_key` and `receive_key` are the first secrets of two chains (`EpochKey`), of 32 bytes; no IVs."""
    static_time: int | None = field(default=None, repr=False)
    """Of a static key (data.md#2-4): Unix seconds in our packets; they have no header then."""
    static_mark: int = field(default=0, repr=False)
    """The newest packet of the peer's earlier sessions: its time (upper 32 bits) and id."""
    static_origin: bytearray = field(default_factory=bytearray, repr=False)
    """Of a static key without direction: the secret that marks our packets (`static_packet.marked_iv`)."""
    send_hmac: bytearray = field(default_factory=bytearray, repr=False)
    receive_hmac: bytearray = field(default_factory=bytearray, repr=False)

    def zeroise(self) -> None:
        """Overwrite the secrets; the key is unusable afterwards."""
        ivs = self.send_iv, self.receive_iv
        hmacs = self.send_hmac, self.receive_hmac
        for secret in (self.send_key, self.receive_key, *ivs, *hmacs, self.static_origin):
            secret[:] = bytes(len(secret))


def prf(secret: bytes, label: bytes, seed: bytes, length: int) -> bytes:
    """PRF of TLS 1.0: P_MD5 over the first half of the secret XOR P_SHA1 over the second.

    `length` in bytes. The halves share the middle byte of an odd secret.
    """
    half = (len(secret) + 1) // 2
    seeded = label + seed
    first = _expand("md5", secret[:half], seeded, length)
    second = _expand("sha1", secret[len(secret) - half :], seeded, length)
    return bytes(a ^ b for a, b in zip(first, second, strict=True))


def derive_by_prf(
    client: ClientKeyMessage, server: ServerKeyMessage, client_session_id: bytes, server_session_id: bytes
) -> bytes:
    """The 256 bytes of key material if the exporter was not agreed on (over TLS 1.3, too).

    Session ids are the 8 bytes each; both key messages are those of the key id in question.
    """
    if len(client_session_id) != 8 or len(server_session_id) != 8:
        raise LocalProtocolError("a session id has 8 bytes")
    master = prf(client.pre_master, _MASTER_LABEL, client.random1 + server.random1, _MASTER_LENGTH)
    seed = client.random2 + server.random2 + client_session_id + server_session_id
    return prf(master, _EXPANSION_LABEL, seed, KEY_MATERIAL_LENGTH)


def slice_keys(
    material: bytes,
    role: Role,
    cipher: Cipher,
    key_id: KeyId,
    *,
    digest: str = "SHA1",
    is_epoch: bool = False,
) -> DataKey:
    """Cut the keys of both directions out of the key material, for the end that has `role`.

    `digest`: that of the HMAC, for CBC ciphers. `is_epoch`: the epoch format is agreed on.
    """
    if len(material) != KEY_MATERIAL_LENGTH:
        raise LocalProtocolError(f"key material has {KEY_MATERIAL_LENGTH} bytes, not {len(material)}")
    length = SECRET_OCTETS if is_epoch else cipher.key_length
    second_length = digest_length(digest) if cipher.is_cbc else IMPLICIT_IV_LENGTH
    halves = [
        (
            bytearray(material[start : start + length]),
            bytearray(material[start + _SLOT : start + _SLOT + second_length]),
        )
        for start in (0, 2 * _SLOT)
    ]
    # The client sends with the first half. For tls-crypt it is the other way round (control.md#2-4).
    send, receive = halves if role is Role.CLIENT else reversed(halves)
    if cipher.is_cbc:
        return DataKey(
            key_id,
            cipher,
            send[0],
            bytearray(),
            receive[0],
            bytearray(),
            digest,
            send_hmac=send[1],
            receive_hmac=receive[1],
        )
    if is_epoch:
        return DataKey(key_id, cipher, send[0], bytearray(), receive[0], bytearray(), is_epoch=True)
    return DataKey(key_id, cipher, send[0], send[1], receive[0], receive[1])


def static_data_key(
    key: StaticKey,
    direction: int | None,
    cipher: Cipher,
    digest: str,
    unix_time: int,
    mark: int = 0,
    origin: bytes = b"",
) -> DataKey:
    """The data key of a link without TLS. `direction`: 0, 1, or None for the same key both ways.

    `unix_time`, `mark`, `origin`: see `DataKey.static_time` and so on. With a direction nobody can return our
    own packets to us: `origin` is not used.
    """
    slots = [(key.cipher0, key.hmac0), (key.cipher1, key.hmac1)]
    send, receive = slots[direction or 0], slots[0 if direction is None else 1 - direction]
    length = digest_length(digest)
    return DataKey(
        KeyId(0),
        cipher,
        bytearray(send[0][: cipher.key_length]),
        bytearray(),
        bytearray(receive[0][: cipher.key_length]),
        bytearray(),
        digest,
        static_time=unix_time,
        static_mark=mark,
        static_origin=bytearray(origin if direction is None else b""),
        send_hmac=bytearray(send[1][:length]),
        receive_hmac=bytearray(receive[1][:length]),
    )


def _expand(digest: str, secret: bytes, seed: bytes, length: int) -> bytes:
    output = b""
    chained = seed
    while len(output) < length:
        chained = hmac.digest(secret, chained, digest)
        output += hmac.digest(secret, chained + seed, digest)
    return output[:length]
