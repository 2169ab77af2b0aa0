"""What each `make` target installs, and what `pip install` says of the build that it made."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
RUNNING: set[str] = {""}
LAB = {"", "--lab"}
TESTS = {"", "--tests"}


def bootstraps(target: str, folder: Path) -> set[str]:
    """The first argument of each call of bootstrap.sh that a target makes on a fresh machine."""
    for name in ("Makefile", "requirements.lock", "requirements-test.lock", "pyproject.toml"):
        shutil.copy(PROJECT / name, folder)
    (folder / "tap").mkdir()
    shutil.copy(PROJECT / "tap" / "pyproject.toml", folder / "tap")
    (folder / "scripts").mkdir()
    for name in ("bootstrap.sh", "native.sh"):
        shutil.copy(PROJECT / "scripts" / name, folder / "scripts")
    command = ["make", "--dry-run", "--no-print-directory", target]
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))
    }
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=30, check=True
    )
    calls = re.findall(r"^bash scripts/bootstrap\.sh *(\S*)$", done.stdout, re.MULTILINE)
    assert calls, done.stdout
    return set(calls)


@pytest.mark.parametrize(
    ("target", "installs"),
    [
        *(("setup", RUNNING), ("run", RUNNING), ("demo", LAB), ("test", TESTS), ("check", TESTS)),
        *(
            ("lint", TESTS),
            ("bench", TESTS),
            ("test-vm", TESTS),
            ("test-architectures", TESTS),
            ("soak", TESTS),
            ("crashes", TESTS),
        ),
        *(("fuzz", TESTS), ("format", TESTS), ("wheel", TESTS), ("lock", RUNNING)),
    ],
)
def test_each_target_installs_what_it_needs_and_no_more(
    target: str, installs: set[str], tmp_path: Path
) -> None:
    assert bootstraps(target, tmp_path) == installs


def locked(name: str) -> dict[str, str]:
    text = (PROJECT / name).read_text(encoding="utf-8")
    return dict(re.findall(r"^([a-z0-9_.-]+)==(\S+)", text, re.MULTILINE))


def test_running_needs_no_package_of_the_tests_and_the_same_versions_as_they() -> None:
    running, tests = locked("requirements.lock"), locked("requirements-test.lock")
    assert running.items() < tests.items()
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    def names(requirements: list[str]) -> set[str]:
        return {re.split(r"[><=; ]", text)[0].lower().replace("_", "-") for text in requirements}

    # bridged-tap comes from this tree.
    assert names(project["dependencies"]) - {"bridged-tap"} <= set(running)
    only_tests = names(project["optional-dependencies"]["test"])
    assert only_tests <= set(tests) and not only_tests & set(running)


def test_package_lists_are_refreshed_before_the_first_try() -> None:
    for name, packages in (("bootstrap.sh", "missing"), ("native.sh", "cargo-web")):
        text = (PROJECT / "scripts" / name).read_text(encoding="utf-8")
        text = text[text.index("apt-get update") :]
        assert "apt-cache" not in text
        assert packages in text


def test_pip_without_cargo_says_in_its_last_line_that_the_build_is_portable(tmp_path: Path) -> None:
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(PROJECT / name, tmp_path)
    (tmp_path / "bridged").mkdir()
    shutil.copy(PROJECT / "bridged" / "__init__.py", tmp_path / "bridged")
    (tmp_path / "native" / "py").mkdir(parents=True)
    for name in ("Cargo.toml", "py/Cargo.toml"):
        shutil.copy(PROJECT / "native" / name, tmp_path / "native" / name)
    command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--no-deps"]
    done = subprocess.run(
        [*command, "--no-build-isolation", "--target", "out", "."],
        cwd=tmp_path,
        env={**os.environ, "CARGO": str(tmp_path / "no-cargo"), "BRIDGED_PORTABLE_ONLY": ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.splitlines()[-1].endswith("+portable")
    assert re.search(r"bridged-\S+\+portable-py3-none-any\.whl", done.stdout)
