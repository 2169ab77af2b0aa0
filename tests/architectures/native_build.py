"""The native data plane for other machines: cross-compiled by Debian's Rust, and run by the emulator.

What is built is kept under build/cross/target. One test at a time builds: they share sources and compilers.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from tests.architectures.machines import REPOSITORY, Machine, MachineError, alone, checkout

NATIVE: Final = REPOSITORY / "native"
TARGET: Final = REPOSITORY / "build" / "cross" / "target"
SECONDS: Final = 1500.0
# What is tried is that it works, not how fast.
_QUICK: Final = {
    "CARGO_PROFILE_RELEASE_LTO": "off",
    "CARGO_PROFILE_RELEASE_CODEGEN_UNITS": "16",
    "CARGO_PROFILE_RELEASE_DEBUG": "0",
    "CARGO_PROFILE_DEV_DEBUG": "0",
}
# The compiler is older than what some tests' libraries say that they need, and does.
_OLD_COMPILER: Final = ("--ignore-rust-version",)
_NEEDS_NEWER_RUST: Final = ', "benches"'


def run_rust_tests(machine: Machine, package: str, left_out: Iterable[str] = ()) -> int:
    """Run the tests of a package of native/ under the emulator, without those named; how many passed.

    Raises:
        MachineError: no compiler can be had, or a test failed.
    """
    skipped = [word for name in left_out for word in ("--skip", name)]
    with alone("cross"):
        said = _cargo(
            *(machine, _copy(), "test", "--package", package, *_OLD_COMPILER, "--no-fail-fast"),
            *(("--", "--exact", *skipped) if skipped else ()),
        )
    return passed(said)


def passed(said: str) -> int:
    """How many tests, by what their programs say."""
    return sum(map(int, re.findall(r"^test result: ok\. (\d+) passed", said, re.MULTILINE)))


def built_tests(machine: Machine, package: str) -> list[Path]:
    """The programs with the tests of a package, built and not run.

    Raises:
        MachineError: they cannot be built.
    """
    with alone("cross"):
        said = _cargo(
            *(machine, _copy(), "test", "--package", package, *_OLD_COMPILER),
            *("--no-run", "--message-format=json"),
        )
    messages = [json.loads(line) for line in said.splitlines()]
    return [Path(message["executable"]) for message in messages if message.get("executable")]


def _copy() -> Path:
    """Of native/, without its benchmarks. Always here: what is built knows the folder of its sources."""
    copy = TARGET.with_name("native")
    shutil.rmtree(copy, ignore_errors=True)
    # With their times: cargo builds again what is newer.
    shutil.copytree(NATIVE, copy, ignore=shutil.ignore_patterns("target", "benches"))
    manifest = copy / "Cargo.toml"
    members = manifest.read_text(encoding="utf-8")
    assert _NEEDS_NEWER_RUST in members
    manifest.write_text(members.replace(_NEEDS_NEWER_RUST, ""), encoding="utf-8")
    return copy


def native_program(machine: Machine, folder: Path) -> Path:
    """A `bridged` of this machine's kind with the native data plane, in a copy of the checkout.

    Raises:
        MachineError: it cannot be built.
    """
    with alone("cross"):
        _cargo(machine, NATIVE, "build", "--release", "--locked", "--package", "bridged-py")
        (built,) = TARGET.glob(f"{_triple(machine)}/release/lib_native.so")
    tree = folder / f"native-{machine.name}"
    for name in ("bridged", "tap"):
        shutil.copytree(checkout() / name, tree / name)
    shutil.copy2(built, tree / "bridged" / "_native.abi3.so")
    program = tree / "run"
    program.write_text(
        f"#!/bin/sh\nPYTHONPATH='{tree}:{tree / 'tap' / 'src'}' exec '{machine.bridged}' \"$@\"\n"
    )
    program.chmod(0o755)
    return program


def _environment(machine: Machine) -> dict[str, str]:
    done = subprocess.run(
        ["bash", "scripts/cross.sh", machine.name],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    if done.returncode != 0:
        raise MachineError(f"no Rust for {machine.name}: {done.stderr[-2000:]}")
    return dict(line.split("=", 1) for line in done.stdout.splitlines())


def _triple(machine: Machine) -> str:
    return _environment(machine)["CARGO_BUILD_TARGET"]


def _cargo(machine: Machine, folder: Path, *arguments: str) -> str:
    given = _environment(machine)
    runner = f"CARGO_TARGET_{given['CARGO_BUILD_TARGET'].upper().replace('-', '_')}_RUNNER"
    cargo = Path(given["CARGO"])
    environment = {
        **os.environ,
        **_QUICK,
        **given,
        runner: f"{machine.emulator} -L {machine.root}",
        "CARGO_TARGET_DIR": str(TARGET),
        "PATH": f"{cargo.parent}:{os.environ['PATH']}",
    }
    done = subprocess.run(
        (str(cargo), *arguments),
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=SECONDS,
        check=False,
    )
    if done.returncode != 0:
        raise MachineError(
            f"{machine.name}: cargo {arguments[0]}\n{done.stdout[-4000:]}{done.stderr[-4000:]}"
        )
    return done.stdout
