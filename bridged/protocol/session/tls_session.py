"""What the protocol needs from a TLS session: bytes in, bytes out, and the exporter.

The engine is in `bridged.tls`. Thanks to this interface the protocol needs no TLS library.
Pure: no sockets, no clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from bridged.units import UnixSeconds


@dataclass(frozen=True, slots=True)
class TlsSummary:
    """What both ends agreed on in one handshake."""

    version: str
    """As OpenSSL names it, such as `TLSv1.3`."""
    cipher: str
    """OpenSSL's name of the cipher suite."""
    group: str | None
    """The key group, such as `X25519MLKEM768`; None if the library does not name it."""
    peer_name: str = ""
    """Common name of the verified certificate; empty if the peer showed none."""
    peer_fingerprint: str = ""
    """SHA-256 of the certificate's DER form, in hexadecimal; empty if the peer showed none."""
    peer_not_after: UnixSeconds = UnixSeconds(float("inf"))
    """When the certificate ends."""
    peer_chain: tuple[bytes, ...] = field(default=(), repr=False)
    """The verified chain in DER form, the peer's own certificate first; empty if the engine keeps none."""


class TlsEngine(Protocol):
    """One TLS session on memory buffers.

    Raises:
        TlsError: from `start`, `receive`, `write`, with a handshake outcome as `code`
            (`tls_failed`, `certificate_rejected`, `certificate_expired`, `name_mismatch`, …). An alert
            for the peer may still be waiting in `take_ciphertext`.
    """

    def start(self) -> None:
        """Begin the handshake. `take_ciphertext` then has a client's first flight."""

    def receive(self, ciphertext: bytes) -> None:
        """Take bytes from the peer, advance the handshake, decrypt."""

    def take_ciphertext(self) -> bytes:
        """All bytes that wait for the peer; may be empty."""

    def write(self, plaintext: bytes) -> None:
        """Encrypt one message as one record; only after the handshake."""

    def read(self) -> bytes:
        """The plaintext of the oldest record that was not read yet; empty if there is none.

        One TLS record is one message (docs/protocol/control.md#5 and #6).
        """

    @property
    def is_established(self) -> bool:
        """The handshake is complete, and the peer's certificate is accepted."""

    def export(self, label: str, length: int) -> bytes:
        """Keying material exporter without context (RFC 5705, RFC 8446 section 7.5)."""

    def summary(self) -> TlsSummary:
        """What both ends agreed on; only after the handshake."""

    def close(self) -> None:
        """Drop the session's memory; nothing is sent."""


class TlsEngineFactory(Protocol):
    """Makes a fresh engine for each TLS handshake of a session."""

    def __call__(self) -> TlsEngine: ...
