"""The file as a whole: what is accepted, and how what is refused is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridged.configuration import Configuration, load
from bridged.configuration.load import parse
from bridged.errors import ConfigurationError, ConfigurationErrors

FILE = Path("/etc/bridged/site.yaml")
SERVER = """\
bridges:
  br0:
    ports: [eth1]
tunnels:
  main:
    role: server
    bridge: br0
    tls: {embedded: true}
"""
CLIENT = """\
bridges: {br0: {}}
tunnels:
  office:
    role: client
    bridge: br0
    remotes: ["vpn.example.net"]
    tls: {ca: ca.crt, certificate: own.crt, key: own.key}
"""


def errors_of(text: str) -> list[ConfigurationError]:
    with pytest.raises(ConfigurationErrors) as caught:
        parse(text, FILE)
    return list(caught.value.errors)


def only_error(text: str) -> tuple[int | None, str, str]:
    (error,) = errors_of(text)
    assert error.file == FILE
    return error.line, error.key, error.reason


def test_a_small_server_takes_the_defaults() -> None:
    configuration = parse(SERVER, FILE)
    assert configuration.state_directory == Path("/var/lib/bridged")
    assert configuration.tunnels["main"].keepalive.ping_seconds == 10
    assert configuration.bridges["br0"].ports == ("eth1",)


def test_endpoints_get_their_default_port() -> None:
    assert parse(CLIENT, FILE).tunnels["office"].remotes == ("vpn.example.net:1194",)


def test_a_misspelt_key_is_told_with_line_and_suggestion() -> None:
    assert only_error(SERVER.replace("ports:", "port:")) == (
        3,
        "bridges.br0.port",
        "unknown key; did you mean `ports`?",
    )


def test_a_key_in_the_wrong_place_is_told_where_it_belongs() -> None:
    line, key, reason = only_error(SERVER + "ports: [eth2]\n")
    assert (line, key) == (9, "ports")
    assert "`bridges.NAME.ports`" in reason


def test_an_unknown_key_spelt_like_none_lists_the_known_ones() -> None:
    line, key, reason = only_error(SERVER + "log: {colour: red}\n")
    assert (line, key) == (9, "log.colour")
    assert reason == "unknown key; known here: level, format"


def test_a_wrong_word_is_told_with_the_allowed_ones_and_a_suggestion() -> None:
    line, key, reason = only_error(SERVER.replace("role: server", "role: serve"))
    assert (line, key) == (6, "tunnels.main.role")
    assert reason == "must be 'server' or 'client', not 'serve'; did you mean 'server'?"


def test_alternatives_of_one_key_are_one_error() -> None:
    line, key, reason = only_error(SERVER + "    mss: huge\n")
    assert (line, key) == (9, "tunnels.main.mss")
    assert reason == "must be 'auto' or 'off' or a whole number, not 'huge'; for example `mss: 1300`"


@pytest.mark.parametrize("value", ["off", "pcp", "dscp"])
def test_priority_is_off_unless_told_otherwise(value: str) -> None:
    assert parse(SERVER, FILE).tunnels["main"].priority == "off"
    assert parse(f"{SERVER}    priority: {value}\n", FILE).tunnels["main"].priority == value


@pytest.mark.parametrize("value", ["high", "true", "5", "PCP"])
def test_another_priority_is_told_with_what_there_is(value: str) -> None:
    line, key, reason = only_error(f"{SERVER}    priority: {value}\n")
    assert (line, key) == (9, "tunnels.main.priority")
    assert reason.startswith("must be 'off', 'pcp' or 'dscp', not ")


def test_a_missing_key_is_told_at_its_section() -> None:
    assert only_error(SERVER.replace("    bridge: br0\n", "")) == (
        5,
        "tunnels.main.bridge",
        "is missing; for example `bridge: br0`",
    )


def test_a_bridge_that_is_not_there_is_told_with_the_line() -> None:
    line, key, reason = only_error(SERVER.replace("bridge: br0", "bridge: br1"))
    assert (line, key) == (7, "tunnels.main.bridge")
    assert "did you mean 'br0'?" in reason


def test_several_errors_are_all_reported_one_a_line_in_file_order() -> None:
    text = SERVER.replace("ports:", "prots:").replace("server", "sever").replace("embedded", "embeded")
    with pytest.raises(ConfigurationErrors) as caught:
        parse(text, FILE)
    lines = str(caught.value).splitlines()
    assert [line.split(": ")[0] for line in lines] == [f"{FILE}:3", f"{FILE}:6", f"{FILE}:8"]
    assert caught.value.line == 3


def test_a_bad_port_is_told_at_the_key_that_has_it() -> None:
    line, key, _ = only_error(SERVER + '    listen: "[::]:70000"\n')
    assert (line, key) == (9, "tunnels.main.listen")
    line, key, _ = only_error(CLIENT.replace("vpn.example.net", "a:b:1"[:3]))
    assert (line, key) == (6, "tunnels.office.remotes")


@pytest.mark.parametrize(
    "host", ["q[::]", "a b", "-a", "bad/host", "a..b\x00", "ä.example", "[::1", "x" * 300]
)
def test_a_host_is_an_address_or_a_name(host: str) -> None:
    line, key, _ = only_error(CLIENT.replace("vpn.example.net", host.replace("\x00", "\\0")))
    assert (line, key) == (6, "tunnels.office.remotes")


def test_a_server_listens_on_addresses_not_names() -> None:
    line, key, reason = only_error(SERVER + "    listen: vpn.example.net:1194\n")
    assert (line, key) == (9, "tunnels.main.listen")
    assert "IP address" in reason


def test_a_rule_over_two_keys_points_at_the_one_in_the_file() -> None:
    line, key, reason = only_error(CLIENT + "    listen: 0.0.0.0:1194\n")
    assert (line, key) == (8, "tunnels.office.listen")
    assert "for servers" in reason


def test_infinite_and_undefined_numbers_are_refused() -> None:
    for value in (".inf", ".nan"):
        _, key, reason = only_error(SERVER + f"    keepalive: {{ping_seconds: {value}}}\n")
        assert key == "tunnels.main.keepalive.ping_seconds"
        assert "finite" in reason


def test_tls_versions_need_no_quotes() -> None:
    text = SERVER.replace("{embedded: true}", "{embedded: true, version_min: 1.3}")
    assert parse(text, FILE).tunnels["main"].tls.version_min == "1.3"


def test_words_such_as_on_are_no_booleans() -> None:
    assert parse(SERVER + "    coalesce: on\n", FILE).tunnels["main"].coalesce == "on"
    assert parse(SERVER + "    mss: off\n", FILE).tunnels["main"].mss == "off"


def test_relative_paths_count_from_the_folder_of_the_file() -> None:
    extra = "state_directory: state\nadmin: {socket: run/s.sock}\nmetrics: {bearer_token_file: /etc/t}\n"
    configuration = parse(CLIENT + extra, FILE)
    assert configuration.state_directory == Path("/etc/bridged/state")
    assert configuration.admin.socket == Path("/etc/bridged/run/s.sock")
    assert configuration.metrics.bearer_token_file == Path("/etc/t")
    assert configuration.tunnels["office"].tls.key == "/etc/bridged/own.key"


def test_inline_pem_is_left_as_it_is() -> None:
    text = CLIENT.replace(
        "{ca: ca.crt, certificate: own.crt, key: own.key}",
        "\n      ca: |\n        -----BEGIN CERTIFICATE-----\n        AA==\n"
        "        -----END CERTIFICATE-----\n"
        "      certificate: own.crt\n      key: own.key",
    )
    ca = parse(text, FILE).tunnels["office"].tls.ca
    assert ca is not None
    assert ca.startswith("-----BEGIN CERTIFICATE-----\nAA==")


def test_key_material_is_not_repeated_in_a_message() -> None:
    text = CLIENT.replace("key: own.key", "key: [hunter2]")
    line, key, reason = only_error(text)
    assert (line, key) == (7, "tunnels.office.tls.key")
    assert "hunter2" not in reason
    assert "12345" not in str(errors_of(CLIENT.replace("key: own.key", "key: 12345")))


@pytest.mark.parametrize("text", ["- a\n- b\n", "just text", "5"])
def test_a_file_that_is_no_mapping_is_refused(text: str) -> None:
    assert "`bridges:` and `tunnels:`" in only_error(text)[2]


def test_the_file_is_read_from_disk(tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    path.write_text(SERVER, encoding="utf-8")
    assert isinstance(load(path), Configuration)


def test_a_file_that_cannot_be_read_is_a_configuration_error(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.yaml", tmp_path, Path("a\0b")):
        with pytest.raises(ConfigurationErrors, match="cannot be read"):
            load(path)


def test_a_file_that_is_not_utf8_is_told_with_the_line(tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    path.write_bytes(b"a: 1\nb: \xff\n")
    with pytest.raises(ConfigurationErrors) as caught:
        load(path)
    assert caught.value.line == 2
