"""The journal's file, and its like: never written through a link that somebody put there."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from bridged.files import write_atomic
from bridged.netlink.journal import Journal
from bridged.pki.files import locked
from bridged.switching.links import BridgeWish, Ownership


def plant(folder: Path, *names: str) -> Path:
    """Links of these names that lead to a file of somebody else."""
    victim = folder.parent / "victim"
    victim.write_text("precious")
    for name in names:
        (folder / name).symlink_to(victim)
    return victim


def test_the_journal_replaces_a_link_and_follows_none(tmp_path: Path) -> None:
    folder = tmp_path / "bridges"
    folder.mkdir()
    victim = plant(folder, "br0.json", ".br0.json.new")
    journal = Journal(folder / "br0.json")
    journal.store(Ownership(bridge_made=True), BridgeWish("br0"))
    found = journal.load()
    assert found is not None and found.ownership == Ownership(bridge_made=True)
    assert victim.read_text() == "precious"
    assert not (folder / "br0.json").is_symlink()
    assert stat.S_IMODE((folder / "br0.json").stat().st_mode) == 0o600


@pytest.mark.parametrize("durable", [True, False])
def test_a_name_that_is_taken_is_never_written_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durable: bool
) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    victim = plant(folder, ".x.aaaaaaaaaaaa.new")
    monkeypatch.setattr("bridged.files.secrets.token_hex", lambda _: "a" * 12)
    with pytest.raises(FileExistsError):
        write_atomic(folder / "x", b"content", durable=durable)
    assert victim.read_text() == "precious" and not (folder / "x").exists()


def test_a_lock_file_is_not_followed(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    plant(folder, ".pki.lock")
    with pytest.raises(OSError, match="symbolic links"), locked(folder / ".pki.lock"):
        pass
