"""Fuzzes targets and adds what reaches new code to their committed inputs: `make fuzz`.

    python -m tests.fuzz.run --seconds 60 control push
    python -m tests.fuzz.run --minimise control

A target is a module `fuzz_NAME.py` here with `one_input(data: bytes) -> None`, which raises only where
something is wrong. Fuzzing writes to build/fuzz/NAME; inputs that reach new code go
to tests/fuzz/corpus/NAME.hex. `test_fuzz_corpus_replay` replays them.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

from tests.fuzz import inputs

FOLDER = Path(__file__).resolve().parent
BUILD = FOLDER.parent.parent / "build" / "fuzz"
# Also counts how close a comparison came: it keeps inputs that differ by more than the lines they reach.
FEATURES = "-use_value_profile=1"
INPUT_OCTETS_MAX = 4096


def targets() -> list[str]:
    """Names of all targets in this folder."""
    return sorted(path.stem.removeprefix("fuzz_") for path in FOLDER.glob("fuzz_*.py"))


def fuzz(name: str, seconds: int) -> int:
    """Fuzz one target for so long; the status is not 0 where an input was found that raises."""
    found, committed = _folders(name)
    options = (
        f"-max_total_time={seconds}",
        f"-max_len={INPUT_OCTETS_MAX}",
        f"-artifact_prefix={BUILD}/{name}-",
    )
    status = _start(name, *options, str(found), str(committed))
    merge(name)
    return status


def merge(name: str) -> None:
    """Add to the committed inputs what reaches more than they do."""
    found, committed = _folders(name)
    _start(name, "-merge=1", FEATURES, str(committed), str(found), quiet=True)
    new = inputs.pack(inputs.file_of(name), committed)
    print(f"fuzz: {name}: {new} new inputs in tests/fuzz/corpus/{name}{inputs.SUFFIX}")


def minimise(name: str) -> None:
    """Keep only as many of the committed inputs as reach what all of them reach."""
    _, committed = _folders(name)
    kept = BUILD / name / "kept"
    shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir()
    _start(name, "-merge=1", FEATURES, str(kept), str(committed), quiet=True)
    before = len(inputs.read(inputs.file_of(name)))
    inputs.write(inputs.file_of(name), (path.read_bytes() for path in kept.iterdir()))
    print(f"fuzz: {name}: {len(inputs.read(inputs.file_of(name)))} of {before} inputs kept")


def _folders(name: str) -> tuple[Path, Path]:
    """(what fuzzing found at any time, the committed inputs as files)."""
    found, committed = BUILD / name / "found", BUILD / name / "committed"
    shutil.rmtree(committed, ignore_errors=True)
    found.mkdir(parents=True, exist_ok=True)
    committed.mkdir()
    if inputs.file_of(name).exists():
        inputs.unpack(inputs.file_of(name), committed)
    return found, committed


def _start(name: str, *arguments: str, quiet: bool = False) -> int:
    command = (sys.executable, "-m", "tests.fuzz.target", name, *arguments)
    return subprocess.run(command, check=False, capture_output=quiet, cwd=FOLDER.parent.parent).returncode


def main() -> int:
    parser = argparse.ArgumentParser(description="Fuzz parsers and the session.", allow_abbrev=False)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="some of: " + ", ".join(targets()))
    parser.add_argument("--seconds", type=int, default=60, help="how long each (default 60)")
    parser.add_argument("--minimise", action="store_true", help="fuzz nothing; drop inputs that add nothing")
    chosen = parser.parse_args()
    unknown = set(chosen.targets) - set(targets())
    if unknown:
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    status = 0
    for name in chosen.targets or targets():
        if chosen.minimise:
            minimise(name)
            continue
        print(f"fuzz: {name} for {chosen.seconds} s", flush=True)
        status = fuzz(name, chosen.seconds) or status
    return status


if __name__ == "__main__":
    sys.exit(main())
