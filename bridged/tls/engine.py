"""A TLS session on memory buffers, by pyOpenSSL: a `bridged.protocol.session.tls_session.TlsEngine`.

Source: docs/protocol/control.md#4-4 and #5.
No sockets, no files. OpenSSL reads the clock to check validity, and draws its own random numbers.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL

from bridged.errors import LocalProtocolError, PeerRefusedError, TlsError
from bridged.protocol.session.tls_session import TlsSummary
from bridged.tls.failures import failure_of
from bridged.tls.identity import fingerprint, not_after, wipe
from bridged.tls.verification import PeerRules, common_name

RECORD_OCTETS_MAX: Final = 16384
PLAINTEXT_OCTETS_MAX: Final = 1 << 20
"""Bytes of plaintext that a peer may send before the owner calls `read`."""
RECORDS_MAX: Final = 4096
"""The most records for it: small ones cost more memory than their plaintext."""

_CHUNK: Final = 65536


class PeerJudgement:
    """What the rules say about the peer's certificates in one handshake.

    `refusal` is the first objection. `accepted` is the peer's own certificate, once all was checked.
    """

    __slots__ = ("accepted", "refusal", "rules")

    def __init__(self, rules: PeerRules) -> None:
        self.rules = rules
        self.refusal: PeerRefusedError | None = None
        self.accepted: x509.Certificate | None = None

    def judge(self, certificate: Any, number: int, depth: int, is_accepted: bool) -> bool:
        """Whether this certificate of the chain is accepted. Never raises."""
        try:
            parsed: x509.Certificate = certificate.to_cryptography()
            if not is_accepted:
                refusal = self.rules.judge_chain_error(parsed, number, depth)
            elif depth == 0:
                refusal = self.rules.judge_leaf(parsed)
            else:
                refusal = None
        except (
            Exception
        ) as error:  # hostile certificates reach many parsers, and none may break the handshake
            text = f"the peer's certificate cannot be parsed ({error})"
            refusal = PeerRefusedError("certificate_rejected", text)
        else:
            if refusal is None and is_accepted and depth == 0:
                self.accepted = parsed
        if refusal is not None and self.refusal is None:
            self.refusal = refusal
        return refusal is None


class PyOpenSslEngine:
    """One TLS session, made by the factory of `bridged.tls.context`. It has one owner and is not thread-safe.

    After a `TlsError` the session is dead: `receive` and `write` raise the same error again; only
    `take_ciphertext` (for the alert) and `close` still work. With TLS 1.3 a server refuses a client's
    certificate after the client has finished its handshake: the client learns it from `receive`.
    Memory: OpenSSL limits handshake messages. At most PLAINTEXT_OCTETS_MAX bytes in RECORDS_MAX records wait
    for `read`.
    """

    __slots__ = (
        "_connection",
        "_failure",
        "_is_client",
        "_is_established",
        "_judgement",
        "_records",
        "_waiting",
    )

    def __init__(self, context: Any, rules: PeerRules, *, is_client: bool) -> None:
        self._judgement = PeerJudgement(rules)
        self._connection: Any = SSL.Connection(context, None)
        self._connection.set_app_data(self._judgement)
        self._is_client = is_client
        self._is_established = False
        self._failure: TlsError | None = None
        self._records: deque[bytearray] = deque()
        self._waiting = 0
        if is_client:
            self._connection.set_connect_state()
        else:
            self._connection.set_accept_state()

    def start(self) -> None:
        """Begin the handshake. `take_ciphertext` then has a client's first flight."""
        self._refuse_dead()
        if self._is_client and not self._is_established:
            self._advance_handshake()

    def receive(self, ciphertext: bytes) -> None:
        """Take bytes from the peer, advance the handshake, decrypt.

        Raises:
            TlsError: the handshake or the session failed.
        """
        self._refuse_dead()
        view = memoryview(ciphertext)
        while view:
            taken = self._connection.bio_write(bytes(view[:_CHUNK]))
            view = view[taken:]
            if not self._is_established:
                self._advance_handshake()
            if self._is_established:
                self._decrypt()

    def take_ciphertext(self) -> bytes:
        """All bytes that wait for the peer; may be empty."""
        if self._connection is None:
            return b""
        pieces = []
        while True:
            try:
                pieces.append(self._connection.bio_read(_CHUNK))
            except SSL.WantReadError:
                return b"".join(pieces)

    def write(self, plaintext: bytes) -> None:
        """Encrypt one message as one record; only after the handshake.

        Raises:
            LocalProtocolError: before the end of the handshake, or more than RECORD_OCTETS_MAX bytes.
            TlsError: the session has failed.
        """
        self._refuse_dead()
        if not self._is_established:
            raise LocalProtocolError("TLS write before the end of the handshake")
        if len(plaintext) > RECORD_OCTETS_MAX:
            raise LocalProtocolError(f"{len(plaintext)} bytes do not fit one TLS record")
        if not plaintext:
            return
        try:
            self._connection.send(bytes(plaintext))
        except SSL.Error as error:
            raise self._fail(error) from None

    def read(self) -> bytes:
        """The plaintext of the oldest record that was not read yet; empty if there is none."""
        if not self._records:
            return b""
        record = self._records.popleft()
        self._waiting -= len(record)
        plaintext = bytes(record)
        # The key message holds secrets, which must not stay in the buffer.
        wipe(record)
        return plaintext

    @property
    def is_established(self) -> bool:
        """The handshake is complete, and the peer's certificate is accepted."""
        return self._is_established

    def export(self, label: str, length: int) -> bytes:
        """Keying material exporter without context (RFC 5705, RFC 8446 section 7.5).

        Raises:
            LocalProtocolError: before the end of the handshake.
        """
        self._require_established("export")
        exported: bytes = self._connection.export_keying_material(label.encode("ascii"), length)
        return exported

    def summary(self) -> TlsSummary:
        """What both ends agreed on.

        Raises:
            LocalProtocolError: before the end of the handshake.
        """
        self._require_established("summary")
        certificate = self._judgement.accepted
        if certificate is None:
            return TlsSummary(
                version=self._connection.get_protocol_version_name(),
                cipher=self._connection.get_cipher_name() or "",
                group=self._connection.get_group_name(),
            )
        return TlsSummary(
            version=self._connection.get_protocol_version_name(),
            cipher=self._connection.get_cipher_name() or "",
            group=self._connection.get_group_name(),
            peer_name=common_name(certificate),
            peer_fingerprint=fingerprint(certificate),
            peer_not_after=not_after(certificate),
            peer_chain=self._chain(certificate),
        )

    def _chain(self, certificate: x509.Certificate) -> tuple[bytes, ...]:
        # A pinned certificate needs no chain, whatever the peer sent with it.
        has_authority = self._judgement.rules.has_authority
        found = self._connection.get_verified_chain(as_cryptography=True) if has_authority else None
        issuers = (one for one in found or () if one != certificate)
        return tuple(one.public_bytes(Encoding.DER) for one in (certificate, *issuers))

    def close(self) -> None:
        """Drop the session's memory. Sends nothing. May be called twice."""
        while self.read():
            pass
        self._connection = None
        self._is_established = False
        if self._failure is None:
            self._failure = TlsError("tls_failed", "the TLS session is closed")

    def _advance_handshake(self) -> None:
        try:
            self._connection.do_handshake()
        except SSL.WantReadError:
            return
        except SSL.Error as error:
            raise self._fail(error) from None
        accepted = self._judgement.accepted
        presented = self._connection.get_peer_certificate(as_cryptography=True)
        # OpenSSL must have asked us about this very certificate. Anything else would be a bypass.
        may_lack = presented is None and not self._judgement.rules.needs_certificate
        if (
            (accepted is None and not may_lack)
            or self._judgement.refusal is not None
            or accepted != presented
        ):
            text = "the peer's certificate was never verified"
            self._failure = PeerRefusedError("certificate_rejected", text)
            raise self._failure
        self._is_established = True

    def _decrypt(self) -> None:
        try:
            while True:
                # OpenSSL returns one record at a time, and one record is one message.
                record = bytearray(self._connection.recv(_CHUNK))
                self._records.append(record)
                self._waiting += len(record)
                if self._waiting > PLAINTEXT_OCTETS_MAX or len(self._records) > RECORDS_MAX:
                    self._failure = TlsError("tls_failed", "the peer sends faster than its messages are read")
                    raise self._failure
        except SSL.WantReadError:
            return
        except SSL.ZeroReturnError:
            self._failure = TlsError("tls_failed", "the peer closed the TLS session")
            raise self._failure from None
        except SSL.Error as error:
            raise self._fail(error) from None

    def _fail(self, error: BaseException) -> TlsError:
        self._failure = self._judgement.refusal or failure_of(error)
        return self._failure

    def _refuse_dead(self) -> None:
        if self._failure is not None:
            # A new object: the traceback of the stored one would grow each time.
            raise TlsError(self._failure.code, self._failure.message)

    def _require_established(self, what: str) -> None:
        if not self._is_established:
            raise LocalProtocolError(f"TLS {what} before the end of the handshake")
