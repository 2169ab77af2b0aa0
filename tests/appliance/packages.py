"""The two packages of a run: this tree's, and the same under a version that sorts before it."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from bridged import __version__
from tests.appliance.image import FOLDER, REPOSITORY

PREVIOUS_VERSION = f"{__version__}~0previous-1"


@dataclass(frozen=True, slots=True)
class Packages:
    """No earlier release has a package, so `previous` is this tree, too."""

    previous: Path
    new: Path


def build() -> Packages:
    """Build the package of this tree."""
    folder = FOLDER / "packages"
    for old in folder.glob("*.deb"):
        old.unlink()
    command = (sys.executable, "-m", "scripts.deb", "--compression", "1", "--output", str(folder))
    subprocess.run(command, check=True, cwd=REPOSITORY)
    (built,) = folder.glob("*.deb")
    return with_previous(built, folder)


def with_previous(built: Path, folder: Path) -> Packages:
    """Both packages in `folder`, as `previous.deb` and `bridged.deb`."""
    previous, new = folder / "previous.deb", folder / "bridged.deb"
    with tempfile.TemporaryDirectory() as scratch:
        tree = Path(scratch, "tree")
        subprocess.run(("dpkg-deb", "--raw-extract", str(built), str(tree)), check=True)
        control = tree / "DEBIAN" / "control"
        text = re.sub(r"(?m)^Version: .*$", f"Version: {PREVIOUS_VERSION}", control.read_text())
        control.write_text(text)
        subprocess.run(
            ("dpkg-deb", "--root-owner-group", "-Znone", "--build", str(tree), str(previous)),
            check=True,
            stdout=subprocess.DEVNULL,
        )
    new.write_bytes(built.read_bytes())
    return Packages(previous, new)
