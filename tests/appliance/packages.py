"""The two packages of a run: this tree's, and one of the version before, whose number sorts before."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from bridged import __version__
from tests.appliance.image import FOLDER, REPOSITORY

PREVIOUS_COMMIT = "db9a5f50ae6ed600336915927165353c7b3088d8"
"""What people upgrade from: the first commit that has a package. At a release it becomes the one before."""
PREVIOUS_VERSION = f"{__version__}~0previous-1"


@dataclass(frozen=True, slots=True)
class Packages:
    """Paths of `previous.deb` and `bridged.deb`."""

    previous: Path
    new: Path


def build(*, from_history: bool) -> Packages:
    """Build the package of this tree, and the previous one.

    `from_history`: of PREVIOUS_COMMIT, whose native data plane takes minutes to compile at the first time.
    Otherwise, and in a clone without that commit, it is this tree's, too.
    """
    folder = FOLDER / "packages"
    for old in folder.glob("*.deb"):
        old.unlink()
    _build(REPOSITORY, folder)
    (built,) = folder.glob("*.deb")
    packages = with_previous(built, folder)
    if from_history and _has_commit():
        print(f"previous version: commit {PREVIOUS_COMMIT[:12]}", flush=True)
        _build(_previous_tree(), folder, DEB_VERSION=PREVIOUS_VERSION, SOURCE_DATE_EPOCH="1700000000")
        (folder / f"bridged_{PREVIOUS_VERSION}_amd64.deb").rename(packages.previous)
    else:
        print("previous version: this tree under a lower number", flush=True)
    return packages


def _build(tree: Path, folder: Path, **environment: str) -> None:
    command = (sys.executable, "-m", "scripts.deb", "--compression", "1", "--output", str(folder))
    subprocess.run(command, check=True, cwd=tree, env={**os.environ, **environment})


def _has_commit() -> bool:
    command = ("git", "cat-file", "-e", f"{PREVIOUS_COMMIT}^{{commit}}")
    return subprocess.run(command, cwd=REPOSITORY, check=False).returncode == 0


def _previous_tree() -> Path:
    """The files of that commit, with its native data plane; kept for the next run."""
    tree = FOLDER / f"previous-{PREVIOUS_COMMIT[:12]}"
    if not (tree / "complete").exists():
        shutil.rmtree(tree, ignore_errors=True)
        tree.mkdir(parents=True)
        archive = subprocess.run(
            ("git", "archive", PREVIOUS_COMMIT), cwd=REPOSITORY, check=True, stdout=subprocess.PIPE
        )
        subprocess.run(("tar", "-x"), cwd=tree, input=archive.stdout, check=True)
        (tree / ".venv").symlink_to(REPOSITORY / ".venv")
        subprocess.run(("bash", "scripts/native.sh", "--require"), cwd=tree, check=True)
        (tree / "complete").touch()
    return tree


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
