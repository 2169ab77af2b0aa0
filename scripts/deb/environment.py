"""The private environment /usr/lib/bridged: laid out as a virtual environment, without pip and bytecode.

One tree serves every Python of `targets.PYTHONS`: the names of compiled modules say whose they are.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from scripts.deb.targets import PYTHONS, Target

HOME: Final = Path("usr/lib/bridged")
SITE: Final = HOME / "lib/python3/site-packages"
NATIVE: Final = "bridged/_native.abi3.so"
_LEFT_OUT: Final = re.compile(
    r"__pycache__/|\.(pyi|c|h|pxd|pyx|so\.txt)$|/py\.typed$|(^|/)tests?/"
    # What pip records, and build leftovers; METADATA stays, for importlib.metadata.
    r"|\.dist-info/(?!METADATA$)|\.data/"
    # A parser in C that the configuration does not use.
    r"|^yaml/_yaml|^_yaml/"
)
_LICENCE: Final = re.compile(
    r"\.dist-info/(?:licenses/)?(?:.*/)?(?:licen[cs]e|copying|notice|authors)[^/]*$", re.IGNORECASE
)
_ELF: Final = b"\x7fELF"


def make_environment(stage: Path, wheels: Iterable[Path], target: Target) -> dict[str, list[str]]:
    """Fill `stage` with the environment and our own packages. Returns distribution -> its licence texts."""
    site = stage / SITE
    site.mkdir(parents=True)
    licences = {_title(wheel): _unpack(wheel, site, target) for wheel in wheels}
    _copy_sources(Path("bridged"), site / "bridged")
    _copy_sources(Path("tap/src/bridged_tap"), site / "bridged_tap")
    (stage / HOME / "bin").mkdir()
    (stage / HOME / "bin/python3").symlink_to("../../../bin/python3")
    (stage / HOME / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = false\n")
    for python in PYTHONS:
        (stage / HOME / f"lib/python{python}").symlink_to("python3")
    if "cffi" in target.borrowed:
        for python in PYTHONS:
            name = f"_cffi_backend.cpython-{python.replace('.', '')}-{target.multiarch}.so"
            (site / name).symlink_to(f"/usr/lib/python3/dist-packages/{name}")
    return licences


def add_native(stage: Path, module: Path) -> None:
    """Put the native data plane in."""
    shutil.copyfile(module, stage / SITE / NATIVE)


def strip_modules(stage: Path, target: Target) -> None:
    """Remove symbols from compiled modules, and the names of this machine's folders from ours.

    Raises:
        FileNotFoundError: no `strip` for the architecture (Debian: binutils-aarch64-linux-gnu and others).
    """
    modules = [path for path in (stage / SITE).rglob("*.so") if not path.is_symlink()]
    subprocess.run([target.strip, "--strip-unneeded", "--remove-section=.comment", *modules], check=True)
    native = stage / SITE / NATIVE
    if native.exists():
        native.write_bytes(_without_places(native.read_bytes()))


def _unpack(wheel: Path, site: Path, target: Target) -> list[str]:
    licences = []
    with zipfile.ZipFile(wheel) as archive:
        for name in sorted(archive.namelist()):
            if _LICENCE.search(name):
                licences.append(archive.read(name).decode("utf-8", "replace"))
            if name.endswith("/") or _LEFT_OUT.search(name):
                continue
            content = archive.read(name)
            if content.startswith(_ELF) and f"_{target.wheel}." not in wheel.name:
                continue  # borrowed from another architecture
            path = site / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(_without_interpreter(content) if name.endswith(".py") else content)
    return licences


def _copy_sources(source: Path, destination: Path) -> None:
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))
    data = project["tool"]["setuptools"]["package-data"].get(source.name, [])
    found = {path for pattern in data for path in source.glob(pattern)} - {source / "py.typed"}
    # Stubs are for type checkers; the native module has its own place.
    found = {path for path in found if path.suffix != ".pyi"} | set(source.rglob("*.py"))
    for path in sorted(found):
        copy = destination / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)


def _without_interpreter(content: bytes) -> bytes:
    """A module is no program."""
    return b"#\n" + content.partition(b"\n")[2] if content.startswith(b"#!") else content


def _without_places(content: bytes) -> bytes:
    """Replace the folders of sources, which texts of panics name, by others of the same length."""
    cargo = Path(os.environ.get("CARGO_HOME") or Path.home() / ".cargo")
    places = [str(path) for path in sorted((cargo / "registry/src").glob("*"))]
    for place in sorted([*places, str(cargo), str(Path.cwd())], key=len, reverse=True):
        neutral = "/usr/src" + "/." * ((len(place) - 8) // 2) + "/" * (len(place) % 2)
        if len(neutral) != len(place):
            raise ValueError(f"{place}: too short to be replaced")
        content = content.replace(place.encode(), neutral.encode())
    return content


def _title(wheel: Path) -> str:
    name, version = wheel.name.split("-")[:2]
    return f"{name} {version}"
