"""Whatever the file holds: a configuration, or ConfigurationErrors, and nothing else."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from bridged.configuration import Configuration
from bridged.configuration.keys import all_keys
from bridged.configuration.load import parse
from bridged.errors import ConfigurationErrors

FILE = Path("/etc/bridged/any.yaml")
WORDS = sorted({part for key in all_keys() for part in key.path.split(".")})

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.sampled_from([*WORDS, "server", "client", "br0", "[::]:1194", "on", "tls-crypt", "1.3"]),
    st.text(max_size=12),
)
trees = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.one_of(st.sampled_from(WORDS), st.text(max_size=6)), inner, max_size=6),
    ),
    max_leaves=25,
)


def check(text: str) -> None:
    try:
        configuration = parse(text, FILE)
    except ConfigurationErrors as errors:
        assert errors.errors
        assert all(error.file == FILE and error.reason for error in errors.errors)
        last = text.count("\n") + text.count("\r") + 2 + sum(text.count(mark) for mark in "\x85\u2028\u2029")
        assert all(error.line is None or 1 <= error.line <= last for error in errors.errors)
    else:
        assert isinstance(configuration, Configuration)


@given(st.text(max_size=300))
@settings(deadline=None)
def test_any_text(text: str) -> None:
    check(text)


@given(trees)
@settings(deadline=None, max_examples=200)
def test_any_tree_of_known_words(tree: Any) -> None:
    with contextlib.suppress(yaml.YAMLError):
        check(yaml.safe_dump(tree, allow_unicode=True))


@given(st.dictionaries(st.sampled_from(WORDS), trees, max_size=5))
@settings(deadline=None, max_examples=200)
def test_any_tunnel(section: dict[str, Any]) -> None:
    base = {"role": "server", "bridge": "br0", "tls": {"embedded": True}}
    tree = {"bridges": {"br0": section.pop("tap", {})}, "tunnels": {"a": {**base, **section}}}
    check(yaml.safe_dump(tree))
