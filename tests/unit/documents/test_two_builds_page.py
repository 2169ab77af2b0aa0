"""docs/two-builds.md names every file of both builds, and no other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.unit.documents.documents import ROOT, tracked

PAGE = (ROOT / "docs/two-builds.md").read_text(encoding="utf-8")
WORKER = ROOT / "native/worker/src"
PORTABLE = ROOT / "bridged/dataplane/portable"
ROWS = [row.split("|")[1:3] for row in PAGE.splitlines() if row.startswith(("| `", "| |"))]
NATIVE_NAMES = {name for row in ROWS for name in re.findall(r"`([^`]+)`", row[0])} - {"worker"}
PORTABLE_NAMES = {name for row in ROWS for name in re.findall(r"`([^`]+)`", row[1])}


def native_names() -> set[str]:
    names: set[str] = set()
    for crate in ("worker", "core", "sys"):
        folder = ROOT / "native" / crate / "src"
        prefix = "" if crate == "worker" else f"{crate}/"
        for file in tracked(".rs"):
            if file.is_relative_to(folder) and file.stem not in ("mod", "lib"):
                names.add(prefix + str(file.relative_to(folder).with_suffix("")))
    return {name for name in names if not name.endswith("_tests")}


def portable_names() -> set[str]:
    files = (file for file in tracked(".py") if file.is_relative_to(PORTABLE) and file.stem != "__init__")
    return {str(file.relative_to(PORTABLE).with_suffix("")) for file in files}


def test_every_file_of_the_native_build_has_a_row() -> None:
    folders = ("core/coalesce/", "core/segment/")
    assert {name for name in native_names() - NATIVE_NAMES if not name.startswith(folders)} == set()


def test_every_file_of_the_portable_build_has_a_row() -> None:
    assert portable_names() - PORTABLE_NAMES == set()


@pytest.mark.parametrize("name", sorted(NATIVE_NAMES))
def test_a_name_of_the_native_column_is_a_file(name: str) -> None:
    assert name in native_names() or (ROOT / "native/core/src" / Path(name).name).is_dir()


@pytest.mark.parametrize("name", sorted(PORTABLE_NAMES))
def test_a_name_of_the_portable_column_is_a_file(name: str) -> None:
    assert name in portable_names() or (ROOT / f"{name}.py").is_file()
