"""Runs one fuzz target under atheris (coverage-guided fuzzing).

    python -m tests.fuzz.run control --seconds 60

A target is a module `fuzz_NAME.py` here with `one_input(data: bytes) -> None`, which raises only
where something is wrong. New inputs go to build/fuzz/corpus/NAME; worthwhile ones are committed to
tests/fuzz/corpus/NAME, which `test_fuzz_corpus_replay` replays. Other arguments go to libFuzzer.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
BUILD = FOLDER.parent.parent / "build" / "fuzz"


def targets() -> list[str]:
    """Names of all targets in this folder."""
    return sorted(path.stem.removeprefix("fuzz_") for path in FOLDER.glob("fuzz_*.py"))


def fuzz(name: str, arguments: list[str]) -> None:
    """Fuzz until libFuzzer ends the process; `arguments` are libFuzzer's (options, corpus folders)."""
    import atheris

    # Instrument anew what a target's own imports have loaded plain.
    for module in [loaded for loaded in sys.modules if loaded.split(".")[0] == "bridged"]:
        del sys.modules[module]
    with atheris.instrument_imports(include=["bridged"]):
        target = importlib.import_module(f"tests.fuzz.fuzz_{name}")
    atheris.Setup([f"fuzz_{name}", *arguments], target.one_input)
    atheris.Fuzz()


def main() -> None:
    parser = argparse.ArgumentParser(description="Fuzz one parser.", allow_abbrev=False)
    parser.add_argument("target", choices=targets())
    parser.add_argument("--seconds", type=int, default=60, help="how long (default 60)")
    chosen, rest = parser.parse_known_args()
    found = BUILD / "corpus" / chosen.target
    seeds = FOLDER / "corpus" / chosen.target
    found.mkdir(parents=True, exist_ok=True)
    seeds.mkdir(parents=True, exist_ok=True)
    limits = [f"-max_total_time={chosen.seconds}", f"-artifact_prefix={BUILD}/{chosen.target}-"]
    fuzz(chosen.target, [*limits, *rest, str(found), str(seeds)])


if __name__ == "__main__":
    main()
