"""The CA's index: which certificates it issued and revoked, and what invitations need.

One JSON file, which is only ever replaced as a whole.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from bridged.files import PRIVATE_FILE, write_atomic
from bridged.pki.certificates import CertificateUsage
from bridged.pki.errors import PkiError, closed

_FORMAT: Final = 1


@dataclass(frozen=True, slots=True)
class IssuedCertificate:
    """One row. `serial` in hex; `revoked` is the moment of revocation, None while it is valid.

    `wrap_key` names the tls-crypt-v2 key that was made with it; empty: none was.
    """

    name: str
    usage: CertificateUsage
    serial: str
    issued: datetime
    not_after: datetime
    revoked: datetime | None = None
    wrap_key: str = ""


@dataclass(frozen=True, slots=True)
class Index:
    """All certificates, in the order of issue.

    `crl_number`: of the newest revocation list. `remote`: the public `host:port` for invitations; None until
    it is known.
    """

    certificates: tuple[IssuedCertificate, ...] = ()
    crl_number: int = 0
    remote: str | None = None

    def current(self, name: str) -> IssuedCertificate | None:
        """The certificate with this name that is not revoked; None if there is none."""
        return next((row for row in self.certificates if row.name == name and row.revoked is None), None)

    def with_issued(self, row: IssuedCertificate) -> Index:
        return replace(self, certificates=(*self.certificates, row))

    def valid(self, name: str, keep: str | None = None) -> tuple[IssuedCertificate, ...]:
        """All certificates with this name that are not revoked, except the one with serial number `keep`."""
        return tuple(
            row
            for row in self.certificates
            if row.name == name and row.revoked is None and row.serial != keep
        )

    def with_revoked(self, name: str, moment: datetime, keep: str | None = None) -> Index:
        """Revoke all of `valid(name, keep)`."""
        return self._with_revoked({row.serial for row in self.valid(name, keep)}, moment)

    def with_one_revoked(self, serial: str, moment: datetime) -> Index:
        """Revoke the certificate with this serial number."""
        return self._with_revoked({serial}, moment)

    def _with_revoked(self, serials: set[str], moment: datetime) -> Index:
        rows = tuple(
            replace(row, revoked=row.revoked or moment) if row.serial in serials else row
            for row in self.certificates
        )
        return replace(self, certificates=rows, crl_number=self.crl_number + 1)

    def with_remote(self, remote: str) -> Index:
        return replace(self, remote=remote)


def read_index(path: Path) -> Index:
    """Read the index.

    Raises:
        PkiError: `pki_damaged`: missing, or not what `write_index` wrote.
    """
    try:
        data = json.loads(path.read_bytes())
        if data["format"] != _FORMAT:
            raise ValueError(f"format {data['format']!r}; this version reads format {_FORMAT}")
        rows = tuple(_row(entry) for entry in data["certificates"])
        return Index(rows, int(data["crl_number"]), data["remote"])
    except OSError as error:
        if isinstance(error, PermissionError):
            raise closed(path) from None
        raise PkiError("pki_damaged", f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise PkiError(
            "pki_damaged", f"{path}: not an index of this CA ({error}); restore it from a backup"
        ) from error


def write_index(path: Path, index: Index) -> None:
    """Replace the file as a whole."""
    data = {
        "format": _FORMAT,
        "remote": index.remote,
        "crl_number": index.crl_number,
        "certificates": [
            {key: _text(value) for key, value in asdict(row).items()} for row in index.certificates
        ],
    }
    write_atomic(path, json.dumps(data, indent=2).encode() + b"\n", PRIVATE_FILE)


def _text(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value


def _row(entry: dict[str, Any]) -> IssuedCertificate:
    if entry["usage"] not in ("server", "client"):
        raise ValueError(f"usage {entry['usage']!r}")
    int(entry["serial"], 16)
    return IssuedCertificate(
        name=str(entry["name"]),
        usage=entry["usage"],
        serial=entry["serial"],
        issued=datetime.fromisoformat(entry["issued"]),
        not_after=datetime.fromisoformat(entry["not_after"]),
        revoked=datetime.fromisoformat(entry["revoked"]) if entry["revoked"] else None,
        wrap_key=str(entry.get("wrap_key", "")),
    )
