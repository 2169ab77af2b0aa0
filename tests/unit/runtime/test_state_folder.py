"""A state folder that the daemon's user cannot use ends the start, and the text says what to do."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from bridged.errors import ConfigurationError
from bridged.runtime.site.state_folder import make_state_folder

USER = pwd.getpwnam("daemon")
_MAKE = """
import sys; from pathlib import Path; from bridged.errors import ConfigurationError
from bridged.runtime.site.state_folder import make_state_folder
import os
folder = Path(sys.argv[1])
os.setresgid(*[int(sys.argv[3])] * 3); os.setgroups([]); os.setresuid(*[int(sys.argv[2])] * 3)
try:
    make_state_folder(folder)
except ConfigurationError as error:
    print(error)
"""


def made_by_the_user(folder: Path) -> str:
    """What the daemon's user is told."""
    command = (sys.executable, "-c", _MAKE, str(folder), str(USER.pw_uid), str(USER.pw_gid))
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, encoding="utf-8").stdout.strip()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    if os.geteuid() != 0:
        pytest.fail("needs root: it becomes another user", pytrace=False)
    for folder in (tmp_path, *tmp_path.parents[:3]):
        folder.chmod(0o755)
    return tmp_path


@pytest.mark.root
def test_a_closed_folder_above_is_named_with_its_cure(place: Path) -> None:
    closed = place / "closed"
    closed.mkdir(mode=0o700)
    for there in (False, True):
        text = made_by_the_user(closed / "inner" / "state")
        assert f"state_directory: {closed}/inner/state: user daemon may not enter {closed}: " in text
        assert f"`chmod o+x {closed}`" in text and "/var/lib/bridged" in text
        if not there:
            (closed / "inner" / "state").mkdir(parents=True)
    closed.chmod(0o711)
    (closed / "inner").chmod(0o755)
    os.chown(closed / "inner" / "state", USER.pw_uid, USER.pw_gid)
    assert made_by_the_user(closed / "inner" / "state") == ""


@pytest.mark.root
def test_a_folder_of_somebody_else_and_one_that_cannot_be_made_are_named(place: Path) -> None:
    assert f"may not make it in {place}: " in made_by_the_user(place / "new" / "state")
    (place / "closed").mkdir(mode=0o700)
    assert f"`chown -R daemon {place}/closed`" in made_by_the_user(place / "closed")


def test_a_file_in_its_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "state"):
        with pytest.raises(ConfigurationError, match="a file is in the place of a folder"):
            make_state_folder(folder)


@pytest.mark.root
def test_a_read_only_file_system_is_named_but_what_is_there_is_used(tmp_path: Path) -> None:
    script = (
        'mount -t tmpfs none "$1" && mkdir "$1/old" && mount -o remount,ro "$1" && exec "$2" -c "$3" "$1"'
    )
    python = """
import sys; from pathlib import Path; from bridged.errors import ConfigurationError
from bridged.runtime.site.state_folder import make_state_folder
make_state_folder(Path(sys.argv[1]) / "old")
try:
    make_state_folder(Path(sys.argv[1]) / "new")
except ConfigurationError as error:
    print(error)
"""
    command = ("unshare", "--mount", "--propagation=private", "sh", "-c", script, "sh", str(tmp_path))
    told = subprocess.run((*command, sys.executable, python), check=True, stdout=subprocess.PIPE).stdout
    assert f"ReadWritePaths={tmp_path}/new".encode() in told
