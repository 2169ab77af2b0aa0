"""A daemon that is forked off a process with all modules is to its host what an executed one is."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path

import pytest

from tests.lab import Bridged, Lab, TwoSites, wait_for
from tests.lab.bridged_daemon import bridged_pair
from tests.lab.prepared import Started, offered
from tests.lab.topology import Site
from tests.lab.waiting import LabError

pytestmark = pytest.mark.root

PROJECT = Path(__file__).parents[2]
ORPHAN = """
import os, signal
from tests.lab import Lab, TwoSites
from tests.lab.bridged_daemon import bridged_pair
from tests.lab.prepared import offered
with Lab("orphan") as lab, offered():
    for daemon in bridged_pair(*TwoSites(lab).sites):
        print(daemon.started.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(scope="module")
def sites() -> Iterator[TwoSites]:
    with Lab("prepared") as lab:
        yield TwoSites(lab, bridges=False)


def surroundings(daemon: Bridged) -> dict[str, object]:
    """What the host shows of a running daemon."""
    pid = daemon.started.pid
    folder = Path("/proc", str(pid))
    status = dict(line.split(":\t") for line in (folder / "status").read_text().splitlines() if ":\t" in line)
    return {
        "network": os.stat(folder / "ns" / "net").st_ino,
        "interfaces": sorted(os.listdir(folder / "root" / "sys" / "class" / "net")),
        "is_session_leader": os.getsid(pid) == pid,
        "folder": os.readlink(folder / "cwd"),
        "signals": [status[name] for name in ("SigBlk", "SigIgn", "SigCgt")],
        "descriptors": sorted(target.split(":")[0] for _, target in _lasting(folder / "fd")),
    }


def _lasting(descriptors: Path) -> set[tuple[str, str]]:
    """(number, target) of all that stay open, but the log: a daemon reads a file now and then."""

    def look() -> set[tuple[str, str]]:
        found = set()
        for entry in descriptors.iterdir():
            with suppress(FileNotFoundError):
                found.add((entry.name, os.readlink(entry)))
        return {(number, target) for number, target in found if not target.endswith(".log")}

    first = look()
    time.sleep(0.5)
    return first & look()


def test_its_network_signals_and_descriptors_are_those_of_an_executed_daemon(sites: TwoSites) -> None:
    found = []
    for is_forked, how in ((False, nullcontext()), (True, offered())):
        with how:
            daemons = bridged_pair(*sites.sites)
        sites.a.host.ping(sites.b.host.ipv4)
        assert [isinstance(daemon.started.popen, Started) for daemon in daemons] == [is_forked] * 2
        found.append([surroundings(daemon) for daemon in daemons])
        assert [daemon.stop() for daemon in daemons] == [0, 0]
    assert found[0] == found[1]


def wrong(site: Site) -> Bridged:
    made = Bridged(site, {"bridges": {"br0": {"ports": []}}, "tunnels": {}, "nonsense": 1})
    made.start(wait=False)
    assert made.started.wait(20) == 2
    return made


def test_its_exit_status_and_last_words_are_those_of_an_executed_daemon(sites: TwoSites) -> None:
    executed = wrong(sites.a)
    with offered():
        forked = wrong(sites.a)
        assert isinstance(forked.started.popen, Started)
        assert forked.log == executed.log != ""
        pair = bridged_pair(*sites.sites)
    assert [daemon.stop(signal.SIGKILL) for daemon in pair] == [-signal.SIGKILL] * 2


@pytest.mark.native
@pytest.mark.parametrize("how", [nullcontext, offered])
def test_one_that_does_not_end_says_what_its_threads_do(
    sites: TwoSites, how: Callable[[], AbstractContextManager[None]]
) -> None:
    with how():
        daemon, other = bridged_pair(*sites.sites)
    with pytest.raises(LabError, match="did not end") as met:
        daemon.stop(signal.SIGCHLD, 0.3)
    text = str(met.value)
    assert re.search(r"^thread \d+ tap-0: [A-Z], in ", text, re.MULTILINE), text
    assert "Current thread" in text and "asyncio/base_events.py" in text
    assert not daemon.started.running
    assert other.stop() == 0


def test_it_ends_with_the_test_process() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", ORPHAN], cwd=PROJECT, capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    pids = ended.stdout.split()
    assert len(pids) == 2
    wait_for(lambda: not [pid for pid in pids if Path("/proc", pid).exists()], "both daemons to be gone")
    with Lab("after"):
        pass  # removes what the killed one left
