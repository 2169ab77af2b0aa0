"""The journal's file, and its like: never written through a link that somebody put there."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from bridged.addresses import MacAddress
from bridged.files import write_atomic
from bridged.link_planning.wishes import BridgeWish, Ownership
from bridged.netlink.journal import Journal
from bridged.pki.index import Index, write_index
from bridged.pki.lock import locked
from bridged_tap.mac import store_mac


def plant(folder: Path, *names: str) -> Path:
    """Links of these names that lead to a file of somebody else."""
    victim = folder.parent / "victim"
    victim.write_text("precious")
    for name in names:
        (folder / name).symlink_to(victim)
    return victim


WRITERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "journal": (
        "bridges/br0.json",
        lambda state: Journal(state / "bridges/br0.json").store(
            Ownership(bridge_made=True), BridgeWish("br0")
        ),
    ),
    "mac": ("mac/tap0", lambda state: store_mac(state, "tap0", MacAddress.parse("02:00:00:00:00:01"))),
    "index": ("pki/index.json", lambda state: write_index(state / "pki/index.json", Index())),
    "key": ("pki/server.key", lambda state: write_atomic(state / "pki/server.key", b"key")),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_what_the_state_folder_keeps_replaces_a_link_and_follows_none(tmp_path: Path, kind: str) -> None:
    name, write = WRITERS[kind]
    path = tmp_path / "state" / name
    path.parent.mkdir(parents=True)
    victim = tmp_path / "victim"
    victim.write_text("precious")
    for taken in (path, path.with_name(f".{path.name}.new")):
        taken.symlink_to(victim)
    write(tmp_path / "state")
    assert victim.read_text() == "precious"
    assert not path.is_symlink() and stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_journal_that_replaced_a_link_is_read(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "br0.json")
    journal.store(Ownership(bridge_made=True), BridgeWish("br0"))
    found = journal.load()
    assert found is not None and found.ownership == Ownership(bridge_made=True)


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
