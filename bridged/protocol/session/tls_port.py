"""What the protocol asks of a TLS session: octets in, octets out, and the exporter.

The engine behind it lives in `bridged.tls`; this module keeps the protocol free of any TLS library.
Pure: no sockets, no clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from bridged.units import UnixSeconds


@dataclass(frozen=True, slots=True)
class TlsSummary:
    """What was agreed in one handshake, for people and metrics.

    `version` as OpenSSL names it (`TLSv1.3`), `group` the key group (`X25519MLKEM768`; None where the
    library does not tell), `peer_name` the verified certificate's common name, `peer_fingerprint`
    SHA-256 of its DER form in hexadecimal, `peer_not_after` its end of validity. `peer_chain`: the verified
    chain in DER form, the peer's own certificate first (empty where the engine does not keep it).
    """

    version: str
    cipher: str
    group: str | None
    peer_name: str
    peer_fingerprint: str
    peer_not_after: UnixSeconds
    peer_chain: tuple[bytes, ...] = field(default=(), repr=False)


class TlsEngine(Protocol):
    """One TLS session on memory buffers.

    Raises:
        TlsError: from `start`, `receive`, `write`, with a handshake outcome as `code`
            (`tls_failed`, `certificate_rejected`, `certificate_expired`, `name_mismatch`, …). An alert
            for the peer may still be waiting in `take_ciphertext`.
    """

    def start(self) -> None:
        """Begin the handshake; a client's first flight is then in `take_ciphertext`."""

    def receive(self, ciphertext: bytes) -> None:
        """Take octets of the peer, advance the handshake, decrypt."""

    def take_ciphertext(self) -> bytes:
        """All octets waiting for the peer; empty where there are none."""

    def write(self, plaintext: bytes) -> None:
        """Encrypt one message as one record; only after the handshake."""

    def read(self) -> bytes:
        """The plaintext of the oldest record not yet read; empty where there is none.

        One TLS record is one message (docs/protocol/control.md#5 and #6).
        """

    @property
    def is_established(self) -> bool:
        """The handshake is complete and the peer's certificate accepted."""

    def export(self, label: str, length: int) -> bytes:
        """Keying material exporter without context (RFC 5705, RFC 8446 section 7.5)."""

    def summary(self) -> TlsSummary:
        """Only after the handshake."""

    def close(self) -> None:
        """Drop the session's memory; nothing is sent."""


class TlsEngineFactory(Protocol):
    """Makes a fresh engine for each TLS handshake of a session."""

    def __call__(self) -> TlsEngine: ...
