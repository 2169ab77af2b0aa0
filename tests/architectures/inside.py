"""Tests of this checkout, run by a machine's own pytest: what passed, and what not."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

from tests.architectures.machines import REPOSITORY, Machine, checkout

NOT_HERE: Final = {
    "tests/unit/checks": "about the text of this repository, the same everywhere",
    "tests/unit/documents": "about the text of this repository, the same everywhere",
    "tests/unit/test_rules_of_tests.py": "about the text of this repository, the same everywhere",
    "tests/unit/test_installation.py": "about the text of this repository, the same everywhere",
    "tests/unit/monitoring": "a program of this host reads generated text",
    "tests/unit/telemetry/test_openvpn_status.py": "packages of other projects read text, which these "
    "machines have not got",
    "tests/unit/cli/test_command_line.py": "each test starts the program, which takes ten seconds emulated; "
    "whole daemons are started and asked by tests of their own",
    "tests/unit/cli/test_cli_import.py::test_a_terminal_is_asked_for_the_password": "the emulator has no "
    "terminals",
    "tests/unit/test_memory.py::test_code_that_was_given_back_runs_again": "the emulator's own memory "
    "counts, where its translated code stays",
}
"""Files and tests that are left out on every emulated machine, and why: printed before the tests."""

_DESTINATIONS: Final = "tests/unit/runtime/test_destinations.py"
_NETLINK: Final = "the emulator does not swap the octets of netlink messages"
NOT_ON: Final = {
    "s390x": {
        "tests/unit/cli/test_cli_tap.py": _NETLINK,
        f"{_DESTINATIONS}::test_a_bridge_asks_for_destinations_while_tunnels_come_and_go": _NETLINK,
    }
}
"""The same for one machine."""

MARKS = "not root and not measures"
"""An emulator is ten times slower than what it emulates: time limits say nothing there."""
PATIENCE = "10"
"""The tests wait so many times longer before they give up (tests/lab/waiting.py)."""


@dataclass(slots=True)
class Outcome:
    """`passed`: how many tests of each file. `others`: each test that failed or was skipped, and why."""

    passed: Counter[str] = field(default_factory=Counter)
    others: dict[str, str] = field(default_factory=dict)


def run_tests(machine: Machine, folder: Path, *arguments: str, seconds: float) -> Outcome:
    """Run tests that need no root; files go to `folder`.

    Raises:
        AssertionError: pytest itself did not end well; with the end of what it said.
    """
    # Files go to `folder`, but the paths of Unix sockets have 107 bytes at most.
    with tempfile.TemporaryDirectory(prefix="lab-") as short:
        return _run_tests(machine, folder, Path(short) / "t", *arguments, seconds=seconds)


def _run_tests(machine: Machine, folder: Path, short: Path, *arguments: str, seconds: float) -> Outcome:
    report, said = folder / "report.xml", folder / "output.txt"
    command = (
        *(
            str(machine.python),
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "--timeout=900",
            "-m",
            MARKS,
        ),
        *(f"--junitxml={report}", "-o", "junit_family=xunit1", f"--basetemp={short}"),
        *(_left_out(path) for path in (*NOT_HERE, *NOT_ON.get(machine.name, ()))),
        *arguments,
    )
    environment = {name: text for name, text in os.environ.items() if not name.startswith("PYTEST_")}
    with said.open("wb") as output:
        ended = subprocess.run(
            command,
            cwd=checkout(),
            env={**environment, "BRIDGED_PORTABLE_ONLY": "1", "BRIDGED_LAB_PATIENCE": PATIENCE},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            timeout=seconds,
            check=False,
        )
    text = said.read_text(errors="replace")
    assert ended.returncode in {0, 1} and report.exists(), (
        f"{machine.name}: {ended.returncode}\n{text[-6000:]}"
    )
    return _read(report)


def _left_out(path: str) -> str:
    return f"--deselect={path}" if "::" in path else f"--ignore={path}"


def _read(report: Path) -> Outcome:
    outcome = Outcome()
    for case in ElementTree.parse(report).iter("testcase"):
        trouble = next((part for part in case if part.tag in {"failure", "error", "skipped"}), None)
        name = f"{case.get('file')}::{case.get('name')}"
        if trouble is None:
            outcome.passed[case.get("file") or ""] += 1
        else:
            outcome.others[name] = f"{trouble.tag}: {(trouble.text or trouble.get('message') or '')[-1500:]}"
    return outcome


def files_of(machine: Machine, *paths: str) -> set[str]:
    """The test files among and under these paths that it runs, without files that need root or native."""
    found: set[str] = set()
    left_out = (*NOT_HERE, *NOT_ON.get(machine.name, ()))
    for path in paths:
        place = REPOSITORY / path
        files = [place] if place.is_file() else sorted(place.rglob("test_*.py"))
        found.update(str(file.relative_to(REPOSITORY)) for file in files if not _needs_more(file))
    return {file for file in found if not file.startswith(left_out)}


def _needs_more(file: Path) -> bool:
    text = file.read_text(encoding="utf-8")
    return bool(re.search(r"^pytestmark = .*\b(root|native)\b", text, re.MULTILINE))
