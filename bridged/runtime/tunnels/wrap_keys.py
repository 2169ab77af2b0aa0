"""A tunnel's wrap: from the configuration's keys to what seals and opens control packets.

Source: docs/protocol/control.md#2-2 to #2-5.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from bridged.configuration.check import is_inline
from bridged.configuration.schema import Configuration
from bridged.configuration.tunnel import Tunnel
from bridged.errors import ConfigurationError
from bridged.files import open_to_read, why_unreadable
from bridged.pki import EmbeddedCa, embedded_tls_material, tls_crypt_key_path, tls_crypt_v2_key_path
from bridged.protocol.keys.client_wrap_key import parse_client_key, parse_server_key
from bridged.protocol.keys.static_key import StaticKey, parse_static_key
from bridged.protocol.packets.wrap import (
    NoWrap,
    TlsAuthKeys,
    TlsCryptKeys,
    TlsCryptV2Keys,
    TlsCryptV2Server,
    WrapKeys,
)
from bridged.protocol.role import Role
from bridged.protocol.session.static_session import STATIC_KEY

KEY_OCTETS_MAX: Final = 64 * 1024
"""Bytes of a key's file, with what people write around the key."""


def load_wrap(
    configuration: Configuration, tunnel: Tunnel, prefix: str, base: Path
) -> tuple[WrapKeys, StaticKey | None]:
    """The tunnel's wrap, and the static key of all its sessions (None: they have none, or each its own).

    Relative files are looked up under `base`; `prefix` is the tunnel's key in errors.

    Raises:
        ConfigurationError: a key cannot be read.
        PkiError: the embedded CA is damaged.
    """
    wrap = tunnel.wrap
    role = Role.SERVER if tunnel.role == "server" else Role.CLIENT
    if wrap.mode == "none":
        return NoWrap(), None
    if wrap.key is None:
        embedded_tls_material(configuration.state_directory)
        if wrap.mode == "tls-crypt-v2":
            EmbeddedCa.open(configuration.state_directory).make_wrap_keys()
        find = tls_crypt_v2_key_path if wrap.mode == "tls-crypt-v2" else tls_crypt_key_path
        text, name = _read(str(find(configuration.state_directory)), f"{prefix}.wrap.key", base)
    else:
        text, name = _read(wrap.key, f"{prefix}.wrap.key", base)
    if wrap.mode == "tls-crypt-v2" and role is Role.CLIENT:
        own = parse_client_key(text, name)
        return TlsCryptV2Keys(own.key, role, own.wrapped), own.key
    if wrap.mode == "tls-crypt-v2":
        if wrap.old_clients_key is None:
            return TlsCryptV2Server(parse_server_key(text, name)), None
        old = parse_static_key(*_read(wrap.old_clients_key, f"{prefix}.wrap.old_clients_key", base))
        is_auth = wrap.old_clients_mode == "tls-auth"
        shared = TlsAuthKeys(old, wrap.direction, wrap.digest) if is_auth else TlsCryptKeys(old, role)
        return TlsCryptV2Server(parse_server_key(text, name), shared), old
    key = parse_static_key(text, name)
    if wrap.mode == STATIC_KEY:
        return NoWrap(), key
    if wrap.mode == "tls-auth":
        return TlsAuthKeys(key, wrap.direction, wrap.digest), key
    return TlsCryptKeys(key, role), key


def _read(value: str, key: str, base: Path) -> tuple[str, str]:
    """The text, and its name in errors."""
    if is_inline(value):
        return value, key
    path = base / value
    try:
        with open_to_read(path) as stream:
            return stream.read(KEY_OCTETS_MAX).decode("ascii", "replace"), str(path)
    except (OSError, ValueError) as error:
        reason = why_unreadable(path, error)
        raise ConfigurationError(f"cannot read this key: {reason}", file=path, key=key) from error
