"""Generated files and committed examples follow the schema."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from bridged.configuration import find_warnings, load, schema_json
from bridged.configuration.keys import all_keys, section_at
from bridged.configuration.protection import Tls
from bridged.configuration.schema import Bridge, Configuration
from bridged.telemetry.reference import pages

ROOT = Path(__file__).parents[3]
EXAMPLES = sorted((ROOT / "config").rglob("*.yaml"))


@pytest.mark.parametrize("name", sorted(pages()))
def test_generated_files_are_up_to_date(name: str) -> None:
    assert (ROOT / name).read_text(encoding="utf-8") == pages()[name], (
        f"{name} is behind; run `python -m bridged.telemetry.reference`"
    )


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_every_example_is_a_good_configuration_and_names_its_schema(path: Path) -> None:
    load(path)
    first = path.read_text(encoding="utf-8").splitlines()[0]
    prefix = "# yaml-language-server: $schema="
    assert first.startswith(prefix)
    assert (path.parent / first.removeprefix(prefix)).resolve() == ROOT / "config/bridged.schema.json"


def test_the_examples_are_there() -> None:
    names = {path.name for path in EXAMPLES}
    assert names >= {"bridged.yaml", "server.yaml", "client.yaml", "two-bridges.yaml"}


def test_the_default_configuration_is_a_server_that_needs_nothing_and_warns_of_nothing() -> None:
    configuration = load(ROOT / "config/bridged.yaml")
    (tunnel,) = configuration.tunnels.values()
    assert tunnel.role == "server"
    assert tunnel.tls.embedded
    assert configuration.bridges["br0"].ports == ()
    assert configuration.metrics.listen == "127.0.0.1:9743"
    assert find_warnings(configuration) == []


def test_the_schema_refuses_unknown_keys_in_every_section() -> None:
    schema = schema_json()
    sections = [schema, *schema["$defs"].values()]
    assert len(sections) >= 10
    assert all(section["additionalProperties"] is False for section in sections)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_every_key_of_the_examples_is_known_to_the_schema(path: Path) -> None:
    """An editor that follows the schema would not mark any key of our own examples."""
    schema = schema_json()

    def walk(value: Any, shape: dict[str, Any]) -> None:
        if "$ref" in shape:
            shape = schema["$defs"][shape["$ref"].rpartition("/")[2]]
        if not isinstance(value, dict):
            return
        inner = shape.get("additionalProperties") or next(
            iter(shape.get("patternProperties", {}).values()), None
        )
        for key, item in value.items():
            if key in shape.get("properties", {}):
                walk(item, shape["properties"][key])
            else:
                assert inner, f"{key} is not in the schema"
                walk(item, inner)

    walk(yaml.safe_load(path.read_text(encoding="utf-8")), schema)


def test_every_key_says_what_it_means_or_has_a_name_that_does() -> None:
    undescribed = {key.path for key in all_keys() if not key.description}
    assert undescribed <= {
        "bridges.NAME.mtu",
        "tunnels.NAME.tls.ca",
        "tunnels.NAME.tls.certificate",
        "tunnels.NAME.tls.key",
        "tunnels.NAME.tls.crl",
        "tunnels.NAME.keepalive.restart_seconds",
    }


def test_the_section_of_a_path_is_found() -> None:
    assert section_at(()) is Configuration
    assert section_at(("bridges", "br0")) is Bridge
    assert section_at(("tunnels", "any.name", "tls")) is Tls
    assert section_at(("tunnels",)) is None
    assert section_at(("nothing", "here")) is None
