"""What a daemon costs while nothing happens: memory, and how often it wakes."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import Bridged, Lab, Profile, TwoSites, bridged_pair
from tests.lab.waiting import wait_for
from tests.system.daemon_lab import stop_all

MEBIOCTETS_MAX = 64
WAKE_UPS_MAX = 4.0
SETTLE_SECONDS = 3.0
IDLE_SECONDS = 6.0
LOADED_KILOBYTES = 2048


@pytest.fixture(scope="module")
def idle() -> Iterator[tuple[Bridged, Bridged]]:
    """A server and a client with one tunnel, native, and quiet LANs."""
    with Lab("footprint") as lab:
        sites = TwoSites(lab)
        for site in sites.sites:
            site.host.namespace.sysctl("net.ipv6.conf.eth0.disable_ipv6", 1)
        keys = {"dataplane": "native"}
        profile = Profile(ping_seconds=10, restart_seconds=60)
        pair = bridged_pair(sites.a, sites.b, profile, server_tunnel=keys, client_tunnel=keys)
        sites.a.host.ping(sites.b.host.ipv4, count=1)
        time.sleep(SETTLE_SECONDS)
        yield pair
        stop_all(*reversed(pair))


@pytest.mark.root
@pytest.mark.native
@pytest.mark.parametrize("end", [0, 1], ids=["server", "client"])
def test_a_daemon_with_one_tunnel_keeps_no_more_than_64_mebioctets_resident(
    idle: tuple[Bridged, Bridged], end: int
) -> None:
    def resident() -> float:
        status = Path(f"/proc/{idle[end].started.pid}/status").read_text(encoding="ascii")
        found = re.search(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE)
        assert found is not None
        return int(found[1]) / 1024

    # What a slow handshake loads is given back a minute later.
    wait_for(lambda: resident() <= MEBIOCTETS_MAX, f"no more than {MEBIOCTETS_MAX} MiB resident", 90.0, 1.0)
    time.sleep(SETTLE_SECONDS)
    assert resident() <= MEBIOCTETS_MAX


@pytest.mark.root
@pytest.mark.native
def test_what_a_late_handshake_has_loaded_is_given_back_within_a_minute(
    idle: tuple[Bridged, Bridged],
) -> None:
    server, client = idle
    status = Path(f"/proc/{server.started.pid}/status")

    def from_files() -> int:
        found = re.search(r"^RssFile:\s+(\d+) kB", status.read_text(encoding="ascii"), re.MULTILINE)
        assert found is not None
        return int(found[1])

    def connect_again() -> int:
        client.stop()
        client.start()
        client.wait_connected()
        return from_files()

    def wait_until_given_back(loaded: int) -> None:
        wait_for(lambda: from_files() < loaded - LOADED_KILOBYTES, "memory given back", 90.0, 1.0)

    before = from_files()
    loaded = connect_again()
    if loaded <= before + LOADED_KILOBYTES:
        # The code of the first handshake was still there: the machine is slow.
        wait_until_given_back(loaded)
        before = from_files()
        loaded = connect_again()
    assert loaded > before + LOADED_KILOBYTES
    wait_until_given_back(loaded)


@pytest.mark.root
@pytest.mark.native
def test_a_connected_daemon_without_traffic_wakes_no_more_than_four_times_a_second(
    idle: tuple[Bridged, Bridged],
) -> None:
    before = [waits(daemon) for daemon in idle]
    time.sleep(IDLE_SECONDS)
    for daemon, earlier in zip(idle, before, strict=True):
        rates = {name: (count - earlier.get(name, 0)) / IDLE_SECONDS for name, count in waits(daemon).items()}
        assert sum(rates.values()) <= WAKE_UPS_MAX, rates


def waits(daemon: Bridged) -> dict[str, int]:
    """How often each thread of a daemon has gone to sleep so far."""
    found = {}
    for task in Path(f"/proc/{daemon.started.pid}/task").iterdir():
        try:
            status = (task / "status").read_text(encoding="ascii")
            name = (task / "comm").read_text(encoding="utf-8").strip()
        except OSError:
            continue  # it ended
        (count,) = re.findall(r"^voluntary_ctxt_switches:\s+(\d+)", status, re.MULTILINE)
        found[f"{name} {task.name}"] = int(count)
    return found


def test_the_start_of_a_daemon_loads_neither_frameworks_nor_the_whole_of_a_library() -> None:
    code = (
        "import sys\n"
        "from bridged.cli.run import load_daemon\n"
        "load_daemon()\n"
        "heavy = {'rich', 'pygments', 'fastapi', 'starlette', 'uvicorn', 'opentelemetry', 'httpx', 'anyio',"
        " 'pyroute2.ndb', 'pyroute2.ipdb', 'pyroute2.iproute', 'sqlite3', 'scapy', 'bridged.admin.models',"
        " 'bridged.dataplane.portable.plane'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == "[]\n"
