"""`bridged wrap-key`, and invitations that the server would not take."""

from __future__ import annotations

import re
import stat
from pathlib import Path

import pytest
import yaml

from bridged.pki import EmbeddedCa, refused_keys_path, tls_crypt_v2_key_path
from bridged.protocol.keys.client_wrap_key import parse_client_key, parse_server_key
from bridged.runtime.server.refused_keys import RefusedKeys


def made(bridged, *more):
    assert bridged("wrap-key", "server", "--output", "server.key")[0] == 0
    status, _, errors = bridged(
        "wrap-key", "client", "--server-key", "server.key", "--output", "client.key", *more
    )
    assert status == 0
    for name in ("server.key", "client.key"):
        assert stat.S_IMODE(Path(name).stat().st_mode) == 0o600
    return re.search(r"[0-9a-f]{32}", errors)[0]


@pytest.mark.parametrize(
    ("more", "metadata"),
    [
        (["--metadata", "laptop é"], "laptop é".encode()),
        (["--metadata", "AAEC", "--base64"], bytes(range(3))),
    ],
)
def test_both_keys_belong_together_and_show_says_what_is_in_them(bridged, more, metadata):
    identifier = made(bridged, *more)
    server = parse_server_key(Path("server.key").read_text(), "s")
    opened = server.unwrap(parse_client_key(Path("client.key").read_text(), "c").wrapped)
    assert (opened.metadata_type, opened.metadata, opened.identifier) == (0, metadata, identifier)
    assert bridged("wrap-key", "show", "client.key") == (0, f"{identifier}\n", "")
    status, out, _ = bridged("wrap-key", "show", "client.key", "--server-key", "server.key")
    assert status == 0 and out.splitlines()[1].startswith("metadata of type 0: ")


def test_a_key_without_metadata_has_its_date(bridged):
    made(bridged)
    _, out, _ = bridged("wrap-key", "show", "client.key", "--server-key", "server.key")
    assert re.fullmatch(r"made \d{4}-\d\d-\d\d", out.splitlines()[1])


@pytest.mark.parametrize(
    "words",
    [
        ("client", "--server-key", "missing.key"),
        ("client", "--server-key", "client.key"),
        ("client", "--server-key", "server.key", "--metadata", "?", "--base64"),
        ("client", "--server-key", "server.key", "--metadata", "x" * 734),
        ("show", "server.key"),
        ("show", "client.key", "--server-key", "other.key"),
        ("server", "--output", "server.key"),
        ("refuse", "laptop", "--state", "state"),
        ("refuse", "client.key", "--state", "missing"),
    ],
)
def test_what_cannot_be_done_is_wrong_use(bridged, words):
    made(bridged)
    assert bridged("wrap-key", "server", "--output", "other.key")[0] == 0
    Path("state").mkdir()
    status, out, errors = bridged("wrap-key", *words)
    assert status == 2 and out == "" and errors.count("\n") == 1
    assert not Path("missing").exists()


def test_a_key_is_refused_by_its_file_and_allowed_by_its_identifier(bridged):
    identifier = made(bridged)
    Path("state").mkdir()
    key = parse_server_key(Path("server.key").read_text(), "s").unwrap(
        parse_client_key(Path("client.key").read_text(), "c").wrapped
    )
    refused = RefusedKeys(refused_keys_path(Path("state")))
    refused.check(key, 0)
    assert bridged("wrap-key", "refuse", "client.key", "--name", "lost laptop", "--state", "state")[0] == 0
    assert refused_keys_path(Path("state")).read_text() == f"{identifier} lost laptop\n"
    refused.refresh()
    assert refused.is_listed(key)
    assert bridged("wrap-key", "refuse", identifier.upper(), "--state", "state")[0] == 1
    assert bridged("wrap-key", "allow", identifier, "--state", "state")[0] == 0
    refused.check(key, 0)
    assert bridged("wrap-key", "allow", identifier, "--state", "state")[0] == 1


def change_wrap(**wrap):
    document = yaml.safe_load(Path("server.yaml").read_text())
    document["tunnels"]["server"]["wrap"] = wrap
    Path("server.yaml").write_text(yaml.safe_dump(document))


def test_an_invitation_that_the_server_would_not_take_is_refused(bridged, server):
    words = ("invite", "old", "--old-client", "--state", "state", "--config", "server.yaml")
    status, _, errors = bridged(*words, "--output", "old.ovpn")
    assert status == 2 and "old_clients_key: " in errors and not Path("old.ovpn").exists()
    assert all(row.usage == "server" for row in EmbeddedCa.open(server).certificates())
    key = str(server / "pki" / "tls-crypt.key")
    change_wrap(mode="tls-crypt-v2", key=str(tls_crypt_v2_key_path(server)), old_clients_key=key)
    assert bridged(*words, "--output", "old.ovpn")[0] == 0
    assert (
        "<tls-crypt>" in Path("old.ovpn").read_text() and "tls-crypt-v2" not in Path("old.ovpn").read_text()
    )
    assert [row.wrap_key for row in EmbeddedCa.open(server).certificates() if row.name == "old"] == [""]
    change_wrap(mode="tls-crypt", key=key)
    status, _, errors = bridged("invite", "new", "--state", "state", "--config", "server.yaml")
    assert status == 2 and "mode: tls-crypt-v2" in errors


def test_without_the_server_s_configuration_an_old_client_s_invitation_says_what_it_needs(bridged, server):
    words = ("invite", "old", "--old-client", "--state", "state", "--config", "missing.yaml")
    status, _, errors = bridged(*words, "--output", "old.ovpn")
    assert status == 0 and "old_clients_key: " in errors


def test_a_ca_of_an_earlier_version_gets_both_wraps_where_asked(bridged):
    EmbeddedCa.create(Path("state")).issue("early", "client")
    words = ("init", "--state", "state", "--remote", "hub.example.net", "--output")
    assert bridged(*words, "before.yaml")[0] == 0 and "mode: tls-crypt\n" in Path("before.yaml").read_text()
    status, _, errors = bridged(*words, "both.yaml", "--old-clients")
    text = Path("both.yaml").read_text()
    assert status == 0 and "mode: tls-crypt-v2" in text and "      old_clients_key: " in text
    assert "before you invite" in errors
    status, _, errors = bridged(*words, "after.yaml")
    assert status == 0 and "early" in errors and "--old-clients" in errors
    status, _, _ = bridged("invite", "new", "--state", "state", "--config", "both.yaml", "--output", "n.ovpn")
    assert status == 0 and "<tls-crypt-v2>" in Path("n.ovpn").read_text()
