"""AES-CTR for control packets.

Source: docs/protocol/control.md#2-4 and #2-5.
Pure: bytes in, bytes out.
"""

from __future__ import annotations

from threading import Lock

from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes


class CounterMode:
    """AES-CTR with one key of 16, 24 or 32 bytes, usable from several threads. Never shown by repr."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._lock = Lock()
        # Setting one up takes ten times as long as the packet of a stranger.
        self._context: CipherContext | None = None

    def apply(self, iv: bytes, data: bytes) -> bytes:
        """Encrypt or decrypt `data`, which begins at the counter `iv` (16 bytes)."""
        with self._lock:
            if self._context is None:
                self._context = Cipher(algorithms.AES(self._key), modes.CTR(iv)).encryptor()
            else:
                self._context.reset_nonce(iv)
            return self._context.update(data)

    def __repr__(self) -> str:
        return "CounterMode()"
