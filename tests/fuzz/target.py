"""One fuzz target under atheris: `python -m tests.fuzz.target NAME LIBFUZZER-ARGUMENT…`.

`tests.fuzz.run` starts it; libFuzzer starts it again by itself, once for each attempt to merge a corpus.
"""

from __future__ import annotations

import importlib
import sys


def main() -> None:
    name, *arguments = sys.argv[1:]
    import atheris

    with atheris.instrument_imports(include=["bridged"]):
        target = importlib.import_module(f"tests.fuzz.fuzz_{name}")
    # libFuzzer's name for the program is the command by which it starts it again.
    again = f"{sys.executable} -m tests.fuzz.target {name}"
    atheris.Setup([again, *arguments], target.one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
