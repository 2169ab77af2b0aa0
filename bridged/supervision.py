"""Background duties: none of them ends unnoticed.

Every task, timer, reader and thread of the daemon is made here. A failure is logged, counted, and followed by
another attempt after a growing pause. Until that succeeds, the duty is undone and the daemon's health is bad.
Asyncio; `SUPERVISOR` keeps the records of this process. Notes may be taken in any thread.
"""

from __future__ import annotations

import asyncio
import math
import os
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import structlog

from bridged.errors import BridgedError
from bridged.units import UnixSeconds

FIRST_PAUSE_SECONDS: Final = 0.25
LONGEST_PAUSE_SECONDS: Final = 15.0
CLOCK_SLACK_SECONDS: Final = 0.01
"""How much too early a timer may fire; it is not called twice for that."""
YIELDING_NICENESS: Final = 10
LOOK_SECONDS: Final = 0.1
"""How often a thread that pauses looks whether it is still wanted."""
PROVEN_SECONDS: Final = 5.0
"""Endless work that runs this long after a failure counts as done again."""


@dataclass(frozen=True, slots=True)
class Undone:
    """A duty that is not done now: its name, whose it is, since when (Unix time), and why."""

    duty: str
    subject: str
    since: UnixSeconds
    reason: str


class Timer:
    """A call in the future, once or repeatedly, until `cancel`. Made by `Supervisor`."""

    def __init__(
        self,
        supervisor: Supervisor,
        duty: str,
        subject: str,
        step: Callable[[], object],
        period: float | None,
    ) -> None:
        self._supervisor, self._duty, self._subject = supervisor, duty, subject
        self._step = step
        self._period = period
        self._failures = 0
        self._is_cancelled = False
        self._handle: asyncio.TimerHandle | None = None

    def cancel(self) -> None:
        """Stop. Idempotent; the step itself may call it."""
        self._is_cancelled = True
        if self._handle is not None:
            self._handle.cancel()
        self._supervisor.forget(self._duty, self._subject)

    def start(self, seconds: float) -> Timer:
        """Make the first call after `seconds`."""
        self._handle = asyncio.get_running_loop().call_later(seconds, self._run)
        return self

    def _run(self) -> None:
        try:
            self._step()
        except Exception as error:
            self._failures += 1
            self._supervisor.note_failure(self._duty, self._subject, error)
        else:
            if self._failures:
                self._failures = 0
                self._supervisor.note_done(self._duty, self._subject)
        if self._is_cancelled:
            self._supervisor.forget(self._duty, self._subject)
        elif self._failures:
            self.start(max(pause_seconds(self._failures), self._period or 0.0))
        elif self._period is not None:
            self.start(until_next(asyncio.get_running_loop().time(), self._period))


def until_next(now: float, period: float) -> float:
    """Seconds until the next call of something that is due every `period` seconds.

    For periods of a second or more it falls on a whole second, at most a second early: all repeated calls
    wake the daemon together.
    """
    return period if period < 1.0 else math.floor(now + period + CLOCK_SLACK_SECONDS) - now


class Supervisor:
    """Makes background work and keeps its records.

    `duty` is a constant name (the metric label), `subject` says whose duty it is (a tunnel, a bridge).
    `failures` counts by duty and never decreases.
    """

    def __init__(self) -> None:
        self.failures: Counter[str] = Counter()
        self._undone: dict[tuple[str, str], Undone] = {}
        self._lock = threading.Lock()
        self._log = structlog.get_logger("bridged.duties")

    # --- records ----------------------------------------------------------------------------------

    def undone(self) -> tuple[Undone, ...]:
        """Duties that are not done now, oldest first."""
        with self._lock:
            return tuple(self._undone.values())

    def note_failure(self, duty: str, subject: str, error: BaseException) -> None:
        """Count a failure; the duty is undone until `note_done`. Repeats of a reason are not logged."""
        reason = _words(error)
        with self._lock:
            self.failures[duty] += 1
        if self.note_undone(duty, subject, reason):
            expected = isinstance(error, BridgedError | OSError)
            self._log.error(
                "duty_failed", duty=duty, subject=subject, reason=reason, exc_info=None if expected else error
            )

    def count(self, duty: str) -> None:
        """Count a failure that has been dealt with."""
        with self._lock:
            self.failures[duty] += 1

    def note_undone(self, duty: str, subject: str, reason: str) -> bool:
        """The duty is not done. True where that or the reason is new."""
        with self._lock:
            known = self._undone.get((duty, subject))
            since = known.since if known is not None else UnixSeconds(time.time())
            self._undone[duty, subject] = Undone(duty, subject, since, reason)
        return known is None or known.reason != reason

    def forget(self, duty: str, subject: str = "") -> Undone | None:
        """The duty no longer exists. Returns its entry where it was undone."""
        with self._lock:
            return self._undone.pop((duty, subject), None)

    def note_done(self, duty: str, subject: str = "") -> None:
        """The duty is done again."""
        known = self.forget(duty, subject)
        if known is not None:
            seconds = round(time.time() - known.since, 1)
            self._log.info("duty_done_again", duty=duty, subject=subject, seconds=seconds)

    # --- work -------------------------------------------------------------------------------------

    def keep(
        self,
        duty: str,
        work: Callable[[], Awaitable[object]],
        subject: str = "",
        *,
        endless: bool = False,
        longest_pause_seconds: float = LONGEST_PAUSE_SECONDS,
    ) -> asyncio.Task[None]:
        """A task that runs `work`, again after each failure, until it returns or is cancelled.

        `endless`: work that never returns; the duty is done while it runs.
        """
        kept = self._keep(duty, work, subject, endless, longest_pause_seconds)
        name = f"{duty} {subject}".strip()
        return asyncio.get_running_loop().create_task(kept, name=name)

    async def _keep(
        self,
        duty: str,
        work: Callable[[], Awaitable[object]],
        subject: str,
        endless: bool,
        longest_pause_seconds: float,
    ) -> None:
        loop = asyncio.get_running_loop()
        failures = 0
        try:
            while True:
                began = loop.time()
                proof = loop.call_later(PROVEN_SECONDS, self.note_done, duty, subject) if endless else None
                try:
                    await work()
                    self.note_done(duty, subject)
                    return
                except asyncio.CancelledError as error:
                    task = asyncio.current_task()
                    if task is None or task.cancelling():
                        raise
                    # This task was not cancelled; something that the work waited for was.
                    failure: BaseException = error
                except Exception as error:
                    failure = error
                finally:
                    if proof is not None:
                        proof.cancel()
                failures = 1 if loop.time() - began > PROVEN_SECONDS else failures + 1
                self.note_failure(duty, subject, failure)
                _raise_if_cancelled()
                await asyncio.sleep(min(longest_pause_seconds, pause_seconds(failures)))
        finally:
            self.forget(duty, subject)

    def guard(self, duty: str, step: Callable[..., object], subject: str = "") -> Callable[..., None]:
        """`step` as a callback that never raises, for readers and signals, which are called again anyway."""
        has_failed = False

        def guarded(*arguments: Any) -> None:
            nonlocal has_failed
            try:
                step(*arguments)
            except Exception as error:
                has_failed = True
                self.note_failure(duty, subject, error)
            else:
                if has_failed:
                    has_failed = False
                    self.note_done(duty, subject)

        return guarded

    def after(self, duty: str, seconds: float, step: Callable[[], object], subject: str = "") -> Timer:
        """Call `step` once, and again if it fails."""
        return Timer(self, duty, subject, step, None).start(seconds)

    def every(self, duty: str, seconds: float, step: Callable[[], object], subject: str = "") -> Timer:
        """Call `step` repeatedly, the first time after `seconds`; see `until_next`."""
        first = until_next(asyncio.get_running_loop().time(), seconds)
        return Timer(self, duty, subject, step, seconds).start(first)

    def thread(
        self,
        duty: str,
        work: Callable[[], object],
        subject: str = "",
        *,
        name: str = "",
        is_wanted: Callable[[], bool] = lambda: True,
    ) -> threading.Thread:
        """A started daemon thread that runs `work`, again after a failure as long as `is_wanted`.

        It ends soon after that.

        Raises:
            RuntimeError: the system has no thread to spare.
        """

        def run() -> None:
            failures = 0
            while True:
                began = time.monotonic()
                try:
                    work()
                    break
                except Exception as error:
                    if not is_wanted():
                        self.forget(duty, subject)
                        return
                    failures = 1 if time.monotonic() - began > PROVEN_SECONDS else failures + 1
                    self.note_failure(duty, subject, error)
                    if not _rest(pause_seconds(failures), is_wanted):
                        self.forget(duty, subject)
                        return
            self.note_done(duty, subject)

        thread = threading.Thread(target=run, name=name or duty, daemon=True)
        thread.start()
        return thread

    # --- work of others ---------------------------------------------------------------------------

    def watch_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        """Log and count failures in the loop that nobody handles (libraries' own tasks)."""

        def take(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
            self.failures["event_loop"] += 1
            # Not now: this may be the garbage collector's call, in the midst of another line of the log.
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(
                    self._log_background, context.get("message", ""), context.get("exception")
                )

        loop.set_exception_handler(take)

    def _log_background(self, text: str, error: BaseException | None) -> None:
        # What cannot be written is not told: telling that would come here again.
        with suppress(Exception):
            self._log.error(
                "background_failure",
                text=text,
                reason=_words(error) if error is not None else "",
                exc_info=error if error is not None and not isinstance(error, OSError) else None,
            )


def _raise_if_cancelled() -> None:
    """Another error in a `finally` may have taken the place of a cancellation.

    Raises:
        asyncio.CancelledError: this task was cancelled.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def _rest(seconds: float, is_wanted: Callable[[], bool]) -> bool:
    """Pause in a thread, no longer than it is wanted. Whether it still is."""
    until = time.monotonic() + seconds
    while is_wanted() and (left := until - time.monotonic()) > 0:
        time.sleep(min(left, LOOK_SECONDS))
    return is_wanted()


def pause_seconds(failures: int) -> float:
    """How long to wait after `failures` in a row."""
    return min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(max(failures - 1, 0), 16))


def yielding_pool(threads: int, name: str) -> ThreadPoolExecutor:
    """Threads for work that strangers cause: everything else that wants the processor goes first."""

    def yield_to_others() -> None:
        with suppress(OSError):  # our systemd unit forbids it
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), YIELDING_NICENESS)

    return ThreadPoolExecutor(threads, thread_name_prefix=name, initializer=yield_to_others)


def _words(error: BaseException) -> str:
    """The error in one line."""
    return " ".join((str(error) or type(error).__name__).split())


SUPERVISOR: Final = Supervisor()
"""The one of this process."""
