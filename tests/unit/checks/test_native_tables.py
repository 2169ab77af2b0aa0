"""Rust files that follow the tables of the catalogue are up to date."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.native_tables import files

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("name", sorted(files()))
def test_generated_rust_is_up_to_date(name: str) -> None:
    assert (ROOT / name).read_text(encoding="utf-8") == files()[name], f"{name}: run `make generate`"
