"""Whose the files are that a command makes as root: the daemon, another user, has to read them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from bridged.configuration.secrets import exposure
from bridged.files import PUBLIC_FILE, make_private_directory, write_atomic
from bridged.pki import EmbeddedCa

pytestmark = pytest.mark.root
DAEMON = (4711, 4712)


def test_what_root_makes_in_the_daemon_s_state_folder_belongs_to_the_daemon(tmp_path: Path) -> None:
    os.chown(tmp_path, *DAEMON)
    EmbeddedCa.create(tmp_path).issue("site-b", "client", days=10)
    found = list(tmp_path.rglob("*"))
    assert len(found) > 8
    assert {(path.stat().st_uid, path.stat().st_gid) for path in found} == {DAEMON}
    assert {stat.S_IMODE(path.stat().st_mode) for path in found if path.suffix == ".key"} == {0o600}


def test_a_folder_of_root_gets_files_of_root(tmp_path: Path) -> None:
    make_private_directory(tmp_path / "inner")
    write_atomic(tmp_path / "inner" / "file", b"x")
    status = (tmp_path / "inner" / "file").stat()
    assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (0, 0o600)


def test_the_group_of_a_setgid_folder_may_read_private_files_and_nobody_is_warned(tmp_path: Path) -> None:
    os.chown(tmp_path, 0, DAEMON[1])
    tmp_path.chmod(0o2750)
    path = tmp_path / "client.yaml"
    write_atomic(path, b"x")
    status = path.stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (0, DAEMON[1], 0o640)
    assert exposure(path) is None
    path.chmod(0o660)
    assert exposure(path) is not None
    path.chmod(0o640)
    os.chown(path, 0, 0)
    assert exposure(path) is not None


def test_public_files_stay_public(tmp_path: Path) -> None:
    write_atomic(tmp_path / "file", b"x", PUBLIC_FILE)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o644
