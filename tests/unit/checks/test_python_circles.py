"""Circular imports between Python modules are found, however they are written."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.python_circles import Graph, check, circles, read_graph


def test_this_project_has_no_circle() -> None:
    assert list(check(read_graph("bridged", "bridged_tap"))) == []


def test_a_circle_is_shown_in_the_order_of_its_imports() -> None:
    graph: Graph = {"a": ["d"], "b": ["c"], "c": ["d"], "d": ["b", "e"], "e": []}
    assert circles(graph) == [frozenset("bcd")]
    assert list(check(graph)) == ["circular import: b -> c -> d -> b"]


def test_two_circles_are_two_findings() -> None:
    graph: Graph = {"a": ["b"], "b": ["a"], "c": ["d", "a"], "d": ["c"]}
    assert len(list(check(graph))) == 2


@pytest.mark.parametrize(
    ("name", "back"),
    [
        ("circle_plain", "from {0}.a import A"),
        ("circle_of_types", "from typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    from {0}.a import A"),
        ("circle_in_a_function", "def work():\n    from {0}.a import A"),
        ("circle_with_its_package", "import {0}"),
    ],
)
def test_every_kind_of_import_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, back: str
) -> None:
    package = tmp_path / name
    package.mkdir()
    (package / "__init__.py").write_text("from . import a\n" if "package" in name else "")
    (package / "a.py").write_text(f"from {name}.b import B\n\n\nclass A: ...\n")
    (package / "b.py").write_text(back.format(name) + "\n\n\nclass B: ...\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert len(list(check(read_graph(name)))) == 1
