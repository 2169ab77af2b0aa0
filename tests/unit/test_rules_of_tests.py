"""Rules of the tests' own code: no test imports a test, modules have one name, no fixture is copied."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parents[1]
MODULES = sorted(path for path in TESTS.rglob("*.py") if "__pycache__" not in path.parts)
FOLDERS = {path.name for path in TESTS.iterdir() if path.is_dir()}
STEMS = {path.stem for path in MODULES}


def imported(path: Path) -> Iterator[str]:
    """Full name of every module that the file imports, also within functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def fixtures(path: Path) -> Iterator[tuple[str, str]]:
    """(name, its code) of every fixture."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and any(
            "fixture" in ast.unparse(decorator) for decorator in node.decorator_list
        ):
            yield node.name, ast.unparse(node)


def test_no_test_imports_a_test() -> None:
    found = {
        f"{path.relative_to(TESTS)}: {name}"
        for path in MODULES
        for name in imported(path)
        if any(part.startswith("test_") for part in name.split("."))
    }
    assert not found, "move what they share to tests/lab or to a support module beside them"


def test_modules_of_the_tests_have_one_name() -> None:
    found = {
        f"{path.relative_to(TESTS)}: {name}"
        for path in MODULES
        for name in imported(path)
        if name.startswith(".") or name.split(".")[0] in FOLDERS or name in STEMS
    }
    assert not found, "import it as tests.FOLDER.MODULE"


def test_no_fixture_is_copied() -> None:
    places = defaultdict(list)
    for path in MODULES:
        for name, code in fixtures(path):
            places[name, code].append(str(path.relative_to(TESTS)))
    assert not {name: found for (name, _), found in places.items() if len(found) > 1}
