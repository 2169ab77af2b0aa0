"""Boots the virtual machine and reads from its console how the tests inside ended."""

from __future__ import annotations

import fcntl
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.vm import image

EMULATOR = "qemu-system-x86_64"
MEMORY_MEGABYTES = 1536
BOOT_AND_TEST_SECONDS = 1300.0
RESULT_MARK = "vm-result: "
TESTS_FILE = Path("/vm-tests.json")
INSIDE = "BRIDGED_TEST_MACHINE"
"""In the environment of tests that run inside the machine."""
PATIENCE = "BRIDGED_LAB_PATIENCE"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one test ended; `text` is pytest's report where it failed."""

    outcome: str
    seconds: float
    text: str


@dataclass(frozen=True, slots=True)
class Run:
    """What one boot told: outcomes by node id, and the whole console."""

    outcomes: dict[str, Outcome]
    console: str


def run(tests: Sequence[str]) -> Run:
    """Run these tests (pytest's node ids) in a machine of their own.

    Raises:
        ImageError: the machine could not be made.
    """
    emulator = shutil.which(EMULATOR)
    if emulator is None:
        raise image.ImageError(f"{EMULATOR} is not installed; `make test` installs it")
    made = image.build({str(TESTS_FILE): json.dumps(list(tests))})
    console = _boot(emulator, made)
    outcomes = {}
    for line in console.splitlines():
        if line.startswith(RESULT_MARK):
            told = json.loads(line.removeprefix(RESULT_MARK))
            outcomes[told["test"]] = Outcome(told["outcome"], told["seconds"], told["text"])
    return Run(outcomes, console)


def run_once(tests: Sequence[str], name: str) -> Run:
    """As `run`, but once for all processes of the test run `name`; always where that is empty.

    One machine at a time: its files are made in one folder.
    """
    image.FOLDER.mkdir(parents=True, exist_ok=True)
    with (image.FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        told = image.FOLDER / f"run-{name}.json"
        if name and told.exists():
            document = json.loads(told.read_text())
            outcomes = {test: Outcome(**outcome) for test, outcome in document["outcomes"].items()}
            return Run(outcomes, document["console"])
        done = run(tests)
        for old in image.FOLDER.glob("run-*.json"):
            old.unlink()
        if name:
            told.write_text(json.dumps(asdict(done)))
        return done


def _boot(emulator: str, made: image.Image) -> str:
    """The console from boot to power-off, or to the time limit."""
    words = f"console=ttyS0 quiet panic=-1 {INSIDE}=1 {PATIENCE}=10"
    words += f" vm.folder={image.REPOSITORY} vm.python={sys.executable}"
    log = image.FOLDER / "console.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            (
                # One processor: an emulator with two can fault where the kernel patches its own code.
                # Its clock goes on while others have the processor: what is awaited inside would be late.
                *("nice", "-n", "-10", emulator, "-accel", "tcg", "-cpu", "max", "-smp", "1"),
                *(
                    "-m",
                    str(MEMORY_MEGABYTES),
                    "-nodefaults",
                    "-no-user-config",
                    "-display",
                    "none",
                    "-no-reboot",
                ),
                *("-kernel", str(made.kernel), "-initrd", str(made.initramfs), "-append", words),
                *("-serial", "stdio", "-nic", "none"),
            ),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
        try:
            process.wait(BOOT_AND_TEST_SECONDS)
        except subprocess.TimeoutExpired:
            file.write(f"\nvm: still running after {BOOT_AND_TEST_SECONDS:.0f} s\n".encode())
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    return log.read_text(errors="replace").replace("\r\n", "\n")
