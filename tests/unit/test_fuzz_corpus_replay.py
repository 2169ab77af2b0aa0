"""Replays the committed inputs of every fuzz target: what was found once stays mended."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from tests.fuzz import inputs
from tests.fuzz.run import targets

TARGETS = targets()


def test_there_are_targets() -> None:
    assert {"control", "body", "key_message", "push", "messages", "peer_info", "static_key"} <= set(TARGETS)


@pytest.mark.parametrize("target", TARGETS)
def test_the_inputs_of_the_target_are_harmless(target: str) -> None:
    one_input = importlib.import_module(f"tests.fuzz.fuzz_{target}").one_input
    known = inputs.read(inputs.file_of(target))
    assert known, f"{inputs.file_of(target)} is empty: commit a few inputs that reach deep"
    for item in [*known, b""]:
        try:
            one_input(item)
        except Exception as error:
            raise AssertionError(f"{target}: {item.hex()}: {error!r}") from error


def test_no_inputs_lack_their_target() -> None:
    assert {path.name for path in inputs.CORPUS.iterdir()} == {f"{name}{inputs.SUFFIX}" for name in TARGETS}


def test_what_is_packed_comes_out_again(tmp_path: Path) -> None:
    file, folder = tmp_path / "some.hex", tmp_path / "inputs"
    inputs.write(file, [b"\xff", b"ab", b"\xff"])
    assert file.read_text() == "ff\n6162\n"
    inputs.unpack(file, folder)
    assert sorted(path.read_bytes() for path in folder.iterdir()) == [b"ab", b"\xff"]
    (folder / "found").write_bytes(b"new")
    assert inputs.pack(file, folder) == 1
    assert inputs.read(file) == [b"\xff", b"ab", b"new"]
