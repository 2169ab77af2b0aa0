"""As root, the daemon gives its user only folders that are the daemon's."""

from __future__ import annotations

import os
import pwd
import socket
from pathlib import Path

import pytest

from bridged.runtime.service.privileges import find_foreign, hand_folders_to

pytestmark = pytest.mark.root
USER = pwd.getpwnam("daemon")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    if os.geteuid() != 0:
        pytest.fail("needs root: only root can give files away", pytrace=False)
    made = tmp_path / "private"
    made.mkdir(mode=0o700)
    return made


def test_a_private_folder_is_given_with_its_files_but_not_what_links_lead_to(folder: Path) -> None:
    target = folder.parent / "target"
    for file in (target, folder / "own"):
        file.write_text("")
    (folder / "soft").symlink_to(target)
    (folder / "hard").hardlink_to(target)
    assert find_foreign(USER, folder, folder) is None
    hand_folders_to(USER, folder)
    assert [file.stat().st_uid for file in (folder, folder / "own", target)] == [USER.pw_uid, USER.pw_uid, 0]


def test_a_home_is_not_given_away(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = pwd.struct_passwd(("root", "x", 0, 0, "root", str(folder), "/bin/sh"))
    monkeypatch.setattr(pwd, "getpwall", lambda: [root])
    assert find_foreign(USER, folder, folder) == folder
    assert find_foreign(USER, folder / "state", folder) == folder
    assert find_foreign(USER, folder / "state", folder / "run") is None
    # Others may read it, so it stays root's anyway.
    folder.chmod(0o755)
    assert find_foreign(USER, folder, folder) is None


def test_a_folder_for_sockets_is_given_only_if_it_has_nothing_else(folder: Path) -> None:
    state = folder.parent / "state"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "bridged.sock"))
        assert find_foreign(USER, state, folder) is None
        (folder / "authorized_keys").write_text("")
        assert find_foreign(USER, state, folder) == folder
