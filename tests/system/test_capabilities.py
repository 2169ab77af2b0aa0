"""A machine that cannot run the privileged tests is told so, loudly, before anything runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.root
PROJECT = Path(__file__).parents[2]


def run_without_capabilities(*selection: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *("setpriv", "--bounding-set", "-all", "--inh-caps", "-all"),
            *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", *selection),
        ],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_without_privilege_a_session_with_root_tests_stops_at_the_start() -> None:
    ended = run_without_capabilities("tests/interop/test_lab_with_openvpn.py")
    assert ended.returncode == 3
    output = ended.stdout + ended.stderr
    assert "need what this machine lacks" in output
    assert "network namespaces" in output
    assert "skipped" not in output.replace("a skipped test proves nothing", "")
    assert "passed" not in output


def test_without_privilege_the_lab_itself_refuses_with_the_reason() -> None:
    program = "from tests.lab.core import Lab\nwith Lab('none'): pass"
    ended = subprocess.run(
        ["setpriv", "--bounding-set", "-all", "--inh-caps", "-all", sys.executable, "-c", program],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode != 0
    assert "this machine lacks what the lab needs" in ended.stderr
