"""Files and functions that are too long are found, in both languages."""

from __future__ import annotations

from scripts.checks import sizes
from scripts.checks.sources import Sources


def found(name: str, text: str) -> list[str]:
    return list(sizes.check(Sources.of({name: text})))


def python_function(lines: int) -> str:
    return "def work() -> None:\n" + "    pass\n" * (lines - 1)


def rust_function(lines: int) -> str:
    return "fn work<'a>(text: &'a str) -> [u8; 2] {\n" + '    call("}");\n' * (lines - 2) + "}\n"


def test_sixty_lines_are_a_function_and_sixty_one_are_too_many() -> None:
    assert found("a.py", python_function(60)) == []
    assert found("a.py", "x = 1\n" + python_function(61)) == ["a.py:2: work has 61 lines; at most 60"]
    assert found("a.rs", rust_function(60)) == []
    assert found("a.rs", "// fn none() {\n" + rust_function(61)) == ["a.rs:2: work has 61 lines; at most 60"]


def test_six_hundred_lines_are_a_file_and_one_more_are_too_many() -> None:
    assert found("a.rs", "// x\n" * 600) == []
    assert found("a.rs", "// x\n" * 601) == ["a.rs: 601 lines; at most 600"]
    assert found("tests/a.py", "x = 1\n" * 601) == ["tests/a.py: 601 lines; at most 600"]


def test_a_declaration_without_a_body_is_no_function() -> None:
    assert found("a.rs", "trait T {\n    fn work(&self);\n" + "\n" * 70 + "}\n") == []
