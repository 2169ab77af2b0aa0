"""What a static key has received and sent is known after a restart; and numbers of wraps are unique."""

from __future__ import annotations

import time
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import structlog

from bridged.addresses import Endpoint
from bridged.protocol.keys.static_key import StaticKey
from bridged.protocol.packets.static_packet import ORIGIN_LENGTH
from bridged.protocol.packets.wrap import TlsAuthKeys
from bridged.runtime.tunnels.replay_mark import ReplayMark, mark_of
from bridged.runtime.tunnels.sessions import Sessions
from bridged.units import UnixSeconds

KEY, OTHER = StaticKey(bytes(256)), StaticKey(bytes(range(256)))
NOW = UnixSeconds(1_800_000_000.5)


def test_what_was_received_is_kept_and_only_grows(tmp_path: Path) -> None:
    path = tmp_path / "replays" / "office"
    mark = ReplayMark(path, KEY, "office")
    for received in (mark_of(5, 9), mark_of(5, 3), mark_of(4, 100)):
        mark.note(received)
    mark.save()
    assert path.stat().st_mode & 0o777 == 0o600
    assert ReplayMark(path, KEY, "office").received == mark_of(5, 9)
    assert ReplayMark(path, OTHER, "office").received == 0
    assert KEY.octets.hex()[:32] not in path.read_text()


def test_each_session_has_a_later_time_also_after_a_restart_with_the_clock_set_back(tmp_path: Path) -> None:
    path = tmp_path / "office"
    clock = (NOW, NOW, NOW + 1, NOW - 1_000_000, NOW - 1_000_000, NOW + 60)
    times = [ReplayMark(path, KEY, "office").next_time(UnixSeconds(now)) for now in clock]
    assert times == sorted(set(times)) and times[0] == int(NOW) and times[-1] == int(NOW + 60)
    without_file = ReplayMark(None, KEY, "office")
    assert without_file.next_time(NOW) < without_file.next_time(NOW)


def test_the_secret_that_marks_own_packets_is_kept_for_its_key(tmp_path: Path) -> None:
    path = tmp_path / "office"
    first = ReplayMark(path, KEY, "office")
    first.next_time(NOW)
    assert len(first.origin) == ORIGIN_LENGTH and first.origin != ReplayMark(None, KEY, "office").origin
    assert ReplayMark(path, KEY, "office").origin == first.origin
    assert ReplayMark(path, OTHER, "office").origin != first.origin
    # An earlier version wrote none: its numbers stay, and a secret is added before the first packet.
    path.write_text(" ".join(path.read_text().split()[:3]) + "\n")
    later = ReplayMark(path, KEY, "office")
    assert later.next_time(NOW) == int(NOW) + 1
    assert ReplayMark(path, KEY, "office").origin == later.origin != first.origin


@pytest.mark.parametrize("content", [b"", b"x y 2", b"1 2", b"\xff\0", b"0" * 5000, b"0 1 2 3"])
def test_a_damaged_file_is_no_mark(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "office").write_bytes(content)
    with structlog.testing.capture_logs() as lines:
        assert ReplayMark(tmp_path / "office", KEY, "office").received == 0
    assert [line["event"] for line in lines] == ["replay_mark_unreadable"]


def test_a_missing_file_and_one_of_another_key_are_no_trouble(tmp_path: Path) -> None:
    path = tmp_path / "office"
    with structlog.testing.capture_logs() as lines:
        mark = ReplayMark(path, OTHER, "office")
        mark.note(7)
        mark.save()
        assert ReplayMark(path, KEY, "office").received == 0
    assert lines == []


def test_numbers_that_cannot_be_are_no_mark(tmp_path: Path) -> None:
    path = tmp_path / "office"
    mark = ReplayMark(path, KEY, "office")
    mark.note(7)
    mark.save()
    name = path.read_text().split()[0]
    for numbers in ("-1 0", f"{1 << 64} 0", f"0 {1 << 32}"):
        path.write_text(f"{name} {numbers}\n")
        assert ReplayMark(path, KEY, "office").received == 0


def test_a_folder_that_cannot_be_written_is_said_once_and_costs_no_tunnel(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with structlog.testing.capture_logs() as lines:
        mark = ReplayMark(tmp_path / "file" / "office", KEY, "office")
        assert mark.next_time(NOW) < mark.next_time(NOW)
    assert [line["event"] for line in lines] == ["replay_mark_not_kept"]


def sessions_without_a_plane() -> Sessions:
    plan: Any = SimpleNamespace(name="office", has_static_key=False)
    plane: Any = None
    return Sessions(plan, plane, lambda link, news: None)


def test_no_two_wraps_of_a_tunnel_begin_with_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    sessions = sessions_without_a_plane()
    moments = iter([float(NOW)] * 3 + [NOW - 3600] * 3 + [NOW + 2])
    monkeypatch.setattr(time, "time", lambda: next(moments))
    keys = TlsAuthKeys(KEY, None)
    made = [sessions._new_channel(keys, Endpoint("192.0.2.1", 1194), 1) for _ in range(7)]
    numbers = [(channel.packet_time, channel.next_packet_id) for channel in made]
    assert numbers == sorted(set(numbers))
    # Nothing that the others send comes near the next one's.
    assert all(after >= (time_, number + 16) for (time_, number), after in pairwise(numbers))


def test_a_wrap_over_tcp_begins_with_its_first_id() -> None:
    sessions = sessions_without_a_plane()
    channel = sessions._new_channel(TlsAuthKeys(KEY, None), Endpoint("192.0.2.1", 443, "tcp"), 2)
    assert channel.next_packet_id == 2


def test_older_packets_are_said_once_until_a_newer_one_came() -> None:
    with structlog.testing.capture_logs() as lines:
        mark = ReplayMark(None, KEY, "office")
        for received, too_old in (
            (mark_of(5, 1), 0),
            (mark_of(5, 1), 3),
            (mark_of(5, 1), 9),
            (mark_of(5, 2), 9),
        ):
            mark.look(received, too_old)
        assert len(lines) == 1
        # Late packets among newer ones are no matter.
        mark.look(mark_of(5, 30), 20)
        assert len(lines) == 1
        mark.look(mark_of(5, 30), 21)
    assert [line["event"] for line in lines] == ["peer_packets_older"] * 2
