"""The embedded CA: issues and revokes certificates, and renews the server's.

What it keeps is described in `folder`. crl.pem is for other programs: the daemon's own revocation list is
signed again at each start and change.
"""

from __future__ import annotations

import re
import secrets
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from bridged import WRITTEN_AFTER
from bridged.files import PUBLIC_FILE, give_directory, make_private_directory, sync_directory, write_atomic
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
from bridged.pki.errors import PkiError
from bridged.pki.folder import (
    CaFolder,
    lock_state,
    pki_directory,
    read_certificate,
    read_file,
    refused_keys_path,
)
from bridged.pki.index import Index, IssuedCertificate
from bridged.pki.refused_list import add_refused
from bridged.protocol.keys.client_wrap_key import ClientWrapKey, ServerWrapKey, parse_server_key
from bridged.protocol.keys.static_key import StaticKey

AUTHORITY_DAYS: Final = 3650
SERVER_DAYS: Final = 825
"""Renewed by `ensure` when fewer than SERVER_RENEW_DAYS are left."""
SERVER_RENEW_DAYS: Final = 60
CLIENT_DAYS: Final = 3650
"""As long as the CA. Nothing renews a client's certificate, an expired one cuts off an unattended site, and
a revocation takes effect at once."""
SERVER_NAME: Final = "server"

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,63}")
# A machine without a battery for its clock may be behind when it starts.
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
    wrap_key: str = field(default="", repr=False)
    """Text of its tls-crypt-v2 client key; empty: it has none."""


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
    """The CA of one state folder; get it by `create`, `open` or `ensure`.

    Several processes may use one state folder: every change holds a file lock. A crash in the midst of a
    change leaves the old state or the new one.

    Raises:
        PkiError: with code `pki_exists`, `pki_missing`, `pki_damaged`, `pki_name`, `pki_duplicate`,
            `pki_unknown`, `pki_locked`, `pki_expired`, `pki_clock`; the message says what to do.
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
        self._folder = CaFolder(pki_directory(state_directory))
        self._certificate = certificate
        self._key = key
        self._clock = clock

    @classmethod
    def create(cls, state_directory: Path, *, clock: Clock = _utc_now) -> EmbeddedCa:
        """Make CA, server certificate and tls-crypt key; refuse if there is a CA already."""
        with lock_state(state_directory):
            if pki_directory(state_directory).exists():
                raise PkiError(
                    "pki_exists",
                    f"{pki_directory(state_directory)} already exists; a new CA would lock out every "
                    "invited peer. Use the existing one, or move it away first",
                )
            return cls._create(state_directory, clock)

    @classmethod
    def open(cls, state_directory: Path, *, clock: Clock = _utc_now) -> EmbeddedCa:
        """Open the existing CA."""
        directory = pki_directory(state_directory)
        if not directory.is_dir():
            raise PkiError(
                "pki_missing", f"no CA under {state_directory}; make one with `bridged init --state DIR …`"
            )
        certificate, key = CaFolder(directory).read_authority()
        return cls(state_directory, certificate, key, clock)

    @classmethod
    def ensure(cls, state_directory: Path, *, clock: Clock = _utc_now) -> EmbeddedCa:
        """Open the CA, or make it. Nothing that exists is replaced, but:

        Make the server certificate and the tls-crypt key if they are missing. Renew a server certificate that
        ends within SERVER_RENEW_DAYS.
        """
        with lock_state(state_directory):
            if not pki_directory(state_directory).exists():
                return cls._create(state_directory, clock)
            authority = cls.open(state_directory, clock=clock)
            authority._complete()
            return authority

    @property
    def directory(self) -> Path:
        """STATE/pki."""
        return self._folder.path

    @property
    def certificate_pem(self) -> bytes:
        """The CA's certificate."""
        return certificate_pem(self._certificate)

    @property
    def tls_crypt_key(self) -> str:
        """Text of the tls-crypt key file; secret."""
        return read_file(self._folder.tls_crypt_key).decode("ascii", "replace")

    @property
    def makes_wrap_keys(self) -> bool:
        """Each new client gets a tls-crypt-v2 key of its own."""
        return self._folder.tls_crypt_v2_key.exists()

    def make_wrap_keys(self) -> None:
        """From now on, each new client gets a tls-crypt-v2 key of its own."""
        with lock_state(self._state):
            if not self.makes_wrap_keys:
                key = ServerWrapKey.generate(secrets.token_bytes).serialize().encode("ascii")
                write_atomic(self._folder.tls_crypt_v2_key, key)

    @property
    def remote(self) -> str | None:
        """The public `host:port` for invitations; None: not set yet."""
        return self._folder.read_index().remote

    def set_remote(self, remote: str) -> None:
        with lock_state(self._state):
            self._folder.write_index(self._folder.read_index().with_remote(remote))

    def certificates(self) -> tuple[IssuedCertificate, ...]:
        """All certificates ever issued, in order."""
        return self._folder.read_index().certificates

    def issue(
        self,
        name: str,
        usage: CertificateUsage,
        *,
        days: int = CLIENT_DAYS,
        replace: bool = False,
        has_wrap_key: bool = True,
    ) -> IssuedIdentity:
        """A new key and its certificate, valid for `days`, at most as long as the CA.

        `has_wrap_key`: a client gets a tls-crypt-v2 key of its own, where the CA makes them.

        The certificate is stored, the key is not. A name can be issued again after `revoke`. With `replace`
        it can be issued before: then call `revoke(name, keep=serial)` once the new one has reached its peer.
        """
        check_name(name)
        with lock_state(self._state):
            known = self._folder.read_index().current(name)
            if known is not None and (not replace or known.usage != usage):
                raise PkiError(
                    "pki_duplicate",
                    f"a certificate for {name!r} already exists; choose another name, or revoke it with "
                    f"`bridged invite {name} --replace`",
                )
            return self._issue(name, usage, days, has_wrap_key=has_wrap_key and usage == "client")

    def revoke(self, name: str, *, keep: str | None = None) -> int:
        """Put the certificates with this name on the revocation list, except the one with serial `keep`.

        Returns how many there were. The server's own certificate cannot be revoked.
        """
        with lock_state(self._state):
            index = self._folder.read_index()
            found = index.valid(name, keep)
            if not found:
                raise PkiError("pki_unknown", f"no valid certificate for {name!r} was issued by this CA")
            if any(row.usage == "server" for row in found):
                raise PkiError("pki_name", f"{name!r} is this server's own certificate")
            self._folder.write_index(index.with_revoked(name, self._clock(), keep))
            self._store_crl()
            self._refuse_wrap_keys()
            return len(found)

    def withdraw(self, identity: IssuedIdentity) -> None:
        """Revoke this certificate alone: its key was lost."""
        with lock_state(self._state):
            index = self._folder.read_index().with_one_revoked(identity.serial, self._clock())
            self._folder.write_index(index)
            self._store_crl()
            self._refuse_wrap_keys()

    def mark(self) -> str:
        """A text that changes when the server's certificate or the revocation list does."""
        server = read_certificate(self._folder.server_certificate)
        return f"{server.serial_number:x}/{self._folder.read_index().crl_number}"

    def crl(self) -> bytes | None:
        """A newly signed revocation list as PEM, valid as long as the CA; None if nothing was revoked.

        It stays in memory and never comes from elsewhere, where its age would matter.
        """
        index = self._folder.read_index()
        rows = [(int(row.serial, 16), row.revoked) for row in index.certificates if row.revoked is not None]
        if not rows:
            return None
        validity = Validity(self._clock() - _BACKDATE, self._certificate.not_valid_after_utc)
        crl = build_revocation_list(rows, index.crl_number, self._certificate, self._key, validity)
        return crl.public_bytes(Encoding.PEM)

    def _store_crl(self) -> None:
        crl = self.crl()
        if crl is not None:
            write_atomic(self._folder.revocation_list, crl, PUBLIC_FILE)

    @classmethod
    def _create(cls, state_directory: Path, clock: Clock) -> EmbeddedCa:
        """Fill a folder with another name, then rename it: there is never half a CA."""
        _check_clock(clock(), WRITTEN_AFTER)
        final = pki_directory(state_directory)
        draft = Path(tempfile.mkdtemp(prefix=".pki-", dir=state_directory))
        try:
            key = generate_key()
            # The name tells one CA from another in error messages.
            name = f"bridged CA {secrets.token_hex(4)}"
            certificate = build_authority(name, key, _validity(clock(), AUTHORITY_DAYS))
            folder = CaFolder(draft)
            give_directory(draft)
            make_private_directory(folder.issued)
            write_atomic(folder.ca_key, key_pem(key))
            write_atomic(folder.ca_certificate, certificate_pem(certificate), PUBLIC_FILE)
            folder.write_index(Index())
            authority = cls(state_directory, certificate, key, clock)
            authority._folder = folder
            authority._complete()
            draft.rename(final)
            sync_directory(state_directory)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
        authority._folder = CaFolder(final)
        return authority

    def _complete(self) -> None:
        """Make what is missing besides the CA itself, and renew what ends soon."""
        if self._list_needs_signature():
            self._store_crl()
        if not self._folder.tls_crypt_key.exists():
            key = StaticKey.generate(secrets.token_bytes).serialize().encode("ascii")
            write_atomic(self._folder.tls_crypt_key, key)
        if self._server_needs_certificate():
            if self._folder.read_index().current(SERVER_NAME) is not None:
                # Do not revoke the old one: it may be in use until the restart. It expires by itself.
                self._forget(SERVER_NAME)
            identity = self._issue(SERVER_NAME, "server", SERVER_DAYS, has_wrap_key=False)
            write_atomic(self._folder.server_key, identity.key_pem)
            write_atomic(self._folder.server_certificate, identity.certificate_pem, PUBLIC_FILE)

    def _server_needs_certificate(self) -> bool:
        certificate = self._folder.read_server_certificate()
        if certificate is None:
            return True
        left = certificate.not_valid_after_utc - self._clock()
        ends_with_authority = certificate.not_valid_after_utc >= self._certificate.not_valid_after_utc
        return left < timedelta(days=SERVER_RENEW_DAYS) and not ends_with_authority

    def _list_needs_signature(self) -> bool:
        """crl.pem is missing, not valid yet, ends soon, or is older than the index."""
        path = self._folder.revocation_list
        if not any(row.revoked for row in self._folder.read_index().certificates):
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
        return (
            is_ending or self._clock() < crl.last_update_utc or number != self._folder.read_index().crl_number
        )

    def _forget(self, name: str) -> None:
        index = self._folder.read_index()
        rows = tuple(row for row in index.certificates if row.name != name or row.revoked is not None)
        self._folder.write_index(Index(rows, index.crl_number, index.remote))

    def _issue(self, name: str, usage: CertificateUsage, days: int, *, has_wrap_key: bool) -> IssuedIdentity:
        now = self._clock()
        _check_clock(now, self._certificate.not_valid_before_utc)
        if now >= self._certificate.not_valid_after_utc:
            raise PkiError(
                "pki_expired",
                f"the CA in {self._folder.path} has expired; check the clock, or make a new CA and "
                "invite all peers again",
            )
        key = generate_key()
        wanted = _validity(now, days)
        validity = Validity(
            max(wanted.not_before, self._certificate.not_valid_before_utc),
            min(wanted.not_after, self._certificate.not_valid_after_utc),
        )
        certificate = build_certificate(name, key.public_key(), usage, self._certificate, self._key, validity)
        pem = certificate_pem(certificate)
        make_private_directory(self._folder.issued)
        write_atomic(self._folder.issued / f"{name}.crt", pem, PUBLIC_FILE)
        wrap_key = self._make_client_key(int(now.timestamp())) if has_wrap_key else None
        row = IssuedCertificate(
            name,
            usage,
            f"{certificate.serial_number:x}",
            now,
            certificate.not_valid_after_utc,
            wrap_key=wrap_key.identifier if wrap_key is not None else "",
        )
        self._folder.write_index(self._folder.read_index().with_issued(row))
        text = wrap_key.serialize() if wrap_key is not None else ""
        return IssuedIdentity(name, row.serial, pem, key_pem(key), certificate.not_valid_after_utc, text)

    def _make_client_key(self, made_at: int) -> ClientWrapKey | None:
        if not self.makes_wrap_keys:
            return None
        path = self._folder.tls_crypt_v2_key
        server = parse_server_key(read_file(path).decode("ascii", "replace"), str(path))
        return server.make_client_key(secrets.token_bytes, made_at)

    def _refuse_wrap_keys(self) -> None:
        """List the wrap keys of revoked certificates, beside those that somebody else listed."""
        rows = [row for row in self.certificates() if row.revoked is not None and row.wrap_key]
        add_refused(refused_keys_path(self._state), ((row.wrap_key, row.name) for row in rows))


def embedded_tls_material(state_directory: Path) -> tuple[bytes, bytes, bytes, bytes | None]:
    """(CA, server certificate, server key, revocation list or None) as PEM, for `tls.embedded: true`.

    Makes what is missing (see `EmbeddedCa.ensure`). Call it at start, and again after a revocation.

    Raises:
        PkiError: the CA is damaged or locked.
        OSError: the state folder cannot be read or written.
    """
    authority = EmbeddedCa.ensure(state_directory)
    folder = CaFolder(authority.directory)
    return (
        authority.certificate_pem,
        read_file(folder.server_certificate),
        read_file(folder.server_key),
        authority.crl(),
    )


def _check_clock(now: datetime, earliest: datetime) -> None:
    """A device without a battery starts in 1970. What it issues then has ended once its clock is right."""
    if now < earliest:
        raise PkiError(
            "pki_clock",
            f"the clock says {now:%Y-%m-%d}, but it is {earliest:%Y-%m-%d} or later: nothing is issued while "
            "the clock is behind. Set the clock (`timedatectl set-ntp true`), then try again",
        )


def _validity(now: datetime, days: int) -> Validity:
    return Validity(now - _BACKDATE, now + timedelta(days=days))
