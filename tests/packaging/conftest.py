"""The package, built once for all tests, and again only where something that it is made of has changed."""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from bridged.dataplane import native

ROOT = Path(__file__).parents[2]
INPUTS = (
    "bridged",
    "tap/src",
    "deploy",
    "scripts/deb",
    "config",
    "docs",
    "requirements.lock",
    "CHANGELOG.md",
    "LICENSE",
)
VERSION = "0.1.0~test1-1"
EPOCH = "1767225600"
collect_ignore = [
    name
    for name, variable in (
        ("test_ansible.py", "BRIDGED_ANSIBLE"),
        ("test_container_image.py", "BRIDGED_CONTAINERS"),
        ("test_docker_image.py", "BRIDGED_CONTAINERS"),
    )
    if os.environ.get(variable) != "1"
]


def pytest_report_header() -> str:
    """What has targets of its own, because it needs programs that no other test does."""
    left = ", ".join(collect_ignore)
    return f"packaging: without {left} (make test-ansible, make test-container)" if left else "packaging: all"


@dataclass(frozen=True, slots=True)
class Package:
    """`file`: the .deb; `tree`: the folder that it was made from."""

    file: Path
    tree: Path


def build(folder: Path, **environment: str) -> Package:
    """Build it in `folder`, quickly compressed."""
    command = (
        "-m",
        "scripts.deb",
        "--compression",
        "1",
        "--output",
        str(folder),
        "--stage",
        str(folder / "tree"),
    )
    subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env={**os.environ, "DEB_VERSION": VERSION, "SOURCE_DATE_EPOCH": EPOCH, **environment},
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return Package(folder / f"bridged_{VERSION}_amd64.deb", folder / "tree")


def _inputs() -> Iterator[Path]:
    for name in INPUTS:
        path = ROOT / name
        yield from sorted(path.rglob("*")) if path.is_dir() else [path]


def _state() -> str:
    found = hashlib.sha256()
    for path in _inputs():
        if path.is_file() and path.suffix != ".pyc":
            found.update(f"{path.relative_to(ROOT)}\0".encode())
            found.update(path.read_bytes())
    return found.hexdigest()[:24]


@pytest.fixture(scope="session")
def package() -> Package:
    assert not native.unavailable(), "the package needs the native data plane: `bash scripts/native.sh`"
    folder = ROOT / "build/deb/tests" / _state()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "complete").exists():
            build(folder)
            (folder / "complete").touch()
    return Package(folder / f"bridged_{VERSION}_amd64.deb", folder / "tree")
