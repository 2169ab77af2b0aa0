"""`make demo` does the main job, says so, and leaves nothing behind, also when it is interrupted."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.lab.namespace import lab_namespaces

pytestmark = pytest.mark.root
PROJECT = Path(__file__).parents[2]
DEMO = [sys.executable, "-m", "tests.lab.demo"]
STEPS = (
    "ARP",
    "IPv4 ping",
    "IPv6 ping",
    "DHCP lease",
    "MAC addresses",
    "encryption",
    "throughput",
    "latency",
)


def left_by(pid: int) -> list[str]:
    """Namespaces and files that the lab of that process has made and that still exist."""
    files = [path.name for path in Path(tempfile.gettempdir()).glob(f"bridged-lab-*-{pid}-*")]
    return [name for name in lab_namespaces() if f"-{pid}-" in name] + files


def test_the_demo_shows_every_step_and_leaves_nothing_behind() -> None:
    demo = subprocess.Popen(DEMO, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    output, _ = demo.communicate(timeout=110)
    assert demo.returncode == 0, output
    for step in STEPS:
        assert step in output
    assert "bridged_build_info" in output
    assert left_by(demo.pid) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_nothing_behind_and_says_so_by_its_status(number: signal.Signals) -> None:
    demo = subprocess.Popen(DEMO, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert demo.stdout is not None
    for line in demo.stdout:
        if "tunnel up" in line:
            break
    demo.send_signal(number)
    demo.stdout.read()
    assert demo.wait(30) == 128 + number
    assert left_by(demo.pid) == []
