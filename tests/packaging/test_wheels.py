"""What an index gets without Rust: sdist and portable wheel of bridged, and the same of bridged-tap."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

import bridged

PROJECT = Path(__file__).parents[2]
VERSION = bridged.__version__


def run(*command: str | Path, cwd: Path = PROJECT, **environment: str) -> str:
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def build(folder: Path, mask: str, zone: str) -> Path:
    for script in ("pure_wheel.sh", "tap_wheel.sh"):
        run("bash", "-c", f"umask {mask}; exec bash scripts/{script} '{folder}'", TZ=zone)
    return folder


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("dist"), "022", "UTC")


def environment_with(folder: Path, *files: Path) -> Path:
    """The interpreter of an environment with these distributions; what they import is that of the tests."""
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    interpreter = folder / "bin" / "python"
    (packages,) = (folder / "lib").glob("python*/site-packages")
    install = (
        "install",
        "--quiet",
        "--no-index",
        "--no-deps",
        "--no-build-isolation",
        "--disable-pip-version-check",
    )
    run(
        *(sys.executable, "-m", "pip", "--python", interpreter, *install, *files),
        BRIDGED_PORTABLE_ONLY="1",
        PYTHONPATH=sysconfig.get_path("purelib"),
    )
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return interpreter


def check_program(interpreter: Path, folder: Path) -> None:
    """It is the installed one, says its version, finds its schema and checks a configuration."""
    program = interpreter.with_name("bridged")
    where = run(
        interpreter,
        "-c",
        "import bridged, bridged_tap; print(bridged.__file__, bridged_tap.__file__)",
        cwd=folder,
    )
    assert all(Path(path).is_relative_to(interpreter.parents[1]) for path in where.split())
    said = run(program, "--version", cwd=folder)
    assert said.startswith(f"bridged {VERSION}, portable data plane")
    broken, good = folder / "broken.yaml", folder / "good.yaml"
    broken.write_text("tunnels: {}\n")
    done = subprocess.run(
        [program, "check", broken], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 2 and "broken.yaml:1: bridges: is missing" in done.stderr
    options = ("--state", folder / "state", "--remote", "192.0.2.1:1194", "--bridge", "br0", "--port", "lan0")
    run(program, "init", *options, "--output", good, cwd=folder)
    run(program, "check", good, cwd=folder)


def test_the_same_sources_give_the_same_bytes(built: Path, tmp_path: Path) -> None:
    again = build(tmp_path, "077", "Pacific/Chatham")
    names = sorted(path.name for path in built.iterdir())
    assert names == [
        f"bridged-{VERSION}-py3-none-any.whl",
        f"bridged-{VERSION}.tar.gz",
        f"bridged_tap-{VERSION}-py3-none-any.whl",
        f"bridged_tap-{VERSION}.tar.gz",
    ]
    assert names == sorted(path.name for path in again.iterdir())
    for name in names:
        assert (built / name).read_bytes() == (again / name).read_bytes(), name


def test_the_sdist_has_what_both_builds_are_made_of_and_nothing_that_was_built(built: Path) -> None:
    with tarfile.open(built / f"bridged-{VERSION}.tar.gz") as archive:
        members = archive.getmembers()
    names = {member.name.partition("/")[2] for member in members}
    assert {
        "pyproject.toml",
        "setup.py",
        "README.md",
        "LICENSE",
        "requirements.lock",
        "bridged/py.typed",
    } <= names
    tracked = run("git", "ls-files", "bridged", "native", ":!native/fuzz").split()
    assert set(tracked) <= names
    assert {"native/Cargo.toml", "native/Cargo.lock"} <= names
    assert not [name for name in names if name.startswith("native/target") or name.endswith((".so", ".pyc"))]
    assert {(member.uid, member.gid, member.mode & 0o022) for member in members} == {(0, 0, 0)}


def test_the_portable_wheel_is_pure_and_has_every_module(built: Path) -> None:
    with zipfile.ZipFile(built / f"bridged-{VERSION}-py3-none-any.whl") as archive:
        names = set(archive.namelist())
        wheel = archive.read(f"bridged-{VERSION}.dist-info/WHEEL").decode()
    assert "Root-Is-Purelib: true" in wheel
    assert set(run("git", "ls-files", "bridged").split()) <= names
    assert not [
        name for name in names if name.endswith((".so", ".rs")) or name.startswith(("native", "tests"))
    ]
    assert f"bridged-{VERSION}.dist-info/licenses/LICENSE" in names


@pytest.mark.parametrize("kind", ["-py3-none-any.whl", ".tar.gz"])
def test_wheels_and_sdists_install_into_an_empty_environment_and_run(
    kind: str, built: Path, tmp_path: Path
) -> None:
    files = (built / f"bridged-{VERSION}{kind}", built / f"bridged_tap-{VERSION}{kind}")
    check_program(environment_with(tmp_path / "venv", *files), tmp_path)
