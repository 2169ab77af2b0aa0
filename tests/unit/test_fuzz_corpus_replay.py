"""Replays the committed corpus of every fuzz target: what was found once stays mended."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

FUZZ = Path(__file__).parent.parent / "fuzz"
TARGETS = sorted(path.stem.removeprefix("fuzz_") for path in FUZZ.glob("fuzz_*.py"))


def test_there_are_targets() -> None:
    assert {"control", "body", "key_message", "push", "messages", "peer_info", "static_key"} <= set(TARGETS)


@pytest.mark.parametrize("target", TARGETS)
def test_the_corpus_of_the_target_is_harmless(target: str) -> None:
    one_input = importlib.import_module(f"tests.fuzz.fuzz_{target}").one_input
    inputs = sorted(path for path in (FUZZ / "corpus" / target).iterdir() if path.is_file())
    assert inputs, f"tests/fuzz/corpus/{target} is empty: commit a few inputs that reach deep"
    for path in inputs:
        try:
            one_input(path.read_bytes())
        except Exception as error:
            raise AssertionError(f"{path.relative_to(FUZZ)}: {error!r}") from error
    one_input(b"")


def test_no_corpus_lacks_its_target() -> None:
    # A folder without files exists on one machine only: git does not keep it.
    kept = {path.name for path in (FUZZ / "corpus").iterdir() if any(path.iterdir())}
    assert kept <= set(TARGETS)
