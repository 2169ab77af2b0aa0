"""A name that stands for two public types is found."""

from __future__ import annotations

from scripts.checks.names import check
from scripts.checks.sources import Sources


def found(**texts: str) -> list[str]:
    names = {
        "first": "bridged/a.py",
        "second": "bridged/b.py",
        "tap": "tap/src/bridged_tap/a.py",
        "core": "native/core/src/a.rs",
        "worker": "native/worker/src/b.rs",
        "py": "native/py/src/c.rs",
    }
    return list(check(Sources.of({names[key]: text for key, text in texts.items()})))


def test_two_classes_of_one_name_are_found() -> None:
    assert found(first="class Daemon: ...\n", second="\nclass Daemon: ...\n") == [
        "bridged/a.py:1: Daemon is also the name of a type in bridged/b.py:2; rename one"
    ]


def test_an_alias_and_a_class_of_one_name_are_found() -> None:
    assert found(first="Key = tuple[str, str]\n", second="class Key: ...\n")
    assert found(first="Path: TypeAlias = str\n", second="Path = int\n")


def test_private_names_constants_and_type_variables_may_repeat() -> None:
    text = "class _Record: ...\nLIMIT = 3\nK = 4\nKey = TypeVar('Key')\n"
    assert found(first=text, second=text) == []


def test_the_tap_library_has_names_of_its_own() -> None:
    assert found(first="class Link: ...\n", tap="class Link: ...\n") == []


def test_two_public_rust_types_of_one_name_are_found_but_for_mirrors_in_the_bindings() -> None:
    assert found(core="pub struct Fdb {}\n", worker="pub(crate) enum Fdb {}\n")
    assert found(core="pub struct Fdb {}\n", py="pub struct Fdb {}\n") == []
    assert found(core="pub(super) struct Run {}\n", worker="struct Run {}\n") == []
