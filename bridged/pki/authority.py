"""The embedded CA under the state folder: made once, issues, revokes, renews the server's certificate.

Files in STATE/pki: ca.crt, ca.key, server.crt, server.key, tls-crypt.key, index.json, issued/NAME.crt, and
crl.pem once something was revoked (for other programs: ours is signed anew at each start and change).
Clients' private keys are not kept: they exist in the invitation only. All private files have mode 0600.
"""

from __future__ import annotations

import re
import secrets
import shutil
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from bridged import WRITTEN_AFTER
from bridged.files import PUBLIC_FILE, make_private_directory, sync_directory, write_atomic
from bridged.pki.certificates import (
    CertificateUsage,
    Validity,
    build_authority,
    build_certificate,
    build_revocation_list,
    certificate_pem,
    generate_key,
    key_pem,
)
from bridged.pki.files import PkiError, locked
from bridged.pki.index import Index, IssuedCertificate, read_index, write_index
from bridged.protocol.keys.static_key import StaticKey

AUTHORITY_DAYS: Final = 3650
SERVER_DAYS: Final = 825
"""Renewed by `ensure` when fewer than SERVER_RENEW_DAYS are left."""
SERVER_RENEW_DAYS: Final = 60
CLIENT_DAYS: Final = 3650
"""As long as the CA: nothing renews a client's certificate by itself, and an unattended site that
drops off on a birthday is worse than a long life, as revocation takes effect at once."""
SERVER_NAME: Final = "server"

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,63}")
# A machine without a battery-backed clock may be behind when it comes up.
_BACKDATE: Final = timedelta(days=1)

Clock = Callable[[], datetime]


@dataclass(frozen=True, slots=True)
class IssuedIdentity:
    """A certificate with the only copy of its private key; `serial` in hex."""

    name: str
    serial: str
    certificate_pem: bytes
    key_pem: bytes = field(repr=False)
    not_after: datetime


def pki_directory(state_directory: Path) -> Path:
    return state_directory / "pki"


def tls_crypt_key_path(state_directory: Path) -> Path:
    """Where the embedded tls-crypt key of this state folder is (made by `create` and `ensure`)."""
    return pki_directory(state_directory) / "tls-crypt.key"


def check_name(name: str) -> str:
    """Return `name` if it may be a peer's name.

    Raises:
        PkiError: `pki_name`.
    """
    if not _NAME.fullmatch(name):
        raise PkiError(
            "pki_name",
            f"{name!r} cannot be a peer's name: 1 to 64 letters, digits, `_`, `.`, `@` or `-`, "
            "a letter or digit first",
        )
    return name


def _utc_now() -> datetime:
    return datetime.now(UTC)


class EmbeddedCa:
    """The CA of one state folder; get one by `create`, `open` or `ensure`.

    Every change holds a file lock, so that several processes may use one state folder; what a change
    leaves behind after a crash is either the old state or the new one.

    Raises:
        PkiError: with code `pki_exists`, `pki_missing`, `pki_damaged`, `pki_name`, `pki_duplicate`,
            `pki_unknown`, `pki_locked`, `pki_expired`, `pki_clock`; the text says what to do.
        OSError: the state folder cannot be read or written.
    """

    def __init__(
        self,
        state_directory: Path,
        certificate: x509.Certificate,
        key: ec.EllipticCurvePrivateKey,
        clock: Clock,
    ) -> None:
        self._state = state_directory
        self._directory = pki_directory(state_directory)
        self._certificate = certificate
        self._key = key
        self._clock = clock

    @classmethod
    def create(cls, state_directory: Path, *, clock: Clock = _utc_now) -> EmbeddedCa:
        """Make CA, server certificate and tls-crypt key; refuse where there is a CA already."""
        with _lock(state_directory):
            if pki_directory(state_directory).exists():
                raise PkiError(
                    "pki_exists",
                    f"{pki_directory(state_directory)} already exists; a new CA would lock out every "
                    "invited peer. Use it as it is, or move it away first",
                )
            return cls._create(state_directory, clock)

    @classmethod
    def open(cls, state_directory: Path, *, clock: Clock = _utc_now) -> EmbeddedCa:
        """Open the CA that is there."""
        directory = pki_directory(state_directory)
        if not directory.is_dir():
            raise PkiError(
                "pki_missing", f"no CA under {state_directory}; make one with `bridged init --state DIR …`"
            )
        certificate = _load_certificate(directory / "ca.crt")
        key = _load_key(directory / "ca.key")
        if key.public_key() != certificate.public_key():
            raise PkiError(
                "pki_damaged", f"{directory}: ca.key does not belong to ca.crt; restore both from one backup"
            )
        return cls(state_directory, certificate, key, clock)

    @classmethod
    def ensure(cls, state_directory: Path, *, clock: Clock = _utc_now) -> EmbeddedCa:
        """Open the CA, or make it; make what is missing of server certificate and tls-crypt key, and
        renew a server certificate that ends within SERVER_RENEW_DAYS. What is there stays."""
        with _lock(state_directory):
            if not pki_directory(state_directory).exists():
                return cls._create(state_directory, clock)
            authority = cls.open(state_directory, clock=clock)
            authority._complete()
            return authority

    @property
    def directory(self) -> Path:
        """STATE/pki."""
        return self._directory

    @property
    def certificate_pem(self) -> bytes:
        """The CA's certificate."""
        return certificate_pem(self._certificate)

    @property
    def tls_crypt_key(self) -> str:
        """Text of the tls-crypt key file; secret."""
        return _read(tls_crypt_key_path(self._state)).decode("ascii", "replace")

    @property
    def remote(self) -> str | None:
        """The public `host:port` for invitations; None: not set yet."""
        return self._index().remote

    def set_remote(self, remote: str) -> None:
        with _lock(self._state):
            write_index(self._index_path, self._index().with_remote(remote))

    def certificates(self) -> tuple[IssuedCertificate, ...]:
        """All that was ever issued, in order."""
        return self._index().certificates

    def issue(
        self, name: str, usage: CertificateUsage, *, days: int = CLIENT_DAYS, replace: bool = False
    ) -> IssuedIdentity:
        """A new key and its certificate, valid for `days`, at most as long as the CA.

        The key is not stored; issued/NAME.crt is. A name can be issued again after `revoke`; with `replace`
        also before, and then `revoke(name, keep=serial)` ends the former one once the new one is safe.
        """
        check_name(name)
        with _lock(self._state):
            known = self._index().current(name)
            if known is not None and (not replace or known.usage != usage):
                raise PkiError(
                    "pki_duplicate",
                    f"a certificate for {name!r} already exists; choose another name, or revoke it with "
                    f"`bridged invite {name} --replace`",
                )
            return self._issue(name, usage, days)

    def revoke(self, name: str, *, keep: str | None = None) -> int:
        """Put the certificates of that name on the revocation list, but the one with serial `keep`.

        Returns how many there were. The server's own certificate cannot be revoked.
        """
        with _lock(self._state):
            index = self._index()
            found = index.valid(name, keep)
            if not found:
                raise PkiError("pki_unknown", f"no valid certificate for {name!r} was issued by this CA")
            if any(row.usage == "server" for row in found):
                raise PkiError("pki_name", f"{name!r} is this server's own certificate")
            write_index(self._index_path, index.with_revoked(name, self._clock(), keep))
            self._store_crl()
            return len(found)

    def withdraw(self, identity: IssuedIdentity) -> None:
        """Revoke this one certificate: its key is lost."""
        with _lock(self._state):
            index = self._index().with_one_revoked(identity.serial, self._clock())
            write_index(self._index_path, index)
            self._store_crl()

    def mark(self) -> str:
        """Changes when the server's certificate or the revocation list does."""
        server = x509.load_pem_x509_certificate(_read(self._directory / "server.crt"))
        return f"{server.serial_number:x}/{self._index().crl_number}"

    def crl(self) -> bytes | None:
        """A freshly signed revocation list, PEM, valid as long as the CA; None: nothing was revoked.

        It is handed over in memory and never fetched from elsewhere, so its age says nothing.
        """
        index = self._index()
        rows = [(int(row.serial, 16), row.revoked) for row in index.certificates if row.revoked is not None]
        if not rows:
            return None
        validity = Validity(self._clock() - _BACKDATE, self._certificate.not_valid_after_utc)
        crl = build_revocation_list(rows, index.crl_number, self._certificate, self._key, validity)
        return crl.public_bytes(Encoding.PEM)

    def _store_crl(self) -> None:
        crl = self.crl()
        if crl is not None:
            write_atomic(self._directory / "crl.pem", crl, PUBLIC_FILE)

    @property
    def _index_path(self) -> Path:
        return self._directory / "index.json"

    def _index(self) -> Index:
        return read_index(self._index_path)

    @classmethod
    def _create(cls, state_directory: Path, clock: Clock) -> EmbeddedCa:
        """Fill a folder of another name, then rename it: there is no half CA."""
        _check_clock(clock(), WRITTEN_AFTER)
        final = pki_directory(state_directory)
        draft = Path(tempfile.mkdtemp(prefix=".pki-", dir=state_directory))
        try:
            key = generate_key()
            # The name tells one CA from another in error texts.
            name = f"bridged CA {secrets.token_hex(4)}"
            certificate = build_authority(name, key, _validity(clock(), AUTHORITY_DAYS))
            (draft / "issued").mkdir(mode=0o700)
            write_atomic(draft / "ca.key", key_pem(key))
            write_atomic(draft / "ca.crt", certificate_pem(certificate), PUBLIC_FILE)
            write_index(draft / "index.json", Index())
            authority = cls(state_directory, certificate, key, clock)
            authority._directory = draft
            authority._complete()
            draft.rename(final)
            sync_directory(state_directory)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
        authority._directory = final
        return authority

    def _complete(self) -> None:
        """Make what is missing besides the CA itself, and renew what is about to end."""
        if self._list_needs_signature():
            self._store_crl()
        wrap = self._directory / "tls-crypt.key"
        if not wrap.exists():
            write_atomic(wrap, StaticKey.generate(secrets.token_bytes).serialize().encode("ascii"))
        if self._server_needs_certificate():
            if self._index().current(SERVER_NAME) is not None:
                # Not revoked: the old one may be in use until the restart. It runs out by itself.
                self._forget(SERVER_NAME)
            identity = self._issue(SERVER_NAME, "server", SERVER_DAYS)
            write_atomic(self._directory / "server.key", identity.key_pem)
            write_atomic(self._directory / "server.crt", identity.certificate_pem, PUBLIC_FILE)

    def _server_needs_certificate(self) -> bool:
        certificate_path, key_path = self._directory / "server.crt", self._directory / "server.key"
        if not certificate_path.exists() or not key_path.exists():
            return True
        certificate = _load_certificate(certificate_path)
        if certificate.public_key() != _load_key(key_path).public_key():
            return True
        left = certificate.not_valid_after_utc - self._clock()
        ends_with_authority = certificate.not_valid_after_utc >= self._certificate.not_valid_after_utc
        return left < timedelta(days=SERVER_RENEW_DAYS) and not ends_with_authority

    def _list_needs_signature(self) -> bool:
        """The list in crl.pem is missing, not valid yet, about to end, or older than the index."""
        path = self._directory / "crl.pem"
        if not any(row.revoked for row in self._index().certificates):
            return False
        try:
            crl = x509.load_pem_x509_crl(path.read_bytes())
            number = crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
        except (OSError, ValueError, x509.ExtensionNotFound):
            return True
        end = crl.next_update_utc or self._certificate.not_valid_after_utc
        is_ending = end < min(
            self._clock() + timedelta(days=SERVER_RENEW_DAYS), self._certificate.not_valid_after_utc
        )
        return is_ending or self._clock() < crl.last_update_utc or number != self._index().crl_number

    def _forget(self, name: str) -> None:
        index = self._index()
        rows = tuple(row for row in index.certificates if row.name != name or row.revoked is not None)
        write_index(self._index_path, Index(rows, index.crl_number, index.remote))

    def _issue(self, name: str, usage: CertificateUsage, days: int) -> IssuedIdentity:
        now = self._clock()
        _check_clock(now, self._certificate.not_valid_before_utc)
        if now >= self._certificate.not_valid_after_utc:
            raise PkiError(
                "pki_expired",
                f"the CA in {self._directory} has expired; check the clock, or make a new CA and invite anew",
            )
        key = generate_key()
        wanted = _validity(now, days)
        validity = Validity(
            max(wanted.not_before, self._certificate.not_valid_before_utc),
            min(wanted.not_after, self._certificate.not_valid_after_utc),
        )
        certificate = build_certificate(name, key.public_key(), usage, self._certificate, self._key, validity)
        pem = certificate_pem(certificate)
        make_private_directory(self._directory / "issued")
        write_atomic(self._directory / "issued" / f"{name}.crt", pem, PUBLIC_FILE)
        row = IssuedCertificate(
            name, usage, f"{certificate.serial_number:x}", now, certificate.not_valid_after_utc
        )
        write_index(self._index_path, self._index().with_issued(row))
        return IssuedIdentity(name, row.serial, pem, key_pem(key), certificate.not_valid_after_utc)


def embedded_tls_material(state_directory: Path) -> tuple[bytes, bytes, bytes, bytes | None]:
    """(CA, server certificate, server key, revocation list or None) as PEM, for `tls.embedded: true`.

    Makes what is missing (see `EmbeddedCa.ensure`); call it at start, and again after a revocation.

    Raises:
        PkiError: the CA is damaged or locked.
        OSError: the state folder cannot be read or written.
    """
    authority = EmbeddedCa.ensure(state_directory)
    directory = authority.directory
    return (
        authority.certificate_pem,
        _read(directory / "server.crt"),
        _read(directory / "server.key"),
        authority.crl(),
    )


def _check_clock(now: datetime, earliest: datetime) -> None:
    """A device without a battery starts in 1970: what is issued then has ended when the clock is right."""
    if now < earliest:
        raise PkiError(
            "pki_clock",
            f"the clock says {now:%Y-%m-%d}, and it is {earliest:%Y-%m-%d} or later: nothing is issued by a "
            "clock that is behind. Set the clock (`timedatectl set-ntp true`), then try again",
        )


def _lock(state_directory: Path) -> AbstractContextManager[None]:
    make_private_directory(state_directory)
    return locked(state_directory / ".pki.lock")


def _validity(now: datetime, days: int) -> Validity:
    return Validity(now - _BACKDATE, now + timedelta(days=days))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise PkiError("pki_damaged", f"{path} is missing; restore it from a backup") from None


def _load_certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(_read(path))
    except ValueError as error:
        raise PkiError("pki_damaged", f"{path}: not a certificate; restore it from a backup") from error


def _load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = load_pem_private_key(_read(path), password=None)
    except (ValueError, TypeError) as error:
        raise PkiError("pki_damaged", f"{path}: not a private key; restore it from a backup") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise PkiError("pki_damaged", f"{path}: not an EC key; this CA is not of our making")
    return key
