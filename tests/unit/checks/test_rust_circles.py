"""Circular imports between Rust modules are found; tests and parents that only declare children are none."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.rust_circles import check, main

ROOT = Path(__file__).parents[3]


def crate(folder: Path, **files: str) -> Path:
    """A crate `c` with these sources: `a__b` is `src/a/b.rs`."""
    for name, text in files.items():
        path = folder / "c" / "src" / f"{name.replace('__', '/')}.rs"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder / "c"


def test_nothing_is_found_in_this_project() -> None:
    assert [check(ROOT / "native" / name) for name in ("core", "sys", "worker", "py")] == [[]] * 4


def test_modules_that_use_each_other_are_found(tmp_path: Path) -> None:
    found = crate(
        tmp_path,
        lib="mod a;\nmod b;\nmod c;\nmod d;",
        a="use crate::b::Thing;\nuse crate::d;",
        b="use crate::{c::{self, More}, d::Most};",
        c="fn f() { crate::a::go() }",
        d="// use crate::a::Thing;",
    )
    assert check(found) == ["c: a <-> b <-> c"]


def test_a_child_and_its_parent_are_found_where_both_use_each_other(tmp_path: Path) -> None:
    found = crate(
        tmp_path,
        lib="mod a;\nmod e;",
        a__mod="mod b;\npub mod c;\nuse b::Thing;",
        a__b="use super::Other;",
        a__c="use super::Other;",
        e="pub mod f;\npub use self::f::Thing;",
        e__f="use crate::Nanos;",
    )
    assert check(found) == ["c: a <-> a::b"]


def test_the_root_is_part_of_a_circle_where_it_exports_what_uses_it(tmp_path: Path) -> None:
    found = crate(tmp_path, lib="mod a;\npub use a::Thing;\npub type Nanos = u64;", a="use crate::Nanos;")
    assert check(found) == ["c: lib.rs <-> a"]


def test_tests_may_use_whatever_they_test(tmp_path: Path) -> None:
    found = crate(
        tmp_path,
        lib='mod a;\nmod b;\n#[cfg(test)]\nmod rig;\n#[cfg(all(test, feature = "model"))]\nmod models;',
        a='use crate::b;\n#[cfg(test)]\nmod tests {\n    fn f() { { "}" } }\n    use crate::rig;\n}\n',
        b='#[cfg(test)]\n#[path = "b_tests.rs"]\nmod tests;\nfn last() {}',
        b_tests="use crate::a;",
    )
    assert check(found) == []


def test_a_circle_is_printed_and_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = crate(tmp_path, lib="mod a;\nmod b;", a="use crate::b::B;", b="use crate::a::A;")
    assert main([str(found)]) == 1
    assert "c: a <-> b" in capsys.readouterr().err
