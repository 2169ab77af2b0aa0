"""All sources of this project, parsed once for every check."""

from __future__ import annotations

import ast
import gc
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from scripts.checks.rust import RustFile

TEST_FOLDERS: Final = frozenset({"tests", "benches", "fuzz", "examples"})


@dataclass(frozen=True, slots=True)
class PythonFile:
    """`path` counts from the project's folder."""

    path: PurePosixPath
    text: str
    tree: ast.Module

    @property
    def is_test(self) -> bool:
        return not TEST_FOLDERS.isdisjoint(self.path.parts)


@dataclass(frozen=True, slots=True)
class Sources:
    """Tracked and new files; what git ignores is left out."""

    python: tuple[PythonFile, ...]
    rust: tuple[RustFile, ...]

    @classmethod
    def of(cls, texts: Mapping[str, str]) -> Sources:
        """From the text of each file by its path."""
        paths = {PurePosixPath(name): text for name, text in sorted(texts.items())}
        # Trees are millions of objects, and none is garbage: collections would take most of the time.
        was_enabled = gc.isenabled()
        gc.disable()
        try:
            return cls(
                tuple(PythonFile(p, text, ast.parse(text)) for p, text in paths.items() if p.suffix == ".py"),
                tuple(RustFile(p, text) for p, text in paths.items() if p.suffix == ".rs"),
            )
        finally:
            if was_enabled:
                gc.enable()

    @classmethod
    def read(cls, folder: Path) -> Sources:
        """Of a work tree."""
        return cls.of({name: (folder / name).read_text(encoding="utf-8") for name in _tracked(folder)})

    def program(self) -> tuple[PythonFile, ...]:
        """Python that runs at an operator's: no tests, no scripts."""
        return tuple(f for f in self.python if not f.is_test and f.path.parts[0] != "scripts")


def _tracked(folder: Path) -> Iterable[str]:
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", "*.py", "*.rs"]
    names = subprocess.run(listing, cwd=folder, check=True, capture_output=True, text=True).stdout
    return [name for name in dict.fromkeys(names.splitlines()) if (folder / name).exists()]
