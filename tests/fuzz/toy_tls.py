"""A TLS engine without secrets and without randomness, so that a fuzzer gets behind it and repeats itself.

It keeps to the contract of `bridged.protocol.session.tls_session.TlsEngine`: two flights, then records of
length and text. The real engine has a fuzz target of its own.
"""

from __future__ import annotations

import hashlib

from bridged.errors import LocalProtocolError, TlsError
from bridged.protocol.session.tls_session import TlsSummary
from bridged.units import UnixSeconds

HELLO = b"hello"
ANSWER = b"answer"
RECORD_MAX = 16384


class ToyEngine:
    """`receive` fails on a wrong flight, an empty record and one above RECORD_MAX bytes."""

    def __init__(self, *, is_client: bool) -> None:
        self.is_established = False
        self._is_client = is_client
        self._is_dead = False
        self._in = bytearray()
        self._out = bytearray()
        self._records: list[bytes] = []

    def start(self) -> None:
        self._refuse_dead()
        if self._is_client:
            self._out += HELLO

    def receive(self, ciphertext: bytes) -> None:
        self._refuse_dead()
        self._in += ciphertext
        if not self.is_established:
            expected = ANSWER if self._is_client else HELLO
            if self._in[: len(expected)] != expected[: len(self._in)]:
                raise self._fail("not the expected flight")
            if len(self._in) < len(expected):
                return
            del self._in[: len(expected)]
            self.is_established = True
            if not self._is_client:
                self._out += ANSWER
        while len(self._in) >= 2:
            length = int.from_bytes(self._in[:2], "big")
            if not 0 < length <= RECORD_MAX:
                raise self._fail("a record of impossible length")
            if len(self._in) < 2 + length:
                return
            self._records.append(bytes(self._in[2 : 2 + length]))
            del self._in[: 2 + length]

    def take_ciphertext(self) -> bytes:
        octets = bytes(self._out)
        self._out.clear()
        return octets

    def write(self, plaintext: bytes) -> None:
        self._refuse_dead()
        if not self.is_established or len(plaintext) > RECORD_MAX:
            raise LocalProtocolError("write before the handshake, or too much")
        self._out += len(plaintext).to_bytes(2, "big") + plaintext

    def read(self) -> bytes:
        return self._records.pop(0) if self._records else b""

    def export(self, label: str, length: int) -> bytes:
        if not self.is_established:
            raise LocalProtocolError("export before the handshake")
        return hashlib.shake_128(label.encode()).digest(length)

    def summary(self) -> TlsSummary:
        if not self.is_established:
            raise LocalProtocolError("summary before the handshake")
        return TlsSummary("toy", "toy", None, "toy peer", "00" * 32, UnixSeconds(0.0))

    def close(self) -> None:
        self._is_dead = True
        self.is_established = False
        self._records.clear()
        self._in.clear()
        self._out.clear()

    def _refuse_dead(self) -> None:
        if self._is_dead:
            raise TlsError("tls_failed", "dead")

    def _fail(self, text: str) -> TlsError:
        self._is_dead = True
        self._out += b"!"
        return TlsError("tls_failed", text)
