"""Drop-ins: what is merged, in which order, and how errors and secrets find their file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from bridged.configuration import load, load_admin
from bridged.configuration.drop_ins import DROP_INS_MAX, find_unread, find_writable
from bridged.configuration.load import load_merged
from bridged.configuration.merged_text import merged_text
from bridged.configuration.secrets import find_exposed_secrets
from bridged.errors import ConfigurationErrors

MAIN = """\
# The appliance.
log: {level: info}
bridges:
  br0:
    ports: [eth1, eth2]
tunnels: {}
"""
SERVER = """\
tunnels:
  main:
    role: server
    bridge: br0
    tls: {embedded: true}
"""


@pytest.fixture
def main(tmp_path: Path) -> Path:
    (tmp_path / "conf.d").mkdir()
    file = tmp_path / "bridged.yaml"
    file.write_text(MAIN)
    return file


def drop_in(main: Path, name: str, text: str) -> Path:
    file = main.parent / "conf.d" / name
    file.write_text(text)
    return file


def errors_of(main: Path) -> list[tuple[str, int | None, str]]:
    with pytest.raises(ConfigurationErrors) as caught:
        load(main)
    return [(Path(str(error.file)).name, error.line, error.key) for error in caught.value.errors]


def test_mappings_merge_deeply_and_the_later_name_wins(main):
    drop_in(main, "20-late.yaml", "log: {level: debug}\nbridges: {br0: {mtu: 1400}}\n")
    drop_in(main, "10-early.yaml", "log: {level: error, format: json}\n" + SERVER)
    configuration = load(main)
    assert (configuration.log.level, configuration.log.format) == ("debug", "json")
    assert (configuration.bridges["br0"].ports, configuration.bridges["br0"].mtu) == (("eth1", "eth2"), 1400)
    assert list(configuration.tunnels) == ["main"]


def test_a_list_replaces_a_list(main):
    drop_in(main, "ports.yaml", "bridges: {br0: {ports: [eth9]}}\n")
    assert load(main).bridges["br0"].ports == ("eth9",)


def test_hidden_files_backups_and_other_endings_are_left_out(main):
    for name in (".hidden.yaml", "a.yaml~", "a.yaml.dpkg-old", "a.yml", "README"):
        drop_in(main, name, "nonsense: true\n")
    assert load(main).log.level == "info"


def test_a_file_of_comments_alone_changes_nothing_nor_does_a_main_file_of_comments(main):
    drop_in(main, "a.yaml", "# log: {level: debug}\n\n")
    assert load(main).log.level == "info"
    main.write_text("# everything is in conf.d\n")
    drop_in(main, "b.yaml", "bridges: {}\ntunnels: {}\n")
    assert not load(main).bridges


def test_without_any_value_the_main_file_is_refused(main):
    main.write_text("# nothing\n")
    drop_in(main, "a.yaml", "# nothing\n")
    assert errors_of(main) == [("bridged.yaml", None, "")]


def test_an_error_names_the_file_and_the_line_in_it(main):
    drop_in(main, "10.yaml", "log:\n  level: info\n  colour: red\n")
    drop_in(main, "20.yaml", "# twice\n\nbridges:\n  br0:\n    mtu: small\n")
    drop_in(main, "30.yaml", "tunnels:\n  x:\n    role: server\n    bridge: br1\n    tls: {embedded: true}\n")
    assert errors_of(main) == [
        ("10.yaml", 3, "log.colour"),
        ("20.yaml", 5, "bridges.br0.mtu"),
    ]
    drop_in(main, "10.yaml", "")
    drop_in(main, "20.yaml", "")
    assert errors_of(main) == [("30.yaml", 4, "tunnels.x.bridge")]


def test_every_file_that_is_no_yaml_is_named_with_its_own_line(main):
    drop_in(main, "10.yaml", "log: {}\nlog: {}\n")
    drop_in(main, "20.yaml", "\n\nlog: [\n")
    with pytest.raises(ConfigurationErrors) as caught:
        load(main)
    first, second = caught.value.errors
    assert (Path(str(first.file)).name, first.line) == ("10.yaml", 2) and "first in line 1" in first.reason
    assert Path(str(second.file)).name == "20.yaml" and second.line in (3, 4)


def test_relative_paths_start_from_the_folder_of_their_own_file(main):
    text = SERVER.replace("{embedded: true}", "{ca: ca.crt, certificate: s.crt, key: s.key}")
    drop_in(main, "a.yaml", text + "metrics: {bearer_token_file: token}\nadmin: {socket: a.sock}\n")
    main.write_text(MAIN + "state_directory: state\n")
    configuration = load(main)
    folder = main.parent / "conf.d"
    assert configuration.tunnels["main"].tls.key == str(folder / "s.key")
    assert configuration.metrics.bearer_token_file == folder / "token"
    assert load_admin(main) == (configuration.admin, main.parent / "state")


def test_the_socket_is_found_although_other_parts_are_wrong(main):
    drop_in(main, "a.yaml", "admin: {socket: /run/a.sock}\n")
    drop_in(main, "b.yaml", "log: {colour: red}\n")
    assert load_admin(main)[0].socket == Path("/run/a.sock")


def test_another_file_has_a_folder_of_its_own(main):
    drop_in(main, "a.yaml", "log: {level: debug}\n")
    other = main.parent / "branch.yaml"
    other.write_text(MAIN)
    assert load(other).log.level == "info"
    (main.parent / "branch.d").mkdir()
    (main.parent / "branch.d" / "a.yaml").write_text("log: {level: error}\n")
    assert load(other).log.level == "error"


def test_a_drop_in_that_cannot_be_read_is_an_error(main):
    os.symlink("nowhere", main.parent / "conf.d" / "a.yaml")
    assert errors_of(main) == [("a.yaml", None, "")]


@pytest.mark.parametrize("name", ["bridged.yaml", "conf.d/50-pipe.yaml"])
def test_a_pipe_or_device_is_an_error_and_holds_up_nobody(main, name):
    place = main.parent / name
    place.unlink(missing_ok=True)
    os.mkfifo(place)
    with pytest.raises(ConfigurationErrors, match=rf"{name}: cannot be read: not a regular file, but a pipe"):
        load(main)
    place.unlink()
    place.symlink_to("/dev/zero")
    with pytest.raises(ConfigurationErrors, match=rf"{name}: cannot be read: not a regular file"):
        load(main)


def test_the_number_of_drop_ins_is_bounded(main):
    for number in range(DROP_INS_MAX + 1):
        drop_in(main, f"{number}.yaml", "")
    with pytest.raises(ConfigurationErrors, match="at most"):
        load(main)


def test_a_key_inside_a_drop_in_that_others_may_read_is_reported_with_that_file(main):
    key = "-----BEGIN PRIVATE KEY-----\\nx\\n-----END PRIVATE KEY-----"
    text = SERVER.replace("{embedded: true}", f'{{ca: ca.crt, certificate: s.crt, key: "{key}"}}')
    file = drop_in(main, "a.yaml", text)
    file.chmod(0o644)
    main.chmod(0o600)
    ((path, warning),) = find_exposed_secrets(load(main))
    assert path == ("tunnels", "main", "tls", "key") and str(file) in warning
    file.chmod(0o600)
    main.chmod(0o644)
    assert find_exposed_secrets(load(main)) == []


def test_the_merged_text_means_the_same_names_every_place_and_hides_keys(main):
    key = "-----BEGIN PRIVATE KEY-----\\nsecret\\n-----END PRIVATE KEY-----"
    certificate = "-----BEGIN CERTIFICATE-----\\npublic\\n-----END CERTIFICATE-----"
    tls = f'{{ca: ca.crt, certificate: "{certificate}", key: "{key}"}}'
    file = drop_in(main, "a.yaml", SERVER.replace("{embedded: true}", tls) + "log: {level: debug}\n")
    text = merged_text(load_merged(main))
    assert "secret" not in text and "public" in text
    assert f"  level: debug  # {file}:6\n" in text
    assert f"    ports: [eth1, eth2]  # {main}:5\n" in text
    tree = yaml.safe_load(text)
    assert tree["tunnels"]["main"]["tls"]["certificate"].splitlines()[1] == "public"
    assert tree["bridges"] == {"br0": {"ports": ["eth1", "eth2"]}}


def test_a_key_in_a_wrong_place_or_on_one_line_is_hidden_too(main):
    main.write_text("a: [x, '-----BEGIN PRIVATE KEY----- SECRET']\nb: '-----BEGIN PRIVATE KEY----- SECRET'\n")
    text = merged_text(load_merged(main))
    assert "SECRET" not in text
    assert text.count("not shown") == 2


def test_keys_of_wraps_are_hidden(main):
    key = "-----BEGIN OpenVPN {}-----\n      SECRET\n      -----END OpenVPN {}-----"
    server, old = (key.format(label, label) for label in ("tls-crypt-v2 server key", "Static key V1"))
    main.write_text(f"w:\n  key: |\n      {server}\n  old_clients_key: |\n      {old}\n")
    text = merged_text(load_merged(main))
    assert "SECRET" not in text and text.count("not shown") == 2


def test_a_drop_in_with_another_ending_is_named(main):
    for name in ("10.yaml", "20.yml", "30.yaml~", ".40.yaml"):
        (main.parent / "conf.d" / name).write_text("")
    assert [one.name for one in find_unread(main)] == ["20.yml"]


def test_files_that_everybody_may_write_are_named(main):
    drop_in = main.parent / "conf.d" / "10.yaml"
    drop_in.write_text("")
    main.chmod(0o664)
    assert find_writable(main) == []
    drop_in.chmod(0o666)
    assert find_writable(main) == [drop_in]


def test_the_merged_text_hides_passwords_and_secrets_of_one_time_codes(tmp_path: Path) -> None:
    file = tmp_path / "bridged.yaml"
    login = '{username: alice, password: "battery\\nstaple", totp_secret: "JBSWY3DP\\n"}'
    file.write_text(
        "bridges: {br0: {}}\n"
        f"tunnels: {{a: {{role: client, bridge: br0, remotes: [h], tls: {{ca: c}}, login: {login}}}}}\n"
        "  \n"
    )
    text = merged_text(load_merged(file))
    assert "battery" not in text and "JBSWY3DP" not in text and "alice" in text
