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
from bridged.runtime.server.refused_keys import FILE_OCTETS_MAX, RefusedKeys

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


def test_a_list_that_cannot_be_read_refuses_all_until_it_can_and_then_stays_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "refused-keys"
    path.mkdir()
    refused, stolen, other = RefusedKeys(path), client_key(), client_key()
    for _ in range(2):
        with pytest.raises(RemoteProtocolError, match="cannot be read"):
            refused.check(other, 0)
    path.rmdir()
    path.write_text(f"{stolen.identifier}\n")
    refused.check(other, 0)
    path.unlink()
    path.mkdir()
    refused.check(other, 0)
    with pytest.raises(RemoteProtocolError, match="on the list"):
        refused.check(stolen, 0)
    # What is reported as undone concerns other tests as well.
    path.rmdir()
    refused.refresh()


def test_a_list_that_is_too_large_is_not_read_in_part(tmp_path: Path) -> None:
    path, key = tmp_path / "refused-keys", client_key()
    path.write_text(f"{key.identifier} laptop\n")
    refused = RefusedKeys(path)
    refused.refresh()
    path.write_text("# long\n" * (FILE_OCTETS_MAX // 7 + 1))
    refused.refresh()
    assert refused.is_listed(key)
    path.unlink()
    refused.refresh()


def test_a_line_that_names_no_key_is_reported(tmp_path: Path) -> None:
    path, said = tmp_path / "refused-keys", list[str]()
    path.write_text("laptop\n")
    refused = RefusedKeys(path, None, said.append)
    refused.check(client_key(), 0)
    refused.check(client_key(), 0)
    assert len(said) == 1 and "line 1" in said[0]
