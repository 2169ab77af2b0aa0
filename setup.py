"""The native data plane for pip and wheels; everything else about this package is in pyproject.toml.

Where it cannot be built the package is still good: it has the portable data plane, in pure Python. pip hides
what a build prints, so the version says it, in pip's last line: "Successfully installed
bridged-0.1.0+portable". BRIDGED_PORTABLE_ONLY=1 leaves it out on purpose (then the version says nothing),
BRIDGED_NATIVE_REQUIRED=1 makes its failure an error.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import setup

MANIFEST = Path("native/py/Cargo.toml")
PACKAGE = Path("bridged/__init__.py").read_text(encoding="utf-8")
VERSION = re.search(r'^__version__ = "(.+)"$', PACKAGE, re.M)[1]


def why_not_native() -> str:
    """Why no native data plane can be built here; empty where it can."""
    if not MANIFEST.exists():
        return "its sources are not here"
    cargo = shutil.which(os.environ.get("CARGO", "cargo"))
    beside = str(Path(cargo).parent) if cargo else ""
    rustc = shutil.which("rustc", path=f"{beside}{os.pathsep}{os.environ.get('PATH', os.defpath)}")
    if cargo is None or rustc is None:
        return "there is no cargo and rustc"
    told = subprocess.run([rustc, "--version"], capture_output=True, encoding="utf-8", check=False).stdout
    workspace = Path("native/Cargo.toml").read_text(encoding="utf-8")
    needed = re.search(r'^rust-version *= *"([0-9.]+)"', workspace, re.M)
    found = re.search(r"([0-9]+\.[0-9]+\.[0-9]+)", told)
    if needed and (found is None or _numbers(found[1]) < _numbers(needed[1])):
        return f"rustc {found[1] if found else 'of unknown version'} is older than {needed[1]}"
    if shutil.which("cc") is None:
        return "there is no C compiler (cc)"
    fetched = subprocess.run([cargo, "fetch", "--locked", "--quiet"], cwd="native", check=False).returncode
    return "cargo could not fetch the crates of Cargo.lock" if fetched else ""


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]


extensions = []
version = VERSION
options = {}
if os.environ.get("BRIDGED_PORTABLE_ONLY") != "1":
    reason = why_not_native()
    if not reason or os.environ.get("BRIDGED_NATIVE_REQUIRED") == "1":
        from setuptools_rust import Binding, RustExtension, Strip

        extensions.append(
            RustExtension(
                "bridged._native",
                path=str(MANIFEST),
                binding=Binding.PyO3,
                args=["--locked"],
                debug=False,
                strip=Strip.Debug,
                py_limited_api=True,
                optional=os.environ.get("BRIDGED_NATIVE_REQUIRED") != "1",
            )
        )
        # One wheel for every CPython from 3.11 on.
        options = {"bdist_wheel": {"py_limited_api": "cp311"}}
    else:
        print(f"bridged: PORTABLE BUILD, without the native data plane: {reason}", file=sys.stderr)
        version += "+portable"

setup(version=version, rust_extensions=extensions, options=options)
