"""Background work never dies unseen: it is logged, counted and done again, and health is bad meanwhile."""

from __future__ import annotations

import ast
import asyncio
import io
import threading
import time
from collections.abc import Callable, Coroutine
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import structlog

from bridged import supervision
from bridged.supervision import Supervisor, until_next
from tests.lab.bounds import takes_at_most
from tests.lab.waiting import PATIENCE

PACKAGE = Path(supervision.__file__).parent
MAKERS = {"create_task", "ensure_future", "call_later", "call_at", "Thread", "Timer", "start_new_thread"}
READERS = {"add_reader", "add_writer", "add_signal_handler"}
KNOWN = {
    # Deadline of all sessions: set anew thousands of times a second; its callback is guarded.
    ("runtime/tunnels/sessions.py", "call_at"),
    # Deadline of all probes, set anew with each of them; its callback is guarded.
    ("runtime/tunnels/path_probes.py", "call_at"),
    # Waited for by its maker, which raises what it met.
    ("runtime/tunnels/scratch_path.py", "Thread"),
}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Supervisor:
    monkeypatch.setattr(supervision, "FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(supervision, "LONGEST_PAUSE_SECONDS", 0.002)
    return Supervisor()


def _calls(file: Path) -> list[tuple[str, int]]:
    found = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            found.append((name, node.lineno))
    return found


def test_every_task_timer_and_thread_of_the_daemon_is_made_by_the_supervisor() -> None:
    loose = []
    for file in sorted(PACKAGE.rglob("*.py")):
        where = str(file.relative_to(PACKAGE))
        if where == "supervision.py":
            continue
        loose += [
            f"{where}:{line} {name}"
            for name, line in _calls(file)
            if name in MAKERS and (where, name) not in KNOWN
        ]
    assert not loose, "make it by bridged.supervision.SUPERVISOR"


def test_every_reader_of_the_loop_is_guarded() -> None:
    readers = [file for file in PACKAGE.rglob("*.py") if any(name in READERS for name, _ in _calls(file))]
    assert readers
    assert not [file.name for file in readers if "SUPERVISOR.guard(" not in file.read_text()]


def _run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 20 * PATIENCE))


def test_work_that_fails_is_done_again_until_it_succeeds(quick: Supervisor) -> None:
    seen: list[tuple[str, ...]] = []

    async def work() -> None:
        seen.append(tuple(item.reason for item in quick.undone()))
        if len(seen) < 4:
            raise OSError(24, "Too many open files")

    async def test() -> None:
        await quick.keep("tap", work, "tap0")

    _run(test)
    assert quick.failures["tap"] == 3
    assert seen[0] == () and all("Too many open files" in texts[0] for texts in seen[1:])
    assert quick.undone() == (), "the duty is done again"


def test_work_is_done_again_when_what_it_waits_for_is_cancelled_by_others(quick: Supervisor) -> None:
    runs = 0

    async def work() -> None:
        nonlocal runs
        runs += 1
        if runs == 1:
            raise asyncio.CancelledError

    async def test() -> None:
        await quick.keep("lookup", work)

    _run(test)
    assert runs == 2 and quick.failures["lookup"] == 1


def test_a_cancelled_duty_is_nobodys_and_not_undone(quick: Supervisor) -> None:
    async def fails() -> None:
        raise OSError("for ever")

    async def test() -> None:
        task = quick.keep("tap", fails, "tap0")
        while quick.failures["tap"] < 3:
            await asyncio.sleep(0.001)
        assert [item.subject for item in quick.undone()] == ["tap0"]
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled() and quick.undone() == ()

    _run(test)


def test_endless_work_that_runs_on_after_a_failure_does_its_duty(
    quick: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervision, "PROVEN_SECONDS", 0.01)
    runs = 0

    async def work() -> None:
        nonlocal runs
        runs += 1
        if runs == 1:
            raise RuntimeError("a bug")
        await asyncio.Event().wait()

    async def test() -> None:
        task = quick.keep("bridge", work, "br0", endless=True)
        while not quick.failures["bridge"] or quick.undone():
            await asyncio.sleep(0.002)
        task.cancel()

    _run(test)
    assert runs == 2


def test_a_timer_that_fails_is_called_again_and_a_periodic_one_goes_on(quick: Supervisor) -> None:
    calls = {"once": 0, "again": 0}

    def step(name: str) -> None:
        calls[name] += 1
        if calls[name] < 3:
            raise ValueError("not yet")

    async def test() -> None:
        quick.after("once", 0, lambda: step("once"))
        timer = quick.every("again", 0.001, lambda: step("again"))
        while calls["again"] < 6 or calls["once"] < 3:
            await asyncio.sleep(0.001)
        timer.cancel()

    _run(test)
    assert calls["once"] == 3 and quick.failures == {"once": 2, "again": 2} and quick.undone() == ()


@pytest.mark.parametrize("begin", [0.0, 100.0, 99.9999, 100.4, 1e6 + 0.999])
def test_what_comes_again_wakes_the_daemon_together_at_whole_seconds(begin: float) -> None:
    moments: dict[float, list[float]] = {}
    for period in (1.0, 2.0, 3.0, 10.0):
        now, calls = begin, []
        while len(calls) < 10:
            pause = until_next(now, period)
            assert period - 1.0 < pause <= period + 0.01
            now += pause
            calls.append(now)
        moments[period] = calls
    assert all(call == pytest.approx(round(call), abs=1e-6) for calls in moments.values() for call in calls)
    assert [later - earlier for earlier, later in pairwise(moments[3.0])] == pytest.approx([3.0] * 9)
    assert until_next(begin, 0.25) == 0.25


def test_a_callback_that_fails_is_bad_health_until_it_works(quick: Supervisor) -> None:
    answers = iter([OSError("no"), None])

    def step() -> None:
        error = next(answers)
        if error is not None:
            raise error

    guarded = quick.guard("events", step, "main")
    guarded()
    assert [item.duty for item in quick.undone()] == ["events"]
    guarded()
    assert quick.undone() == () and quick.failures["events"] == 1


def test_a_thread_that_fails_begins_again(quick: Supervisor) -> None:
    runs: list[int] = []

    def work() -> None:
        runs.append(1)
        if len(runs) < 3:
            raise RuntimeError("a bug")

    quick.thread("wire", work).join(20 * PATIENCE)
    assert len(runs) == 3 and quick.failures["wire"] == 2 and quick.undone() == ()


@pytest.mark.measures
def test_a_thread_that_pauses_after_a_failure_ends_soon_after_it_is_wanted_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(supervision, "FIRST_PAUSE_SECONDS", 60.0)
    monkeypatch.setattr(supervision, "LONGEST_PAUSE_SECONDS", 60.0)
    has_failed, wanted = threading.Event(), [True]

    def work() -> None:
        has_failed.set()
        raise RuntimeError("a bug")

    thread = Supervisor().thread("wire", work, is_wanted=lambda: bool(wanted))
    assert has_failed.wait(20 * PATIENCE)
    time.sleep(0.2)
    assert thread.is_alive()
    wanted.clear()
    with takes_at_most(1.0, "its end"):
        thread.join(20 * PATIENCE)
    assert not thread.is_alive()


def test_a_cancellation_that_another_error_replaces_ends_the_duty(quick: Supervisor) -> None:
    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise OSError("the log is gone")

    async def test() -> None:
        task = quick.keep("tap", work)
        await asyncio.sleep(0)
        task.cancel()
        done, _ = await asyncio.wait({task}, timeout=20 * PATIENCE)
        assert done and task.cancelled() and quick.failures["tap"] == 1

    _run(test)
    assert quick.undone() == ()


def test_what_the_garbage_collector_finds_while_the_log_is_written_ends_no_thread(quick: Supervisor) -> None:
    """A line of the log is written under a lock, and a collection may begin meanwhile, in the same thread."""
    written = io.StringIO()

    class Collecting(io.StringIO):
        def write(self, text: str) -> int:
            if not written.getvalue():
                written.write(text)
                loop.call_exception_handler({"message": "Future exception was never retrieved"})
            return written.write(text)

    async def test() -> None:
        nonlocal loop
        loop = asyncio.get_running_loop()
        quick.watch_loop(loop)
        line = threading.Thread(target=structlog.get_logger().info, args=("a line",), daemon=True)
        line.start()
        while line.is_alive():
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.01)

    loop: asyncio.AbstractEventLoop
    structlog.configure(
        logger_factory=structlog.PrintLoggerFactory(Collecting()), cache_logger_on_first_use=False
    )
    try:
        _run(test)
    finally:
        structlog.reset_defaults()
    assert "background_failure" in written.getvalue()


def test_what_a_library_lets_fall_in_the_loop_is_counted(quick: Supervisor) -> None:
    def falls() -> None:
        raise RuntimeError("in a library")

    async def test() -> None:
        loop = asyncio.get_running_loop()
        quick.watch_loop(loop)
        loop.call_soon(falls)
        await asyncio.sleep(0.001)

    _run(test)
    assert quick.failures["event_loop"] == 1
