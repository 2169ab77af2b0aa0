"""What the daemon tells its service manager, and what it takes from it."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.lab import BRIDGED, Bridged, Lab, Profile, TwoSites, bridged_daemon
from tests.lab.host_links import photograph
from tests.lab.service_manager import ServiceManager, listening

pytestmark = pytest.mark.root

WATCHDOG_SECONDS = 4
EXIT_CONFIGURATION = 2
PTRACE_ATTACH, PTRACE_DETACH, WALL = 16, 17, 0x40000000


@pytest.fixture
def sites() -> Iterator[TwoSites]:
    with Lab("manager") as lab:
        yield TwoSites(lab, bridges=False)


@contextmanager
def thread_held(pid: int, name: str) -> Iterator[None]:
    """One thread of a process stands still, as a debugger would have it; the others go on (ptrace(2))."""
    libc = ctypes.CDLL(None, use_errno=True)
    tasks = Path(f"/proc/{pid}/task").iterdir()
    task = next(int(one.name) for one in tasks if (one / "comm").read_text().strip() == name)
    assert libc.ptrace(PTRACE_ATTACH, task, None, None) == 0
    os.waitpid(task, WALL)
    try:
        yield
    finally:
        libc.ptrace(PTRACE_DETACH, task, None, None)


def make_server(sites: TwoSites, profile: Profile, **tunnel: object) -> Bridged:
    identity = profile.authority.issue("server", "server")
    return bridged_daemon.server(sites.a, profile, identity, tunnel=tunnel)


def test_readiness_status_reload_and_stop_are_reported_and_the_host_is_restored(sites: TwoSites) -> None:
    before = sites.a.namespace.call(photograph)
    profile = Profile()
    server = make_server(sites, profile)
    identity = profile.authority.issue("client", "client")
    client = bridged_daemon.client(sites.b, profile, identity, sites.a.wan_ipv4)
    with ServiceManager(server) as manager:
        manager.start()
        assert manager.status == "1 tunnel, 0 peers"
        assert manager.names() == {"tap/tap0/0", "udp/lab/0"}
        client.start()
        manager.wait_until(lambda: manager.status == "1 tunnel, 1 peer", "the status of a peer", 20)
        # What systemctl reload does, and its exit status.
        server.command("reload", "--config", str(server.file))
        assert manager.states == ["READY", "RELOADING", "READY"]
        server.configuration["bridges"]["br0"]["ports"] = 7
        server.write()
        command = f"{BRIDGED} reload --config {server.file}; echo $?"
        ended = server.site.namespace.run("sh", "-c", command, check=False)
        assert ended.split()[-1] != "0"
        assert manager.states[-2:] == ["RELOADING", "READY"]
        assert "reload rejected" in manager.status
        assert server.stop() == 0
        assert manager.states[-1] == "STOPPING"
        # It takes its descriptors out of the store itself: a restart could follow.
        manager.wait_until(lambda: not manager.store, "an empty store")
        assert manager.refused == 0
    client.stop()
    assert sites.a.namespace.call(photograph) == before


def test_after_a_crash_the_adapter_is_the_same_and_a_changed_configuration_gets_what_fits(
    sites: TwoSites,
) -> None:
    server = make_server(sites, Profile())
    index = "/sys/class/net/tap0/ifindex"
    with ServiceManager(server) as manager:
        manager.start()
        before = sites.a.namespace.run("cat", index)
        manager.crash()
        assert sites.a.namespace.run("cat", index) == before
        # Another port, and an adapter of another kind: both are made anew, although the store had others.
        server.configuration["tunnels"]["lab"] |= {"workers": 2, "listen": "0.0.0.0:1195"}
        server.write()
        manager.crash()
        assert sites.a.namespace.run("cat", index) != before
        assert "tap_not_inherited" in server.log
        assert manager.names() == {*(f"tap/tap0/{number}" for number in range(3)), "udp/lab/0", "udp/lab/1"}
        assert "1195" in sites.a.namespace.run("ss", "-Hlun")
        assert manager.stop() == 0


def test_signs_of_life_come_while_all_threads_work_and_cease_when_one_stands_still(sites: TwoSites) -> None:
    server = make_server(sites, Profile(), dataplane="native")
    environment = {"WATCHDOG_USEC": str(WATCHDOG_SECONDS * 1_000_000)}
    with ServiceManager(server, environment=environment) as manager:
        manager.start()
        beats = manager.beats
        manager.wait_until(lambda: manager.beats >= beats + 2, "signs of life", 3 * WATCHDOG_SECONDS)
        with thread_held(server.started.pid, "wire-0"):
            server.started.wait_for_output("threads_silent", 4 * WATCHDOG_SECONDS)
            beats = manager.beats
            # The control loop goes on, and that alone is no sign of life.
            server.status()
            server.started.wait_for_output("threads_silent")
            assert manager.beats == beats
        manager.wait_until(lambda: manager.beats > beats, "signs of life again", 4 * WATCHDOG_SECONDS)
        assert manager.stop() == 0


def test_sockets_of_the_manager_are_used_and_left_to_it(sites: TwoSites) -> None:
    server = make_server(sites, Profile())
    with ExitStack() as stack:
        admin = stack.enter_context(listening(server.socket))
        with sites.a.namespace.entered():
            metrics = stack.enter_context(listening(bridged_daemon.METRICS_PORT))
        inode = server.socket.stat().st_ino
        given = {"admin": admin, "metrics": metrics}
        manager = stack.enter_context(ServiceManager(server, listeners=given))
        manager.start()
        assert server.status()["version"]
        assert "bridged_build_info" in server.metrics()
        manager.restart()
        assert "bridged_build_info" in server.metrics()
        assert manager.stop() == 0
        # Whoever calls now waits for the next start.
        assert server.socket.stat().st_ino == inode
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
            caller.connect(str(server.socket))


def test_a_wrong_configuration_ends_with_a_status_of_its_own_and_an_occupied_port_does_not(
    sites: TwoSites,
) -> None:
    server = make_server(sites, Profile())
    text = server.file.read_text()
    server.file.write_text("tunnels: 7\n")
    server.start(wait=False)
    assert server.started.wait(20) == EXIT_CONFIGURATION
    server.file.write_text(text)
    with sites.a.namespace.entered():
        occupied = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with occupied:
        occupied.bind(("0.0.0.0", 1194))
        server.start(wait=False)
        assert server.started.wait(20) == 1


def test_usr1_without_a_manager_is_an_ordinary_stop(sites: TwoSites) -> None:
    before = sites.a.namespace.call(photograph)
    server = make_server(sites, Profile()).start()
    assert server.stop(signal.SIGUSR1) == 0
    assert "no_descriptor_store" in server.log
    assert sites.a.namespace.call(photograph) == before
