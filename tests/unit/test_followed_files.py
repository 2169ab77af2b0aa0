"""Files that are read again when they change: also on file systems that keep whole seconds."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bridged import files
from bridged.files import FollowedFile
from bridged.runtime.server.password_file import UserFile
from bridged.telemetry import web_access
from bridged.telemetry.web_access import WebAccess

NOW = int(time.time())


def write(path: Path, text: str, at: int = NOW) -> None:
    """In place, within the second `at`: inode, time and size stay if the text is as long."""
    path.write_text(text)
    os.utime(path, (at, at))


HASH = "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$KioqKioqKioqKioqKioqKioqKioqKioqKioqKioqKio"
WEB_HASH = "$2b$04$VEG8wUTl.cdFSf3fxDZmROiv61SmcP.p5WJ5rgj9PsowCFEXEZ9xi"


def _followed(path: Path) -> Callable[[], str]:
    file, last = FollowedFile(path, 1 << 20), ""

    def read() -> str:
        nonlocal last
        changed = file.changed()
        last = last if changed is None else changed
        return last

    return read


def _users(path: Path) -> Callable[[], str]:
    users = UserFile(path)
    return lambda: "".join(users.users())


def _web(path: Path) -> Callable[[], str]:
    access = WebAccess(file=path)
    access.load()

    def read() -> str:
        access.tls()
        return "".join(access._config.users)

    return read


FOLLOWERS = {
    "list": (_followed, "{}"),
    "passwords": (_users, f"{{}}:{HASH}\n"),
    "web": (_web, f"basic_auth_users: {{{{{{}}: {WEB_HASH}}}}}"),
}


@pytest.mark.parametrize("kind", FOLLOWERS)
def test_a_change_within_a_second_that_keeps_the_size_is_seen(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web_access, "LOOK_SECONDS", 0.0)
    follow, form = FOLLOWERS[kind]
    path = tmp_path / "file"
    write(path, form.format("alice"))
    path.chmod(0o600)
    read = follow(path)
    assert read() == "alice"
    before = path.stat()
    write(path, form.format("carol"))
    after = path.stat()
    assert (before.st_ino, before.st_mtime_ns, before.st_size) == (
        after.st_ino,
        after.st_mtime_ns,
        after.st_size,
    )
    assert read() == "carol"


def test_a_change_far_behind_the_start_of_a_large_file_is_seen_once_its_second_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, head = tmp_path / "file", "x" * files.MARKED_OCTETS
    file = FollowedFile(path, 1 << 20)
    write(path, head + "alice", int(time.time()))
    assert file.changed() == head + "alice"
    write(path, head + "carol", int(path.stat().st_mtime))
    monkeypatch.setattr(files, "SETTLED_SECONDS", -1.0)
    assert file.changed() == head + "carol"
    assert file.changed() is None


def test_a_file_that_stays_is_read_once(tmp_path: Path) -> None:
    path = tmp_path / "file"
    file = FollowedFile(path, 1 << 20)
    write(path, "alice")
    assert file.changed() == "alice"
    assert file.changed() is None
    path.unlink()
    assert file.changed() == ""
