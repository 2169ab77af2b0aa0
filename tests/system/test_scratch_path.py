"""The path for trials of super-frames: this kernel cuts them rightly, and nothing of it is seen or stays."""

from __future__ import annotations

import os
import threading
from functools import partial
from pathlib import Path

import pytest

from bridged.catalogue.settings import COALESCE_KINDS
from bridged.dataplane import choose_dataplane, coalesce
from bridged.errors import BridgedError
from bridged.runtime.tunnels.scratch_path import ScratchPath
from bridged.runtime.tunnels.super_frame_trial import TrialResult, try_super_frames
from bridged.units import Seconds
from bridged_tap import kernel
from tests.lab import run
from tests.lab.bounds import takes_at_most

pytestmark = pytest.mark.root

FRAME = bytes.fromhex("02000000fffe02000000000188b5") + bytes(range(50))


def descriptors() -> set[str]:
    return {
        f"{entry.name} {os.readlink(entry)}" for entry in Path("/proc/self/fd").iterdir() if entry.exists()
    }


def links() -> list[str]:
    return sorted(line.split(":")[1] for line in run("ip", "-o", "link", "show").splitlines())


def trial() -> TrialResult:
    with ScratchPath() as path:
        if choose_dataplane("auto").kind == "native":
            return try_super_frames(COALESCE_KINDS, partial(coalesce, "native"), path)
        return try_super_frames({"tcp4", "tcp6"}, partial(coalesce, "portable"), path)


@pytest.mark.measures
def test_this_kernel_passes_the_trial_quickly() -> None:
    # About 0.1 s on a quiet machine, most of it the kernel's removal of the adapters.
    with takes_at_most(2.0, "the trial"):
        verdict = trial()
    assert (verdict.failed, verdict.unavailable) == ({}, "")


def test_a_trial_leaves_nothing_behind_and_touches_nothing() -> None:
    trial()  # whatever is loaded or opened once
    space = os.readlink("/proc/thread-self/ns/net")
    before = descriptors(), links(), threading.active_count()
    with ScratchPath():
        assert links() == before[1], "its links are in a namespace of their own"
        assert os.readlink("/proc/thread-self/ns/net") == space
    trial()
    assert (descriptors(), links(), threading.active_count()) == before
    assert os.readlink("/proc/thread-self/ns/net") == space


def test_frames_come_out_as_they_went_in() -> None:
    with ScratchPath() as path:
        for _ in range(3):
            path.write(bytes(path.virtio_header_size) + FRAME)
        came = [frame for frame in path.read(64, Seconds(0.05)) if frame[:6] == FRAME[:6]]
    assert came == [FRAME] * 3


def test_a_path_that_cannot_be_built_says_why_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    before = descriptors(), links(), threading.active_count()
    monkeypatch.setattr(kernel, "DEVICE", "/dev/null/tun")
    with pytest.raises(BridgedError, match="no path for a trial") as caught:
        ScratchPath()
    assert caught.value.code == "scratch"
    assert (descriptors(), links(), threading.active_count()) == before


def test_an_unforeseen_error_while_it_is_built_is_said_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("not foreseen")

    before = descriptors(), links(), threading.active_count()
    monkeypatch.setattr(kernel.LinkControl, "set_up", broken)
    with pytest.raises(BridgedError, match="no path for a trial: not foreseen") as caught:
        ScratchPath()
    assert caught.value.code == "scratch"
    assert (descriptors(), links(), threading.active_count()) == before
