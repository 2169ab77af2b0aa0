"""Files that the daemon's user may not read: each error says what is closed, and the cure."""

from __future__ import annotations

import os
import pwd
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bridged.configuration.load import load, parse
from bridged.errors import BridgedError
from bridged.files import unreadable
from bridged.pki.authority import EmbeddedCa, embedded_tls_material
from bridged.pki.errors import PkiError
from bridged.runtime.server.kept_list import KeptList
from bridged.runtime.server.password_file import UserFile
from bridged.runtime.tunnels.tunnel_credentials import plan_tunnel
from bridged.supervision import SUPERVISOR
from bridged.telemetry.server import read_bearer_token
from bridged.telemetry.web_config import load_web_config
from tests.lab.pki import Authority

pytestmark = pytest.mark.root

USER = pwd.getpwnam("daemon")


@contextmanager
def as_user() -> Iterator[None]:
    os.setegid(USER.pw_gid)
    os.seteuid(USER.pw_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


@pytest.fixture
def folder() -> Iterator[Path]:
    """Everybody may enter it, unlike pytest's own; its folder `closed` only root."""
    if os.geteuid() != 0:
        pytest.fail("needs root: becomes another user", pytrace=False)
    made = Path(tempfile.mkdtemp(prefix="bridged-closed-"))
    made.chmod(0o755)
    (made / "closed").mkdir(mode=0o700)
    (made / "closed" / "file").write_text("x")
    authority = Authority("CA")
    (made / "ca.crt").write_text(authority.certificate)
    certificate, key = authority.issue("server", "server").write(made)
    (made / "web.yml").write_text(
        f"tls_server_config: {{cert_file: {certificate.name}, key_file: closed/file}}\n"
    )
    # Whatever the umask is.
    for name in ("ca.crt", certificate.name, key.name, "web.yml"):
        (made / name).chmod(0o644)
    yield made
    shutil.rmtree(made)


def plan(folder: Path, tunnel: str = "", **tls: str) -> object:
    keys = {"ca": "ca.crt", "certificate": "server.crt", "key": "server.key", **tls}
    text = "bridges: {br0: {}}\ntunnels:\n  t:\n    role: server\n    bridge: br0\n" + tunnel
    text += f"    tls: {{{', '.join(f'{name}: {value}' for name, value in keys.items())}}}\n"
    return plan_tunnel(parse(text, folder / "bridged.yaml"), "t", folder)


PLAIN = "    wrap: {mode: none}\n"
READS: dict[str, Callable[[Path], object]] = {
    "web configuration": lambda folder: load_web_config(folder / "closed" / "file"),
    "web key": lambda folder: load_web_config(folder / "web.yml"),
    "token": lambda folder: read_bearer_token(folder / "closed" / "file"),
    "configuration": lambda folder: load(folder / "closed" / "file"),
    "passwords": lambda folder: UserFile(folder / "closed" / "file").users(),
    "certificate": lambda folder: plan(folder, PLAIN, certificate="closed/file"),
    "key": lambda folder: plan(folder, PLAIN, key="closed/file"),
    "ca": lambda folder: plan(folder, PLAIN, ca="closed/file"),
    "crl": lambda folder: plan(folder, PLAIN, crl="closed/file"),
    "wrap": lambda folder: plan(folder, "    wrap: {mode: tls-crypt, key: closed/file}\n"),
}


@pytest.mark.parametrize("what", READS)
def test_the_error_names_the_closed_folder_its_user_and_the_cure(what: str, folder: Path) -> None:
    with as_user(), pytest.raises(BridgedError) as caught:
        READS[what](folder)
    text = str(caught.value)
    assert f"user daemon may not enter the folder {folder / 'closed'}; copy it" in text
    assert f"`install -g bridged -m 640 {folder / 'closed' / 'file'} /etc/bridged/`" in text
    assert "`credential:`" in text


def test_all_is_read_where_nothing_is_closed(folder: Path) -> None:
    """Otherwise the test above could pass for another reason."""
    with as_user():
        assert plan(folder, PLAIN) is not None


def test_a_warning_tells_a_closed_folder_a_closed_file_and_a_missing_one_apart(folder: Path) -> None:
    mine = folder / "mine.key"
    mine.touch(0o600)
    with as_user():
        assert f"user daemon may not enter the folder {folder / 'closed'};" in str(
            unreadable(str(folder / "closed" / "file"))
        )
        assert "user daemon may not read it;" in str(unreadable(str(mine)))
        assert unreadable(str(folder / "none")) == f"no file {folder / 'none'}"
        assert unreadable(str(folder / "ca.crt")) is None


@pytest.fixture
def state(folder: Path) -> Path:
    """The state folder of a daemon that runs as USER."""
    made = folder / "state"
    made.mkdir(mode=0o700)
    EmbeddedCa.ensure(made)
    for path in (made, *made.rglob("*")):
        os.chown(path, USER.pw_uid, USER.pw_gid)
    return made


@pytest.mark.parametrize("name", ["ca.key", "server.key", "index.json"])
def test_a_file_of_the_ca_that_root_restored_gets_the_command_that_mends_it(name: str, state: Path) -> None:
    os.chown(state / "pki" / name, 0, 0)
    with as_user(), pytest.raises(PkiError, match="user daemon may not read it") as caught:
        embedded_tls_material(state)
    assert caught.value.code == "pki_damaged"
    assert f"`chown -R daemon: {state}`" in str(caught.value)
    for path in state.rglob("*"):
        os.chown(path, USER.pw_uid, USER.pw_gid)
    with as_user():
        assert embedded_tls_material(state)


@pytest.mark.parametrize("duty", ["bans", "refused_keys"])
def test_a_list_that_keeps_clients_out_and_cannot_be_read_is_reported_until_it_can(
    duty: str, state: Path
) -> None:
    path = state / duty
    kept = KeptList(path, 1024, duty)
    with as_user():
        assert kept.changed() == ""
    path.write_text("0 mallory\n")
    path.chmod(0o600)
    with as_user():
        assert kept.changed() is None
    (undone,) = (one for one in SUPERVISOR.undone() if one.duty == duty)
    assert undone.subject == str(path)
    assert undone.reason == f"user daemon may not read it; as root: `chown daemon: {path}`"
    os.chown(path, USER.pw_uid, USER.pw_gid)
    with as_user():
        assert kept.changed() == "0 mallory\n"
    assert duty not in {one.duty for one in SUPERVISOR.undone()}
