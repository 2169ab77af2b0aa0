"""What the checks read out of Rust sources without a parser."""

from __future__ import annotations

from pathlib import PurePosixPath

from scripts.checks.rust import RustFile


def rust(text: str, name: str = "native/core/src/a.rs") -> RustFile:
    return RustFile(PurePosixPath(name), text)


def test_comments_and_literals_are_blanked_and_lines_stay() -> None:
    text = 'a(\'"\', "x\\"{"); // {\n/* { /* { */ } */ b(r#"}"}"#, \'{\');\n'
    code = rust(text).code
    assert len(code) == len(text) and code.count("\n") == 2
    assert "{" not in code and "}" not in code
    assert "a(" in code and "b(" in code


def test_lifetimes_are_not_taken_for_characters() -> None:
    assert rust("fn f<'a>(x: &'a str, y: &'a str) { '}' }").code == "fn f<'a>(x: &'a str, y: &'a str) { ' ' }"


def test_what_only_tests_have_is_no_program() -> None:
    text = """\
pub fn kept() { call("told") }
#[cfg(test)]
pub fn peeked() -> u8 { 7 }
#[cfg(all(test, feature = "model"))]
mod models;
#[cfg(feature = "model")]
pub mod also_kept;
#[cfg(test)]
#[path = "x.rs"]
mod tests { fn inner() { call("only here") } }
pub struct Last;
"""
    file = rust(text)
    for name in ("kept", "also_kept", "Last"):
        assert name in file.program
    for name in ("peeked", "models;", "inner"):
        assert name not in file.program
    assert file.literals == {"told", "model"}


def test_files_of_tests_are_known_by_folder_and_name() -> None:
    tests = ("native/core/tests/a.rs", "native/benches/a.rs", "native/worker/src/keys_tests.rs")
    assert all(rust("", name).is_test for name in (*tests, "native/worker/src/test_rig.rs"))
    assert not rust("", "native/worker/src/keys.rs").is_test
