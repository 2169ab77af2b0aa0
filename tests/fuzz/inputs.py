"""The committed inputs of a fuzz target: one file for each target, one input a line, in hexadecimal.

    python -m tests.fuzz.inputs unpack tests/fuzz/corpus/control.hex FOLDER
    python -m tests.fuzz.inputs pack tests/fuzz/corpus/control.hex FOLDER

`unpack` writes each input to a file of its own, as fuzzers want it. `pack` adds the inputs of the folder to
the file. The corpus of native/fuzz has the same form.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Iterable
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"
SUFFIX = ".hex"


def file_of(target: str) -> Path:
    """The committed file of a target in this folder."""
    return CORPUS / f"{target}{SUFFIX}"


def read(file: Path) -> list[bytes]:
    """All inputs of the file.

    Raises:
        ValueError: a line is not hexadecimal.
    """
    return [bytes.fromhex(line) for line in file.read_text(encoding="ascii").splitlines()]


def write(file: Path, inputs: Iterable[bytes]) -> None:
    """Write the inputs, each once, short ones first."""
    lines = [item.hex() for item in sorted(set(inputs), key=lambda item: (len(item), item)) if item]
    file.write_text("".join(f"{line}\n" for line in lines), encoding="ascii")


def unpack(file: Path, folder: Path) -> None:
    """Write every input to a file of its own, named after its content."""
    folder.mkdir(parents=True, exist_ok=True)
    for item in read(file):
        (folder / hashlib.sha256(item).hexdigest()[:16]).write_bytes(item)


def pack(file: Path, folder: Path) -> int:
    """Add the folder's inputs to the file; return how many are new."""
    known = set(read(file)) if file.exists() else set()
    found = {path.read_bytes() for path in folder.iterdir() if path.is_file()}
    write(file, known | found)
    return len(found - known)


def main() -> None:
    parser = argparse.ArgumentParser(description="Pack and unpack the inputs of a fuzz target.")
    parser.add_argument("action", choices=("pack", "unpack"))
    parser.add_argument("file", type=Path)
    parser.add_argument("folder", type=Path)
    chosen = parser.parse_args()
    if chosen.action == "unpack":
        unpack(chosen.file, chosen.folder)
    else:
        print(f"{chosen.file}: {pack(chosen.file, chosen.folder)} new inputs")


if __name__ == "__main__":
    main()
