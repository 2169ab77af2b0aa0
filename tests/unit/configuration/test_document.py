"""YAML with line numbers, bounded."""

from __future__ import annotations

import math
import time

import pytest

from bridged.configuration.document import (
    DEPTH_MAX,
    NODES_MAX,
    TEXT_CHARACTERS_MAX,
    descend,
    parse_document,
    plain,
)
from bridged.errors import ConfigurationError
from tests.lab.bounds import at_most


def refused(text: str) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        parse_document(text)
    return caught.value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("on", "on"),
        ("off", "off"),
        ("no", "no"),
        ("true", True),
        ("False", False),
        ("~", None),
        ("", None),
        ("null", None),
        ("12", 12),
        ("-7", -7),
        ("010", 10),
        ("0x1F", 31),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        (".inf", math.inf),
        ("52:54:00:12:34:56", "52:54:00:12:34:56"),
        ("1:30", "1:30"),
        ("2026-01-01", "2026-01-01"),
        ("1_000", "1_000"),
        ('"12"', "12"),
        ("'true'", "true"),
    ],
)
def test_scalars_follow_the_core_schema(text: str, value: object) -> None:
    assert plain(parse_document(f"a: {text}")) == {"a": value}


def test_every_key_and_item_knows_its_line() -> None:
    root = parse_document("a:\n  b:\n    - x\n    - y\nc: 1\n")
    assert [line for _, line, _ in descend(root, ("a", "b", 1))] == [1, 2, 4]
    assert [line for _, line, _ in descend(root, ("c",))] == [5]
    assert [element for element, _, _ in descend(root, ("a", "missing", 3))] == ["a"]


def test_a_duplicate_key_is_refused_with_both_lines() -> None:
    error = refused("a: 1\nb: 2\na: 3\n")
    assert (error.line, error.key) == (3, "a")
    assert "line 1" in error.reason


def test_aliases_and_merge_keys_work_and_own_keys_win() -> None:
    text = "base: &b {x: 1, y: 2}\nmore: &m {y: 8, z: 9}\nuse: {<<: [*b, *m], x: 5}\nagain: *b\n"
    data = plain(parse_document(text))
    assert data["use"] == {"x": 5, "y": 2, "z": 9}
    assert data["again"] == {"x": 1, "y": 2}


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("a: !!python/object:os.system x", "tags"),
        ("a: !!binary aGFsbG8=", "tags"),
        ("a: !secret x", "tags"),
        ("a: 1\n---\nb: 2\n", "second YAML document"),
        ("", "empty"),
        ("# only a comment\n", "empty"),
        ("a: *nowhere", "has no anchor"),
        ("a: &a [*a]", "has no anchor"),
        ("a: [1, 2", "not YAML"),
        ("a: \tb: c", "not YAML"),
        ("? [a]\n: b", "plain text"),
        ("<<: 5", "needs a mapping"),
        ("a: " + "9" * 5000, "digits"),
        ('a: "\\Uffffffff"', "not YAML"),
        ("a: \x00", "not YAML"),
    ],
)
def test_what_is_no_configuration_is_refused(text: str, part: str) -> None:
    assert part in refused(text).reason


@pytest.mark.measures
def test_a_billion_laughs_file_is_refused_quickly() -> None:
    lines = ["a: &a0 [" + ", ".join("x" * 9) + "]"]
    lines += [f"b{n}: &a{n} [" + ", ".join([f"*a{n - 1}"] * 9) + "]" for n in range(1, 12)]
    begin = time.process_time()
    error = refused("\n".join(lines))
    at_most(time.process_time() - begin, 1.0, "reading")
    assert str(NODES_MAX) in error.reason
    assert error.line is not None


def test_aliases_cannot_nest_deeper_than_the_limit() -> None:
    lines = ["a0: &a0 [x]", *(f"a{n}: &a{n} [*a{n - 1}]" for n in range(1, DEPTH_MAX + 2))]
    assert "deep" in refused("\n".join(lines)).reason


def test_deep_nesting_is_refused_without_exhausting_the_stack() -> None:
    assert "deep" in refused("[" * 20_000).reason
    assert "deep" in refused("\n".join(" " * n + "a:" for n in range(600))).reason


def test_a_huge_file_is_refused_unread() -> None:
    assert "KiB" in refused("a" * (TEXT_CHARACTERS_MAX + 1)).reason
