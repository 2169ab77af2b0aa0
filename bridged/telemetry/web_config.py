"""The web configuration file of Prometheus' exporters: TLS, users and headers of /metrics.

Source: prometheus/exporter-toolkit, "Web configuration". What is not supported here is refused by name.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from bridged.configuration.load import anchored
from bridged.errors import BridgedError
from bridged.files import FileMark, mark_at, open_to_read, why_unreadable
from bridged.telemetry import passwords

FILE_OCTETS_MAX: Final = 1 << 16
_SECTIONS: Final = ("tls_server_config", "http_server_config", "basic_auth_users")
_TLS_FILES: Final = ("cert_file", "key_file", "client_ca_file")
_TLS_KEYS: Final = (
    *("cert_file", "key_file", "client_auth_type", "client_ca_file", "client_allowed_sans"),
    *("min_version", "max_version", "cipher_suites", "prefer_server_cipher_suites"),
)
_CLIENT_AUTH: Final = {
    "NoClientCert": ssl.CERT_NONE,
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}
_VERSIONS: Final = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}
_HEADERS: Final = {
    name.lower(): name
    for name in (
        *("Content-Security-Policy", "Strict-Transport-Security", "X-Content-Type-Options"),
        *("X-Frame-Options", "X-XSS-Protection"),
    )
}


class WebConfigError(BridgedError):
    """The web configuration file cannot be used: `bad_web_config`."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__("bad_web_config", f"metrics.web_config_file {path}: {reason}")


@dataclass(frozen=True, slots=True)
class WebConfig:
    """What the file says. `files`: all that were read. `tls` None: plain HTTP. `users`: name -> hash."""

    files: tuple[Path, ...]
    marks: tuple[FileMark | None, ...] = ()
    """Of `files`, from before they were read: a change in between is noticed later."""
    tls: ssl.SSLContext | None = None
    client_names: frozenset[str] = frozenset()
    """If there are any, a client certificate must have one of them."""
    users: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def keeps_strangers_out(self) -> bool:
        """Whether a client has to prove who it is."""
        return bool(self.users) or (self.tls is not None and self.tls.verify_mode is ssl.CERT_REQUIRED)


def load_web_config(path: Path) -> WebConfig:
    """Read the file and those that it names: relative ones beside it, `credential:NAME` of the service.

    Raises:
        WebConfigError: one of them cannot be read, or has something that cannot be used.
    """
    mark = mark_at(path)
    document = _document(path)
    _no_others(path, "", document, _SECTIONS)
    tls = _section(path, document, "tls_server_config")
    http = _section(path, document, "http_server_config")
    users = _section(path, document, "basic_auth_users")
    for name, stored in users.items():
        reason = passwords.bad_hash(str(stored))
        if reason is not None:
            raise WebConfigError(path, f"basic_auth_users.{name} {reason}")
    if users and not passwords.is_available():
        raise WebConfigError(
            path, "this host has no bcrypt: apt-get install libcrypt1, or pip install bcrypt"
        )
    others = tuple(_file(path, tls, key) for key in _TLS_FILES if tls.get(key))
    return WebConfig(
        files=(path, *others),
        marks=(mark, *map(mark_at, others)),
        tls=_context(path, tls) if tls else None,
        client_names=frozenset(map(str, _list(path, tls, "client_allowed_sans"))),
        users={str(name): str(stored) for name, stored in users.items()},
        headers=_headers(path, http),
    )


def _document(path: Path) -> dict[str, Any]:
    try:
        with open_to_read(path) as stream:
            content = stream.read(FILE_OCTETS_MAX + 1)
        if len(content) > FILE_OCTETS_MAX:
            raise WebConfigError(path, f"has over {FILE_OCTETS_MAX} bytes")
        document = yaml.safe_load(content)
    except OSError as error:
        raise WebConfigError(path, why_unreadable(path, error)) from error
    # Besides its own errors the parser raises those of a number, a date or a tag that is none.
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark is not None else ""
        # The parser's own text quotes the file, which has secrets.
        raise WebConfigError(path, f"{where}not YAML") from None
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise WebConfigError(path, f"expected a mapping with {', '.join(_SECTIONS)}")
    return document


def _section(path: Path, document: Mapping[str, Any], name: str) -> dict[str, Any]:
    section = document.get(name) or {}
    if not isinstance(section, dict):
        raise WebConfigError(path, f"{name} must be a mapping")
    return section


def _no_others(path: Path, where: str, section: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for key in section:
        if key not in known:
            raise WebConfigError(
                path, f"{where}{key} is not supported here; remove it. Known: {', '.join(known)}"
            )


def _list(path: Path, section: Mapping[str, Any], key: str) -> list[Any]:
    value = section.get(key) or []
    if not isinstance(value, list):
        raise WebConfigError(path, f"{key} must be a list")
    return value


def _context(path: Path, section: Mapping[str, Any]) -> ssl.SSLContext:
    _no_others(path, "tls_server_config.", section, _TLS_KEYS)
    for key in ("cert_file", "key_file"):
        if not section.get(key):
            raise WebConfigError(path, f"tls_server_config needs {key}")
    kind = section.get("client_auth_type") or "NoClientCert"
    if not isinstance(kind, str) or kind not in _CLIENT_AUTH:
        raise WebConfigError(
            path, f"client_auth_type {kind} is not supported here: use {', '.join(_CLIENT_AUTH)}"
        )
    authority = section.get("client_ca_file")
    if (_CLIENT_AUTH[kind] is ssl.CERT_NONE) != (not authority):
        raise WebConfigError(path, "client_ca_file and a client_auth_type that verifies belong together")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _version(path, section, "min_version", "TLS12")
    if section.get("max_version"):
        context.maximum_version = _version(path, section, "max_version", "TLS13")
    suites = [suite for suite in _list(path, section, "cipher_suites") if "_WITH_" in str(suite)]
    try:
        if suites:
            context.set_ciphers(":".join(_openssl_name(str(suite)) for suite in suites))
    except OSError as error:
        raise WebConfigError(path, f"cipher_suites: {getattr(error, 'reason', None) or error}") from error
    _load_files(path, section, context)
    context.verify_mode = _CLIENT_AUTH[kind]
    return context


def _load_files(path: Path, section: Mapping[str, Any], context: ssl.SSLContext) -> None:
    chain, private = (_for_openssl(path, section, key) for key in ("cert_file", "key_file"))
    with chain as chain_path, private as private_path:
        try:
            # An encrypted key would make OpenSSL ask at the terminal.
            context.load_cert_chain(chain_path, private_path, password=lambda: "")
        except (OSError, ValueError) as error:
            where = " and ".join(str(_file(path, section, key)) for key in ("cert_file", "key_file"))
            text = f"{where} cannot be used: expected PEM, the certificate of the key, and no password"
            raise WebConfigError(path, f"{text} ({getattr(error, 'reason', None) or error})") from error
    if section.get("client_ca_file"):
        with _for_openssl(path, section, "client_ca_file") as authority_path:
            try:
                context.load_verify_locations(authority_path)
            except (OSError, ValueError) as error:
                where = f"client_ca_file {_file(path, section, 'client_ca_file')}"
                raise WebConfigError(path, f"{where}: no certificates in PEM") from error


def _file(path: Path, section: Mapping[str, Any], key: str) -> Path:
    """The path that a key names: beside the file, or a credential of the service."""
    return anchored(str(section[key]), path.parent)


@contextmanager
def _for_openssl(path: Path, section: Mapping[str, Any], key: str) -> Iterator[str]:
    """A path from which OpenSSL, which only takes paths, reads what `open_to_read` opens there."""
    file = _file(path, section, key)
    try:
        with open_to_read(file) as source:
            content = source.read(FILE_OCTETS_MAX * 16)
    except (OSError, ValueError) as error:  # ValueError: a NUL in a path
        raise WebConfigError(path, f"{key} {file}: {why_unreadable(file, error)}") from error
    with os.fdopen(os.memfd_create("tls"), "wb") as copy:
        copy.write(content)
        copy.flush()
        yield f"/proc/self/fd/{copy.fileno()}"


def _version(path: Path, section: Mapping[str, Any], key: str, default: str) -> ssl.TLSVersion:
    name = section.get(key) or default
    if not isinstance(name, str) or name not in _VERSIONS:
        raise WebConfigError(path, f"{key} {name} is not supported here: use {' or '.join(_VERSIONS)}")
    return _VERSIONS[name]


def _openssl_name(suite: str) -> str:
    """`TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256`, as Go says it, is `ECDHE-RSA-AES128-GCM-SHA256` to OpenSSL."""
    name = suite.removeprefix("TLS_").replace("_WITH_", "_").replace("AES_", "AES").replace("_", "-")
    return name.removesuffix("-SHA256") if "POLY1305" in name else name


def _headers(path: Path, section: Mapping[str, Any]) -> dict[str, str]:
    _no_others(path, "http_server_config.", section, ("http2", "headers"))
    found = {}
    for name, value in _section(path, section, "headers").items():
        if str(name).lower() not in _HEADERS:
            raise WebConfigError(path, f"header {name} cannot be set: only {', '.join(_HEADERS.values())}")
        if not str(value).isprintable() or not str(value).isascii():
            raise WebConfigError(path, f"header {name}: printable ASCII only")
        found[_HEADERS[str(name).lower()]] = str(value)
    return found
