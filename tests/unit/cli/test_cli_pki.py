"""`bridged init`, `invite`, `join` as a user calls them: exit status, files, modes, messages."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from bridged.configuration import load
from bridged.pki import EmbeddedCa, tls_crypt_v2_key_path
from bridged.profiles import parse_profile


def mode(path):
    return stat.S_IMODE(Path(path).stat().st_mode)


def test_init_writes_a_configuration_that_the_daemon_takes(bridged, server):
    configuration = load(Path("server.yaml"))
    tunnel = configuration.tunnels["server"]
    assert configuration.state_directory == server.absolute()
    assert configuration.bridges["br0"].ports == ("eth1",)
    assert tunnel.role == "server" and tunnel.tls.embedded and tunnel.wrap.mode == "tls-crypt-v2"
    assert Path(tunnel.wrap.key).is_file() and mode(tunnel.wrap.key) == 0o600
    assert EmbeddedCa.open(server).remote == "hub.example.net:1194"


def test_init_without_output_prints_the_configuration_and_nothing_else(bridged, tmp_path):
    status, out, errors = bridged("init", "--state", "s", "--remote", "192.0.2.1:5000", "--bridge", "lan")
    assert status == 0
    (tmp_path / "x.yaml").write_text(out)
    configuration = load(tmp_path / "x.yaml")
    assert configuration.tunnels["server"].listen == "[::]:5000" and "lan" in configuration.bridges
    assert "made the CA" in errors and "made the CA" not in out


def test_init_says_how_a_drop_in_is_loaded_and_how_a_file_of_its_own_is_started(bridged, tmp_path):
    (tmp_path / "conf.d").mkdir()
    words = ("init", "--state", "s", "--remote", "hub.example.net", "--output")
    _, _, errors = bridged(*words, "conf.d/first.yaml")
    assert "start it with `bridged run --config conf.d/first.yaml`" in errors
    (tmp_path / "bridged.yaml").touch()
    _, _, errors = bridged(*words, "conf.d/second.yaml")
    assert f"load it with `bridged reload --config {tmp_path}/bridged.yaml`" in errors
    _, _, errors = bridged(*words, "third.yaml")
    assert "start it with `bridged run --config third.yaml`" in errors


def test_init_again_with_the_same_words_changes_nothing(bridged, server):
    before = {path: path.read_bytes() for path in server.rglob("*") if path.is_file()}
    status, _, errors = bridged(
        "init", "--state", "state", "--remote", "hub.example.net", "--port", "eth1", "--output", "server.yaml"
    )
    assert status == 0 and "kept the CA" in errors
    assert before == {path: path.read_bytes() for path in server.rglob("*") if path.is_file()}


def test_init_for_another_remote_is_refused_and_changes_nothing(bridged, server):
    before = {path: path.read_bytes() for path in server.rglob("*") if path.is_file()}
    status, out, errors = bridged("init", "--state", "state", "--remote", "other.example.net")
    assert status == 2 and out == "" and "made for hub.example.net:1194" in errors
    assert before == {path: path.read_bytes() for path in server.rglob("*") if path.is_file()}


def test_init_for_another_remote_completes_nothing_first(bridged, server):
    key = tls_crypt_v2_key_path(server)
    key.unlink()
    assert bridged("init", "--state", "state", "--remote", "other.example.net")[0] == 2
    assert not key.exists()


def test_invite_again_with_an_unusable_configuration_changes_nothing(bridged, server):
    assert bridged("invite", "site-b", "--state", "state", "--output", "b.ovpn")[0] == 0
    Path("bad.yaml").write_text("admin: {socket: 3}\n")
    before = EmbeddedCa.open(server).certificates()
    again = (
        "invite",
        "site-b",
        "--state",
        "state",
        "--replace",
        "--output",
        "c.ovpn",
        "--config",
        "bad.yaml",
    )
    assert bridged(*again)[0] == 2
    assert EmbeddedCa.open(server).certificates() == before and not Path("c.ovpn").exists()


def test_init_overwrites_no_other_file(bridged):
    Path("server.yaml").write_text("mine")
    status, _, errors = bridged("init", "--state", "s", "--remote", "h", "--output", "server.yaml")
    assert status == 2 and "already exists" in errors
    assert Path("server.yaml").read_text() == "mine" and not Path("s").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("--remote", "h:99999"),
        ("--remote", ""),
        ("--remote", "a b"),
        ("--remote", "h\nca x"),
        ("--remote", "h", "--bridge", "a/b"),
        ("--remote", "h", "--bridge", 'x"y: {'),
        ("--remote", "h", "--port", "a:b"),
        ("--remote", "h", "--port", "br0"),
        ("--remote", "h", "--output", "missing/server.yaml"),
        (),
    ],
)
def test_init_with_wrong_words_ends_with_2_and_makes_nothing(bridged, arguments):
    status, out, errors = bridged("init", "--state", "s", *arguments)
    assert status == 2 and out == "" and errors
    assert not Path("s").exists()


def test_invite_writes_a_private_file_that_join_turns_into_a_client(bridged, server):
    status, out, errors = bridged("invite", "site-b", "--state", "state", "--output", "site-b.ovpn")
    assert status == 0 and out == "" and "site-b" in errors
    assert mode("site-b.ovpn") == 0o600
    status, out, errors = bridged(
        "join",
        "site-b.ovpn",
        "--bridge",
        "br0",
        "--port",
        "eth2",
        "--state",
        "far",
        "--output",
        "client.yaml",
    )
    assert status == 0, errors
    assert "warning" not in errors and mode("client.yaml") == 0o600
    configuration = load(Path("client.yaml"))
    tunnel = configuration.tunnels["site-b"]
    assert tunnel.role == "client" and tunnel.remotes == ("hub.example.net:1194",)
    assert configuration.bridges["br0"].ports == ("eth2",)
    for value in (tunnel.tls.ca, tunnel.tls.certificate, tunnel.tls.key, tunnel.wrap.key):
        assert mode(value) == 0o600 and Path(value).is_relative_to(Path("far").absolute())
    assert mode("far") == mode("far/joined") == mode("far/joined/site-b") == 0o700


def test_an_invitation_to_a_server_with_passwords_becomes_a_client_with_a_login(bridged, server):
    bridged("invite", "site-b", "--password", "--state", "state", "--output", "site-b.ovpn")
    status, _, errors = bridged("join", "site-b.ovpn", "--bridge", "br0", "--output", "client.yaml")
    assert status == 0 and "login.password" in errors
    assert load(Path("client.yaml")).tunnels["site-b"].login.password == str(Path("site-b.login").absolute())


def test_join_without_state_keeps_everything_in_the_one_file(bridged, server, tmp_path):
    bridged("invite", "site-b", "--state", "state", "--output", "site-b.ovpn")
    status, out, _ = bridged("join", "site-b.ovpn", "--bridge", "br0")
    assert status == 0
    (tmp_path / "client.yaml").write_text(out)
    tls = load(tmp_path / "client.yaml").tunnels["site-b"].tls
    assert tls.key.startswith("-----BEGIN PRIVATE KEY-----") and tls.ca.startswith("-----BEGIN CERT")


def test_invitation_on_stdout_is_the_profile_alone(bridged, server):
    status, out, errors = bridged("invite", "site-b", "--state", "state")
    assert status == 0 and "PRIVATE" not in errors
    assert parse_profile(out, "stdout").remotes[0].server.host == "hub.example.net"


def test_invite_of_a_taken_or_bad_name_ends_with_2(bridged, server):
    assert bridged("invite", "site-b", "--state", "state")[0] == 0
    status, out, errors = bridged("invite", "site-b", "--state", "state")
    assert status == 2 and out == "" and "already exists" in errors
    status, out, errors = bridged("invite", "../x", "--state", "state")
    assert status == 2 and "cannot be a peer's name" in errors


def test_invite_without_a_ca_says_how_to_make_one(bridged):
    status, _, errors = bridged("invite", "a", "--state", "nowhere")
    assert status == 2 and "bridged init" in errors and not Path("nowhere").exists()


def test_invite_overwrites_no_file_and_uses_up_no_name(bridged, server):
    Path("b.ovpn").write_text("mine")
    status, _, errors = bridged("invite", "site-b", "--state", "state", "--output", "b.ovpn")
    assert status == 2 and "already exists" in errors and Path("b.ovpn").read_text() == "mine"
    assert bridged("invite", "site-b", "--state", "state")[0] == 0


def test_invite_asks_for_the_remote_where_the_daemon_made_the_ca(bridged):
    EmbeddedCa.ensure(Path("state"))
    status, _, errors = bridged("invite", "a", "--state", "state")
    assert status == 2 and "--remote" in errors
    status, out, _ = bridged("invite", "a", "--state", "state", "--remote", "[2001:db8::1]:5000")
    assert status == 0 and "remote 2001:db8::1 5000\n" in out


def test_init_keeps_the_ca_that_the_daemon_made(bridged):
    made = EmbeddedCa.ensure(Path("state")).certificate_pem
    assert bridged("init", "--state", "state", "--remote", "hub")[0] == 0
    assert EmbeddedCa.open(Path("state")).certificate_pem == made


def test_join_names_file_and_line_of_what_it_refuses(bridged, server):
    _, out, _ = bridged("invite", "site-b", "--state", "state")
    Path("bad.ovpn").write_text(out.replace("dev tap\n", "dev tap\nno-replay\nno-iv\n"))
    line = 1 + Path("bad.ovpn").read_text().splitlines().index("no-replay")
    status, out, errors = bridged("join", "bad.ovpn", "--bridge", "br0", "--state", "far")
    assert status == 2 and out == "" and not Path("far").exists()
    assert f"bad.ovpn:{line}: no-replay: " in errors and f"bad.ovpn:{line + 1}: no-iv: " in errors


def test_join_reads_the_files_that_a_profile_names(bridged, server):
    _, out, _ = bridged("invite", "site-b", "--state", "state")
    profile = parse_profile(out, "x")
    Path("keys").mkdir()
    for name in ("ca", "certificate", "key", "wrap_key"):
        Path("keys", name).write_text(getattr(profile, name).text)
    lines = out[: out.index("<ca>")] + "cd keys\nca ca\ncert certificate\nkey key\ntls-crypt-v2 wrap_key\n"
    Path("files.ovpn").write_text(lines)
    status, out, errors = bridged("join", "files.ovpn", "--bridge", "br0", "--state", "far")
    assert status == 0, errors
    assert Path("far/joined/files/client.key").read_text().strip() == profile.key.text.strip()
    Path("keys/key").unlink()
    number = 1 + lines.splitlines().index("key key")
    status, _, errors = bridged("join", "files.ovpn", "--bridge", "br0")
    assert status == 2 and f"files.ovpn:{number}: key: " in errors and "No such file" in errors


def test_join_is_not_held_up_by_a_pipe_that_a_profile_names(bridged, server):
    _, out, _ = bridged("invite", "site-b", "--state", "state")
    os.mkfifo("pipe")
    Path("bad.ovpn").write_text(out + "crl-verify pipe\n")
    status, out, errors = bridged("join", "bad.ovpn", "--bridge", "br0")
    assert status == 2 and out == ""
    assert "crl-verify: " in errors and "not a regular file" in errors


def test_the_name_of_a_profile_cannot_bring_keys_into_the_configuration(bridged, server):
    name = "site-b\nstate_directory: evil\n#.ovpn".replace("/", "")
    bridged("invite", "site-b", "--state", "state", "--output", name)
    status, _, errors = bridged("join", name, "--bridge", "br0", "--output", "client.yaml")
    assert status == 0, errors
    assert "evil" not in str(load(Path("client.yaml")).state_directory)


@pytest.mark.parametrize("tag", ["ca", "cert", "key", "tls-crypt-v2"])
def test_join_refuses_material_that_the_daemon_could_not_use(bridged, server, tag):
    _, out, _ = bridged("invite", "site-b", "--state", "state")
    start, end = out.index(f"<{tag}>") + len(tag) + 3, out.index(f"</{tag}>")
    Path("bad.ovpn").write_text(out[:start] + "junk\n" + out[end:])
    status, _, errors = bridged("join", "bad.ovpn", "--bridge", "br0", "--state", "far")
    assert status == 2 and "bad.ovpn" in errors and tag in errors and not Path("far").exists()


def test_join_refuses_a_key_of_another_certificate(bridged, server):
    _, first, _ = bridged("invite", "a", "--state", "state")
    _, second, _ = bridged("invite", "b", "--state", "state")
    mixed = first[: first.index("<key>")] + second[second.index("<key>") :]
    Path("mixed.ovpn").write_text(mixed)
    status, _, errors = bridged("join", "mixed.ovpn", "--bridge", "br0")
    assert status == 2 and "does not belong" in errors


def test_join_replaces_no_keys_of_another_server(bridged, server):
    for name in ("a", "b"):
        bridged("invite", name, "--state", "state", "--output", f"{name}.ovpn")
    assert bridged("join", "a.ovpn", "--bridge", "br0", "--state", "far")[0] == 0
    assert bridged("join", "a.ovpn", "--bridge", "br0", "--state", "far")[0] == 0
    Path("b.ovpn").replace("a.ovpn")
    status, _, errors = bridged("join", "a.ovpn", "--bridge", "br0", "--state", "far")
    assert status == 2 and "joined another server" in errors


@pytest.mark.parametrize("content", [b"\xff\xfe", b"", b"junk", b"\0" * 10, b"x" * 2_000_000])
def test_join_of_something_else_ends_with_2(bridged, content):
    Path("x.ovpn").write_bytes(content)
    status, out, errors = bridged("join", "x.ovpn", "--bridge", "br0")
    assert status == 2 and out == "" and errors.startswith("x.ovpn")


def test_join_of_a_missing_file_or_bad_bridge_ends_with_2(bridged, server):
    status, _, errors = bridged("join", "none.ovpn", "--bridge", "br0")
    assert status == 2 and "none.ovpn" in errors
    bridged("invite", "site-b", "--state", "state", "--output", "b.ovpn")
    status, _, errors = bridged("join", "b.ovpn", "--bridge", "not/a/name", "--state", "far")
    assert status == 2 and not Path("far").exists()


def test_warnings_of_the_profile_go_to_stderr(bridged, server):
    _, out, _ = bridged("invite", "site-b", "--state", "state")
    Path("w.ovpn").write_text("route 10.0.0.0 255.0.0.0\n" + out)
    status, out, errors = bridged("join", "w.ovpn", "--bridge", "br0")
    assert status == 0 and "w.ovpn:1: warning: `route`" in errors and "warning" not in out


def test_output_dash_is_standard_output(bridged, tmp_path):
    status, out, errors = bridged(
        "init", "--state", "s", "--remote", "hub.example.net", "--port", "eth1", "--output", "-"
    )
    assert status == 0 and "role: server" in out, errors
    status, out, errors = bridged("invite", "a", "--state", "s", "--output", "-")
    assert status == 0 and out.startswith("# Profile of a"), errors
    Path("a.ovpn").write_text(out)
    status, out, errors = bridged("join", "a.ovpn", "--bridge", "br0", "--output", "-")
    assert status == 0 and "role: client" in out, errors
    assert not (tmp_path / "-").exists()
