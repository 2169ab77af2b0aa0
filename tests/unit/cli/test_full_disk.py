"""A write that fails names the file it was for."""

from __future__ import annotations

import errno
import os
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bridged.addresses import MacAddress
from bridged.cli import main as command
from bridged.errors import BridgedError
from bridged.link_planning.wishes import BridgeWish, Ownership
from bridged.netlink.journal import Journal
from bridged.pki import EmbeddedCa, write_atomic
from bridged_tap.mac import store_mac


@contextmanager
def no_room() -> Iterator[None]:
    """No file of this process can grow; what is printed meanwhile is lost."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


WRITERS: dict[str, Callable[[Path], object]] = {
    "write_atomic": lambda folder: write_atomic(folder / "it", b"text"),
    "journal": lambda folder: Journal(folder / "it").store(Ownership(mac_fixed=True), BridgeWish("br0")),
    "mac": lambda folder: store_mac(folder, "it", MacAddress.parse("02:00:00:00:00:01")),
    "ca": lambda folder: EmbeddedCa.create(folder / "it"),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_writer_names_the_file_that_cannot_be_written(name: str, tmp_path: Path) -> None:
    with pytest.raises((OSError, BridgedError)) as caught, no_room():
        WRITERS[name](tmp_path)
    assert str(tmp_path) in str(caught.value) and "it" in str(caught.value)
    assert ".new" not in str(caught.value)
    assert os.strerror(errno.EFBIG) in str(caught.value)


@pytest.mark.parametrize("step", ["init", "invite"])
def test_a_full_disk_is_said_with_the_path_and_status_1(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = str(tmp_path / "state")
    said: list[str] = []
    arguments = {
        "init": ["init", "--state", state, "--remote", "hub", "--output", str(tmp_path / "server.yaml")],
        "invite": ["invite", "a", "--state", state, "--remote", "hub", "--output", str(tmp_path / "a.ovpn")],
    }
    if step == "invite":
        EmbeddedCa.create(Path(state))
    monkeypatch.setattr(sys, "argv", ["bridged", *arguments[step]])
    monkeypatch.setattr(command, "say", said.append)
    with pytest.raises(SystemExit) as caught, no_room():
        command.main()
    assert caught.value.code == 1
    (line,) = said
    assert line.startswith(f"bridged: {tmp_path}/") and line.endswith(os.strerror(errno.EFBIG))


def test_standard_output_that_is_full_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from bridged.cli.files import write

    class Full:
        def write(self, text: str) -> int:
            return len(text)

        def flush(self) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    full: Any = Full()
    monkeypatch.setattr(sys, "stdout", full)
    with pytest.raises(OSError, match="standard output"):
        write(None, "text", private=False)
