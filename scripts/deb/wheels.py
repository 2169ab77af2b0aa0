"""The wheels of what the program imports, for any machine: pinned by requirements.lock, checked by pip."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

from scripts.deb.targets import PYTHONS, TARGETS, Target

LOCK: Final = Path("requirements.lock")
_OWN: Final = "bridged-tap"


def fetch_wheels(target: Target, cache: Path) -> list[Path]:
    """The wheels of all run-time dependencies: pure ones once, compiled ones for each Python.

    Kept in `cache` until the lock file changes. Raises CalledProcessError where pip finds none.
    """
    pins = dict(_pins(LOCK.read_text(encoding="utf-8")))
    needed = sorted(closure())
    state = hashlib.sha256("".join([*PYTHONS, *target.platforms, *(pins[name] for name in needed)]).encode())
    folder = cache / f"{target.name}-{state.hexdigest()[:16]}"
    if not (folder / "complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        own = [pins[name] for name in needed if name not in target.borrowed]
        _download(own, target, PYTHONS[0], folder)
        compiled = [_name(wheel) for wheel in folder.glob("*.whl") if _is_for_one_python(wheel)]
        for python in PYTHONS[1:]:
            _download([pins[name] for name in compiled], target, python, folder)
        # Only their Python files are used.
        _download([pins[name] for name in target.borrowed], TARGETS["amd64"], PYTHONS[0], folder)
        (folder / "complete").touch()
    return sorted(folder.glob("*.whl"))


def _pins(lock: str) -> Iterator[tuple[str, str]]:
    """Distribution -> its lines of the lock file."""
    for block in re.findall(r"^[a-z0-9].*(?:\n +.*)*", lock, re.MULTILINE):
        yield canonicalize_name(re.split(r"[=\s]", block, maxsplit=1)[0]), f"{block}\n"


def closure() -> set[str]:
    """Everything that the run-time dependencies of pyproject.toml need, on one of the Pythons."""
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    waiting = [str(name) for name in project["dependencies"]]
    found: set[str] = set()
    while waiting:
        requirement = Requirement(waiting.pop())
        name = canonicalize_name(requirement.name)
        if name in found or not _applies(requirement):
            continue
        found.add(name)
        waiting += metadata.requires(name) or []
    return found - {_OWN}


def _applies(requirement: Requirement) -> bool:
    marker = requirement.marker
    return marker is None or any(
        marker.evaluate({"python_version": python, "python_full_version": f"{python}.0", "extra": ""})
        for python in PYTHONS
    )


def _download(pins: Iterable[str], target: Target, python: str, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    wanted = "".join(pins)
    if not wanted:
        return
    listing = folder / "wanted.txt"
    listing.write_text(wanted, encoding="utf-8")
    platforms = [option for platform in target.platforms for option in ("--platform", platform)]
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"),
            *("--only-binary=:all:", "--implementation", "cp", "--python-version", python, *platforms),
            *("--require-hashes", "--requirement", str(listing), "--dest", str(folder)),
        ],
        check=True,
        stdin=subprocess.DEVNULL,
    )
    listing.unlink()


def _name(wheel: Path) -> str:
    return parse_wheel_filename(wheel.name)[0]


def _is_for_one_python(wheel: Path) -> bool:
    return any(tag.abi not in ("none", "abi3") for tag in parse_wheel_filename(wheel.name)[3])
