"""What is said about a value that is refused: our words, and the line to write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from bridged.configuration.examples import example_value
from bridged.configuration.keys import all_keys
from bridged.configuration.load import load, parse
from bridged.configuration.reasons import OPENVPN_KEYS
from bridged.configuration.schema import Configuration
from bridged.configuration.tunnel import Tunnel
from bridged.errors import ConfigurationError

FILE = Path("/etc/bridged/site.yaml")
MINIMAL: dict[str, Any] = {
    "bridges": {"br0": {}},
    "tunnels": {"main": {"role": "server", "bridge": "br0", "tls": {"embedded": True}}},
}
WRONG_VALUES: list[Any] = [None, True, -7, 10**40, 0.5, float("nan"), "", "?", "a: b", [], [[]], {}, {"?": 1}]
FOREIGN_WORDS = (
    "Input should",
    "valid ",
    "Tuple",
    "String should",
    "unable to parse",
    "<class",
    "True",
    "None",
)


def said(text: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        parse(text, FILE)
    return str(caught.value)


def with_value(pattern: str, value: Any) -> dict[str, Any]:
    """The minimal configuration with one key changed."""
    document: dict[str, Any] = yaml.safe_load(yaml.safe_dump(MINIMAL))
    *sections, name = pattern.split(".")
    place = document
    for depth, section in enumerate(sections):
        if section == "NAME":
            section = NAMES[sections[depth - 1]]
        place = place.setdefault(section, {})
    place[name] = value
    return document


def in_tunnel(line: str) -> str:
    section = f"{{role: server, bridge: br0, tls: {{embedded: true}}, {line}}}"
    return f"bridges: {{br0: {{}}}}\ntunnels:\n\n\n\n\n  main: {section}\n"


NAMES = {"bridges": "br0", "tunnels": "main", "remote_sizes": "vpn.example.net:1194", "clients": "site-b"}
PATTERNS = [key.path for key in all_keys()]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_key_has_an_example_and_the_schema_takes_it(pattern: str) -> None:
    text = example_value(pattern)
    assert text is not None, f"add an example of {pattern} to bridged/configuration/examples.py"
    # Booleans and numbers as this program reads YAML: MAC addresses and the like are text.
    value = parse_value(text)
    try:
        Configuration.model_validate(with_value(pattern, value))
    except ValidationError as error:
        # What goes with a role or another key is refused for that; the value itself is right.
        assert all(
            detail["type"] == "value_error" and detail["loc"][-1] != pattern.rpartition(".")[2]
            for detail in error.errors()
        ), error


def parse_value(text: str) -> Any:
    from bridged.configuration.document import parse_document, plain

    return plain(parse_document(f"value: {text}"))["value"]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_no_wrong_value_of_any_key_is_refused_in_the_words_of_a_library(pattern: str) -> None:
    for value in WRONG_VALUES:
        try:
            parse(yaml.safe_dump(with_value(pattern, value), width=1000), FILE)
        except ConfigurationError as error:
            for word in FOREIGN_WORDS:
                assert word not in str(error), str(error)


@pytest.mark.parametrize(
    ("line", "cure"),
    [
        ("listen: 1194", 'write `listen: "[::]:1194"`'),
        ("listen: 5000", 'write `listen: "[::]:5000"`'),
        ("listen: ':1194'", 'for example `listen: "[::]:1194"`'),
        ("listen: vpn.example.net:1194", 'for example `listen: "[::]:1194"`'),
        ("proto: tcp", "write `transport: tcp`"),
        ("tap: {off: true}", "did you mean `offload`?"),
        ("wrap: {cert: x}", "known here: mode, key"),
        ("ciphers: AES-256-GCM", "write `ciphers: [AES-256-GCM]`"),
        ("push: route 1", 'write `push: ["route 1"]`'),
        ("keepalive: 10 60", "`keepalive: {ping_seconds: 10, restart_seconds: 60}`"),
        ("keepalive: {ping_seconds: 1:30}", "must be a number, not '1:30'"),
        ("coalesce: yes", "write `on`"),
        ("coalesce: false", "not false; write `off`"),
        ("exit_notify: perhaps", "must be true or false"),
        ("mss: true", "not true"),
        ("peers_max: 0", "must be at least 1, not 0"),
        ("tap: {mac: 525400123456}", "`mac: random`"),
        (
            "ciphers: [BF-CBC]",
            "must be 'AES-256-GCM', 'AES-128-GCM', 'CHACHA20-POLY1305', 'AES-192-GCM', 'AES-256-CBC', "
            "'AES-192-CBC' or 'AES-128-CBC', not 'BF-CBC'",
        ),
    ],
)
def test_a_wrong_value_is_refused_with_the_line_to_write(line: str, cure: str) -> None:
    message = said(in_tunnel(line))
    assert message.startswith(f"{FILE}:7: ") and cure in message and "\n" not in message


@pytest.mark.parametrize(
    ("bridge", "cure"),
    [
        ("ports: eth1", "write `ports: [eth1]`"),
        ("addresses: [192.0.2.1]", "write 192.0.2.1/24"),
        ("addresses: ['2001:db8::1']", "write 2001:db8::1/64"),
        ("addresses: 192.0.2.1/24", "write `addresses: [192.0.2.1/24]`"),
        ("addresses: [192.0.2.256/24]", "as 192.0.2.1/24"),
        ("ports: [a b]", "1 to 15 ASCII characters"),
        ("mac: 525400123456", "`mac: 02:00:5e:10:00:01`"),
    ],
)
def test_a_wrong_bridge_is_refused_with_the_line_to_write(bridge: str, cure: str) -> None:
    assert cure in said(f"bridges: {{br0: {{{bridge}}}}}\ntunnels: {{}}\n")


@pytest.mark.parametrize("mac", ["52:54:00:12:34:56", "02:00:00:00:00:10", "20:30:40:50:10:12"])
def test_a_mac_address_without_quotes_is_no_number(mac: str) -> None:
    assert parse(f"bridges: {{br0: {{mac: {mac}}}}}\ntunnels: {{}}\n", FILE).bridges["br0"].mac == mac


@pytest.mark.parametrize(("word", "meaning"), [("yes", True), ("no", False), ("on", True), ("off", False)])
def test_yes_and_no_are_booleans_where_one_is_wanted(word: str, meaning: bool) -> None:
    assert parse(in_tunnel(f"exit_notify: {word}"), FILE).tunnels["main"].exit_notify is meaning


def test_every_openvpn_word_is_answered_with_our_key() -> None:
    for word in OPENVPN_KEYS:
        message = said(in_tunnel(f"{word.replace('_', '-')}: x"))
        assert OPENVPN_KEYS[word] in message
    assert not set(OPENVPN_KEYS) & set(Tunnel.model_fields)


@pytest.mark.parametrize(
    "text",
    [
        "client\ndev tap\nremote hub 1194\n<ca>\n-----BEGIN CERTIFICATE-----\n</ca>\n",
        "client\ndev tap\nproto udp\nremote hub 1194\n",
        "# c\n  dev tap0\r\n  remote hub\r\n",
    ],
)
def test_an_openvpn_profile_given_as_configuration_is_called_so_with_the_command(text: str) -> None:
    assert said(text).startswith(f"{FILE}: is an OpenVPN profile") and "bridged join" in said(text)


def test_a_file_in_another_encoding_is_refused_with_the_command_that_converts_it(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    for encoding, name in (("latin-1", "ISO-8859-1"), ("utf-16", "UTF-16")):
        file.write_bytes("# Büro\n".encode(encoding))
        with pytest.raises(ConfigurationError, match=f"iconv -f {name} -t UTF-8"):
            load(file)


def test_a_tab_that_indents_is_called_so() -> None:
    assert "indent the line with spaces" in said("bridges:\n\tbr0: {}\n")


def test_a_client_without_tls_is_shown_a_client_s_line() -> None:
    text = said("bridges: {br0: {}}\ntunnels: {c: {role: client, bridge: br0, remotes: [hub]}}\n")
    assert "tunnels.c.tls: is missing; for example `tls: {ca: ca.crt, certificate: site.crt" in text


def test_the_words_of_a_key_in_another_order_are_known() -> None:
    assert "did you mean `peers_max`?" in said(in_tunnel("max_peers: 4"))
