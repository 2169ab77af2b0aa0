"""Data packets with a CBC cipher and an HMAC, for peers without AEAD ciphers.

Source: docs/protocol/data.md#2-2.
Pure: bytes in, bytes out. The HMAC is compared first, in constant time; what is wrong behind it
looks the same.
"""

from __future__ import annotations

import hmac
from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher as LibraryCipher
from cryptography.hazmat.primitives.ciphers import modes
from cryptography.hazmat.primitives.ciphers.algorithms import AES

from bridged.errors import LocalProtocolError, RemoteProtocolError
from bridged.protocol.keys.digest import DIGESTS, digest_length
from bridged.protocol.packets.data_packet import (
    MAX_DATA_PACKET_ID,
    PACKET_ID_LENGTH,
    OpenedData,
    parse_data_header,
)

BLOCK: Final = 16
_MISMATCH: Final = "the HMAC does not match"


class CbcHmac:
    """A CBC cipher with its key, and an HMAC with its own. One object serves one direction."""

    def __init__(self, cipher_key: bytes | bytearray, digest: str, hmac_key: bytes | bytearray) -> None:
        self._algorithm = AES(bytes(cipher_key))
        self._digest = DIGESTS[digest][0]
        self._hmac_key = bytes(hmac_key)
        self.mac_length = digest_length(digest)

    def seal(self, iv: bytes, content: bytes) -> bytes:
        """`HMAC | IV | ciphertext`. `iv`: 16 random bytes, never used twice."""
        padding = BLOCK - len(content) % BLOCK
        encryptor = LibraryCipher(self._algorithm, modes.CBC(iv)).encryptor()
        text = iv + encryptor.update(content + bytes((padding,)) * padding) + encryptor.finalize()
        return hmac.digest(self._hmac_key, text, self._digest) + text

    def open(self, sealed: bytes) -> bytes | None:
        """The content of `HMAC | IV | ciphertext`; None if it is not authentic."""
        mac, text = sealed[: self.mac_length], sealed[self.mac_length :]
        if len(text) <= BLOCK or len(text) % BLOCK:
            return None
        if not hmac.compare_digest(hmac.digest(self._hmac_key, text, self._digest), mac):
            return None
        decryptor = LibraryCipher(self._algorithm, modes.CBC(text[:BLOCK])).decryptor()
        content = decryptor.update(text[BLOCK:]) + decryptor.finalize()
        padding = content[-1]
        if not 1 <= padding <= BLOCK or content[-padding:] != bytes((padding,)) * padding:
            return None
        return content[:-padding]


def seal_cbc(key: CbcHmac, iv: bytes, header: bytes, packet_id: int, payload: bytes) -> bytes:
    """Make a data packet. `header` as `serialize_data_header`; `packet_id` 1..2^32-1, never reused.

    Raises:
        LocalProtocolError: a packet id that may not be sent, or an empty payload.
    """
    if not 1 <= packet_id <= MAX_DATA_PACKET_ID or not payload:
        raise LocalProtocolError(f"packet id {packet_id} may not be sent, nor an empty payload")
    return header + key.seal(iv, packet_id.to_bytes(PACKET_ID_LENGTH, "big") + payload)


def open_cbc(key: CbcHmac, packet: bytes) -> OpenedData:
    """Check the HMAC and decrypt.

    Raises:
        RemoteProtocolError: `short_packet`, `bad_opcode`, `tag_mismatch`.
    """
    header = parse_data_header(packet)
    if len(packet) <= header.length + key.mac_length + BLOCK:
        raise RemoteProtocolError("short_packet", f"{len(packet)} bytes hold no payload")
    content = key.open(bytes(packet[header.length :]))
    if content is None or len(content) < PACKET_ID_LENGTH:
        raise RemoteProtocolError("tag_mismatch", _MISMATCH)
    number = int.from_bytes(content[:PACKET_ID_LENGTH], "big")
    return OpenedData(header, number, content[PACKET_ID_LENGTH:])
