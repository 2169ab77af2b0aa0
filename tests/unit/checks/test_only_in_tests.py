"""Public things that nobody but a test uses are found."""

from __future__ import annotations

from scripts.checks.only_in_tests import check
from scripts.checks.sources import Sources


def found(**texts: str) -> set[str]:
    names = {"program": "bridged/a.py", "test": "tests/test_a.py", "rust": "native/core/src/a.rs"}
    sources = Sources.of({names[key]: text for key, text in texts.items()})
    return set(check(sources))


def names(findings: set[str]) -> set[str]:
    return {finding.split(": ")[1].split()[0] for finding in findings}


def test_a_function_that_a_test_alone_calls_is_found() -> None:
    program = "def used(): ...\ndef unused(): ...\nused()\n"
    assert found(program=program, test="unused()\n") == {
        "bridged/a.py:2: unused is used by tests only; remove it, or use it"
    }


def test_methods_classes_constants_and_enum_members_are_looked_at() -> None:
    program = """
from enum import Enum, IntEnum
LIMIT = 3
class Colour(Enum):
    RED = 1
    BLUE = 2
class Wire(IntEnum):
    NUMBER = 1
class Box:
    field: int = 0
    def open(self): ...
    @property
    def size(self): ...
    @app.command()
    def registered(self): ...
print(Colour.RED, Wire)
"""
    assert names(found(program=program)) == {"LIMIT", "Colour.BLUE", "Box", "Box.open", "Box.size"}


def test_delegation_and_recursion_are_no_use() -> None:
    program = """
class Outer:
    def ask(self): return self.inner.ask()
class Inner:
    def ask(self): return self.ask()
Outer(Inner())
"""
    assert names(found(program=program)) == {"Outer.ask", "Inner.ask"}


def test_methods_that_a_framework_may_call_are_left_out() -> None:
    assert found(program="class A(asyncio.Protocol):\n    def data_received(self): ...\nA()\n") == set()


def test_private_names_and_names_under_a_private_class_are_left_out() -> None:
    assert found(program="def _helper(): ...\n") == set()


def test_rust_items_that_tests_alone_use_are_found() -> None:
    rust = """\
pub fn used() {}
pub(crate) const LIMIT: usize = 3;
pub fn peek() { used() }
#[cfg(test)]
mod tests { fn t() { super::peek(); super::LIMIT; } }
"""
    assert names(found(rust=rust)) == {"LIMIT", "peek"}
