"""tls-crypt-v2 keys are refused by name and by age, as of the file's last change."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bridged.errors import RemoteProtocolError
from bridged.pki import EmbeddedCa, refused_keys_path
from bridged.protocol.keys.client_wrap_key import (
    ServerWrapKey,
    UnwrappedKey,
    parse_client_key,
    parse_server_key,
)
from bridged.runtime.server.refused_keys import RefusedKeys

SERVER = ServerWrapKey(bytes(range(128)))


def client_key(made_at: int = 1000) -> UnwrappedKey:
    return SERVER.unwrap(SERVER.make_client_key(os.urandom, made_at).wrapped)


def test_a_listed_key_is_refused_and_the_others_are_not(tmp_path: Path) -> None:
    stolen, other = client_key(), client_key()
    refused = RefusedKeys(tmp_path / "refused-keys")
    refused.check(stolen, 2000)
    (tmp_path / "refused-keys").write_text(f"\n{stolen.identifier.upper()} laptop\n")
    refused.check(other, 2000)
    with pytest.raises(RemoteProtocolError) as error:
        refused.check(stolen, 2000)
    assert error.value.code == "wrap_key_refused"
    (tmp_path / "refused-keys").unlink()
    refused.check(stolen, 2000)


def test_old_keys_and_those_without_a_date_are_refused() -> None:
    refused = RefusedKeys(None, 100)
    refused.check(client_key(1000), 1100)
    undated = SERVER.unwrap(SERVER.make_client_key(os.urandom, 0, b"me").wrapped)
    for key, now in ((client_key(1000), 1101), (undated, 0)):
        with pytest.raises(RemoteProtocolError):
            refused.check(key, now)


def test_revoking_a_name_lists_its_key_alone(tmp_path: Path) -> None:
    authority = EmbeddedCa.create(tmp_path)
    assert authority.issue("early", "client").wrap_key == ""
    authority.make_wrap_keys()
    server = parse_server_key((authority.directory / "tls-crypt-v2.key").read_text(), "server")
    texts = {name: authority.issue(name, "client").wrap_key for name in ("laptop", "office")}
    keys = {name: server.unwrap(parse_client_key(text, name).wrapped) for name, text in texts.items()}
    authority.revoke("laptop")
    refused = RefusedKeys(refused_keys_path(tmp_path))
    refused.check(keys["office"], 0)
    with pytest.raises(RemoteProtocolError):
        refused.check(keys["laptop"], 0)
    authority.revoke("early")
    assert len(refused_keys_path(tmp_path).read_text().splitlines()) == 1
