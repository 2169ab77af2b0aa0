"""Where a server's clients were, over a crash."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from bridged.addresses import Endpoint
from bridged.runtime.server.known_clients import CLIENTS_MAX, LINES_SPARE, KnownClients

V4 = Endpoint("192.0.2.1", 1000)
V6 = Endpoint("2001:db8::1", 1000)


def crashed(path: Path) -> list[Endpoint]:
    """What the next run finds."""
    return KnownClients(path).load()


def test_after_a_crash_those_who_were_connected_are_known_once(tmp_path: Path) -> None:
    path = tmp_path / "clients" / "hub"
    clients = KnownClients(path)
    assert clients.load() == []
    for endpoint in (V4, V6, Endpoint("192.0.2.2", 5)):
        clients.note(endpoint)
        clients.note(endpoint)
    clients.forget(Endpoint("192.0.2.2", 5))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert crashed(path) == [V4, V6]
    assert crashed(path) == [], "who does not come back is not told for ever"


def test_after_a_stop_nobody_is_known(tmp_path: Path) -> None:
    path = tmp_path / "hub"
    clients = KnownClients(path)
    clients.load()
    clients.note(V4)
    clients.close()
    clients.close()
    assert not path.exists() and crashed(path) == []


def test_the_file_stays_small_however_many_come_and_go(tmp_path: Path) -> None:
    path = tmp_path / "hub"
    clients = KnownClients(path)
    clients.load()
    clients.note(V6)
    for _ in range(3 * LINES_SPARE):
        clients.note(V4)
        clients.forget(V4)
    assert path.read_bytes().count(b"\n") <= LINES_SPARE + 2
    assert crashed(path) == [V6]


def test_clients_that_are_kept_are_bounded(tmp_path: Path) -> None:
    clients = KnownClients(tmp_path / "hub")
    clients.load()
    for number in range(CLIENTS_MAX + 10):
        clients.note(Endpoint("192.0.2.1", 1 + number))
    assert len(crashed(tmp_path / "hub")) == CLIENTS_MAX


@pytest.mark.parametrize(
    "content", [b"\xff\x00\n+", b"+host:1\n*1.2.3.4:5\n+1.2.3.4\n\n-\n", b"+1.2.3.4:99999\n"]
)
def test_a_damaged_file_is_as_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "hub"
    path.write_bytes(content)
    assert crashed(path) == []


def test_a_link_in_the_way_is_not_followed_and_no_folder_is_no_failure(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text(f"+{V4}\n")
    path = tmp_path / "hub"
    path.symlink_to(victim)
    clients = KnownClients(path)
    assert clients.load() == []
    clients.note(V6)
    assert victim.read_text() == f"+{V4}\n" and not path.is_symlink()
    blocked = KnownClients(Path(os.devnull) / "hub")
    assert blocked.load() == []
    blocked.note(V4)
    blocked.forget(V4)
    blocked.close()
    assert KnownClients(None).load() == []


def test_a_full_disk_costs_no_descriptor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    opened = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(os, "write", full)
    clients = KnownClients(tmp_path / "hub")
    clients.load()
    clients.note(V4)
    assert len(os.listdir("/proc/self/fd")) == opened
