"""The reader opens what root's configuration names, and nothing else."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

import pytest

from bridged.runtime.service import reader
from bridged.runtime.service.reader import _open_allowed, start_reader

pytestmark = pytest.mark.root


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    if os.geteuid() != 0:
        pytest.fail("needs root: only what root owns counts", pytrace=False)
    made = tmp_path / "etc"
    made.mkdir(mode=0o755)
    (made / "bridged.yaml").write_text(f"key: site.key\nother: {tmp_path}/far.key\n")
    (made / "conf.d").mkdir(mode=0o755)
    (made / "conf.d" / "50.yaml").write_text("key: drop-in.key\n")
    return made


def allowed(folder: Path, path: Path) -> bool:
    path.parent.mkdir(exist_ok=True)
    if not path.exists():
        path.write_text("secret")
    try:
        os.close(_open_allowed(path, folder / "bridged.yaml"))
    except OSError:
        return False
    return True


def test_what_the_configuration_or_a_drop_in_names_is_opened(folder: Path) -> None:
    for path in (
        folder / "bridged.yaml",
        folder / "conf.d" / "50.yaml",
        folder / "site.key",
        folder.parent / "far.key",
        folder / "conf.d" / "drop-in.key",
    ):
        assert allowed(folder, path), path


def test_what_the_metrics_web_configuration_names_is_opened_and_only_if_root_alone_writes_it(
    folder: Path,
) -> None:
    page = folder / "web" / "web.yml"
    (folder / "bridged.yaml").write_text("metrics: {web_config_file: web/web.yml, max_peers: 7}\n")
    assert allowed(folder, page)
    page.write_text("tls_server_config: {cert_file: server.crt, key_file: /far/../server.key}\n")
    assert allowed(folder, page.with_name("server.crt"))
    assert not allowed(folder, page.with_name("other.key"))
    page.chmod(0o664)
    assert not allowed(folder, page.with_name("server.crt"))


def test_other_files_folders_and_devices_are_refused(folder: Path) -> None:
    assert not allowed(folder, folder / "other.key")
    assert not allowed(folder, folder)
    os.mkfifo(folder / "site.key")
    assert not allowed(folder, folder / "site.key")


def test_links_are_followed_only_where_nobody_but_root_can_make_them(folder: Path) -> None:
    target = folder.parent / "target.key"
    target.write_text("secret")
    (folder / "inner").mkdir()
    (folder / "site.key").symlink_to("inner/../../target.key")
    (folder.parent / "far.key").symlink_to(target)
    for link in (folder / "site.key", folder.parent / "far.key"):
        assert allowed(folder, link), link
    others = folder.parent / "others"
    others.mkdir()
    names = [others / name for name in ("soft.key", "hard.key", "under/own.key", "own.key")]
    (folder / "bridged.yaml").write_text("\n".join(map(str, names)))
    names[0].symlink_to(target)
    names[1].hardlink_to(target)
    (others / "under").symlink_to(folder.parent)
    (folder.parent / "own.key").write_text("secret")
    names[3].write_text("secret")
    os.chown(others, 1, 1)
    assert [allowed(folder, name) for name in names] == [False, False, False, True]


def test_an_answer_that_came_too_late_is_not_taken_for_the_next_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "site.key").write_text("site")
    (folder.parent / "far.key").write_text("far")
    monkeypatch.setattr(reader, "ANSWER_SECONDS", 0.3)
    before = children()
    open_through = start_reader(folder / "bridged.yaml", lambda: None)
    (child,) = children() - before
    try:
        os.kill(child, signal.SIGSTOP)
        with pytest.raises(TimeoutError):
            open_through(folder / "site.key")
        monkeypatch.undo()
        os.kill(child, signal.SIGCONT)
        found = -1
        while found < 0:  # on a loaded machine the next answer may be late, too
            with contextlib.suppress(TimeoutError):
                found = open_through(folder.parent / "far.key")
        with os.fdopen(found) as file:
            assert file.read() == "far"
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    with pytest.raises(OSError, match=r"Broken pipe|Connection reset|Permission denied"):
        open_through(folder / "site.key")


def children() -> set[int]:
    return {int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()}


def test_a_link_that_leads_to_itself_ends(folder: Path) -> None:
    (folder / "site.key").symlink_to("site.key")
    with pytest.raises(OSError, match="too many links"):
        _open_allowed(folder / "site.key", folder / "bridged.yaml")


def test_a_configuration_that_others_may_write_names_nothing(folder: Path) -> None:
    (folder / "bridged.yaml").chmod(0o666)
    assert not allowed(folder, folder / "site.key")
    (folder / "bridged.yaml").chmod(0o644)
    folder.chmod(0o777)
    assert not allowed(folder, folder / "site.key")
    assert not allowed(folder, folder / "bridged.yaml")
