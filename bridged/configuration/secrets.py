"""Finds private keys, static keys and tokens of the configuration that others may read.

Reads file modes, and files of certificates; changes nothing.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bridged.configuration.check import Conflict, is_inline
from bridged.configuration.document import KeyPath
from bridged.configuration.schema import Configuration
from bridged.configuration.tunnel import Tunnel
from bridged.files import is_readable, open_to_read, readable_by_folder_group

OTHERS: Final = 0o077
"""Mode bits of group and others, which a secret's file must not have."""
CERTIFICATE_OCTETS_MAX: Final = 1 << 20
_PRIVATE_MARK: Final = b"PRIVATE KEY-----"
_EMBEDDED: Final = ("ca.key", "server.key", "tls-crypt.key", "tls-crypt-v2.key")


def find_exposed_secrets(configuration: Configuration) -> list[Conflict]:
    """(path of the key, warning) for every secret that group or others may read."""
    found: list[Conflict] = []
    for name in configuration.tunnels:
        found += find_exposed_in_tunnel(configuration, name)
    token = configuration.metrics.bearer_token_file
    if token is not None and configuration.metrics.listen is not None:
        found += _file(("metrics", "bearer_token_file"), token)
    return found


def find_exposed_in_tunnel(configuration: Configuration, name: str) -> list[Conflict]:
    """The same for one tunnel."""
    tunnel = configuration.tunnels[name]
    base: KeyPath = ("tunnels", name)
    return [
        *_identity(configuration, tunnel, base),
        *_wrap(configuration, tunnel, base),
        *_login(configuration, tunnel, base),
    ]


def exposure(path: Path) -> str | None:
    """A warning if others may read this file; None if they may not, or if it does not exist."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        if readable_by_folder_group(path):
            mode &= ~stat.S_IRGRP
    except (OSError, ValueError):
        return None
    if not mode & OTHERS:
        return None
    return f"{path} may be read by others (mode {mode:04o}); run `chmod 600 {path}`"


def _identity(configuration: Configuration, tunnel: Tunnel, base: KeyPath) -> Iterator[Conflict]:
    if tunnel.tls.embedded:
        for name in _EMBEDDED:
            yield from _file((*base, "tls", "embedded"), configuration.state_directory / "pki" / name)
        return
    for key in ("key", "certificate", "ca"):
        value: str | None = getattr(tunnel.tls, key)
        if value is None or (key != "key" and not _holds_private_key(value)):
            continue
        yield from _value(configuration, (*base, "tls", key), value)


def _wrap(configuration: Configuration, tunnel: Tunnel, base: KeyPath) -> Iterator[Conflict]:
    for key in ("old_clients_key", "key"):
        value: str | None = getattr(tunnel.wrap, key)
        if value is not None:
            yield from _value(configuration, (*base, "wrap", key), value)


def _login(configuration: Configuration, tunnel: Tunnel, base: KeyPath) -> Iterator[Conflict]:
    if tunnel.authentication is not None and tunnel.authentication.password_file is not None:
        yield from _file((*base, "authentication", "password_file"), tunnel.authentication.password_file)
    if tunnel.proxy is not None and tunnel.proxy.credentials_file is not None:
        yield from _value(configuration, (*base, "proxy", "credentials_file"), tunnel.proxy.credentials_file)
    if tunnel.login is None:
        return
    for key in ("password", "totp_secret"):
        value: str | None = getattr(tunnel.login, key)
        if value is not None:
            yield from _value(configuration, (*base, "login", key), value)


def _value(configuration: Configuration, path: KeyPath, value: str) -> Iterator[Conflict]:
    if not is_inline(value):
        yield from _file(path, Path(value))
    elif (file := configuration.file_of(path)) is not None:
        text = exposure(file)
        if text is not None:
            yield path, f"the key is in this file, and {text}"


def _file(path: KeyPath, file: Path) -> Iterator[Conflict]:
    text = exposure(file)
    if text is not None:
        yield path, text


def _holds_private_key(value: str) -> bool:
    """Whether a private key follows the certificate, as some programs write it."""
    if is_inline(value):
        return _PRIVATE_MARK in value.encode("utf-8", "replace")
    path = Path(value)
    try:
        if not is_readable(value):
            return False
        with open_to_read(path) as file:
            return _PRIVATE_MARK in file.read(CERTIFICATE_OCTETS_MAX)
    except (OSError, ValueError):
        return False
