"""The one thread that moves frames: wait, read in batches, forward, write, look at the timers.

Source: epoll(7), eventfd(2). One thread does both directions: under the interpreter's lock a second one only
waits for the first (measured: tests/bench/dataplane_pair.py).

The gate: the loop holds it while it works on a batch, the control plane while it changes something. The
loop steps back when somebody waits, so that the control plane waits for one batch at most.
"""

from __future__ import annotations

import logging
import os
import select
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final

from bridged.dataplane.portable.forwarding import Forwarding
from bridged.dataplane.portable.tap_io import TapGone, TapIo
from bridged.dataplane.portable.wire import Wire

TAP_BUDGET_FRAMES: Final = 128
WIRE_BUDGET_READS: Final = 16
FIRST_BUDGET: Final = 2
MAX_EVENTS: Final = 16
BEHIND_SECONDS: Final = 5e-6
"""Where waiting took no longer than this, there were events already."""
SPIN_SECONDS = float(os.environ.get("SPIN", "0")) / 1e6
"""How long to wait awake for the next event, where the last one came as soon as that."""
TICK_SECONDS: Final = 1.0
ERRORS_LOGGED: Final = 10
_STEP_BACK_SECONDS: Final = 0.00005
_STEP_BACK_TIMES: Final = 100


logger = logging.getLogger(__name__)


class Gate:
    """A lock between the loop and the control plane, in which the loop gives way.

    The control plane uses it as a context manager. The loop takes `lock` itself, and calls `give_way`
    after each batch if anybody is `waiting`: without that it would take the lock again at once.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.waiting = 0
        self._counting = threading.Lock()

    def __enter__(self) -> None:
        with self._counting:
            self.waiting += 1
        self.lock.acquire()
        with self._counting:
            self.waiting -= 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.lock.release()

    def give_way(self) -> None:
        """Let those who wait go first (for 5 ms at most)."""
        for _ in range(_STEP_BACK_TIMES):
            if not self.waiting:
                return
            time.sleep(_STEP_BACK_SECONDS)


class Loop:
    """Drives a TapIo, a Wire and a Forwarding between `start` and `stop`.

    `on_tick(now)` returns when it wants to be called again at the latest; `on_tap_gone(errno)` tells
    that the adapter vanished, and is called once for each adapter. Both are called with the gate held.
    """

    def __init__(
        self,
        name: str,
        gate: Gate,
        wire: Wire,
        forwarding: Forwarding,
        on_tick: Callable[[float], float],
        on_tap_gone: Callable[[int], None],
    ) -> None:
        self._name = name
        self._gate = gate
        self._wire = wire
        self._forwarding = forwarding
        self._on_tick = on_tick
        self._on_tap_gone = on_tap_gone
        self._tap: TapIo | None = None
        self._tap_descriptors: tuple[int, ...] = ()
        self._wire_descriptor = -1
        self._epoll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._wake, select.EPOLLIN)
        self._running = False
        self._thread: threading.Thread | None = None
        self._next_tick = 0.0
        self._budgets: dict[int, int] = {}
        self._cpu_seconds = 0.0
        self._is_behind = False
        self._errors = 0

    def start(self) -> None:
        self._running = True
        self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread and close what is the loop's. Idempotent. Not with the gate held."""
        self._running = False
        if self._wake >= 0:
            os.eventfd_write(self._wake, 1)
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        self._thread = None
        if self._wake >= 0:
            self._epoll.close()
            os.close(self._wake)
            self._wake = -1

    def wake(self) -> None:
        """Have the timers looked at soon; they have changed."""
        self._next_tick = 0.0
        if self._wake >= 0:
            os.eventfd_write(self._wake, 1)

    def watch_wire(self) -> None:
        """Watch the wire's socket, which is a new one. With the gate held, or before `start`."""
        # A closed descriptor has left the epoll by itself.
        self._wire_descriptor = self._wire.fileno()
        if self._wire_descriptor >= 0:
            self._epoll.register(self._wire_descriptor, select.EPOLLIN)

    def watch_tap(self, tap: TapIo) -> None:
        """Go on with this TAP. With the gate held, or before `start`."""
        self._forget_tap()
        self._tap = tap
        self._tap_descriptors = tap.port.fds
        for descriptor in tap.port.fds:
            self._epoll.register(descriptor, select.EPOLLIN)

    def cpu_seconds(self) -> float:
        """Processor time of the thread so far."""
        thread = self._thread
        if thread is not None and thread.ident is not None and thread.is_alive():
            try:
                self._cpu_seconds = time.clock_gettime(time.pthread_getcpuclockid(thread.ident))
            except OSError:
                pass
        return self._cpu_seconds

    def _run(self) -> None:
        poll = self._epoll.poll
        lock, gate = self._gate.lock, self._gate
        clock = time.monotonic
        done = clock()
        gap = 1.0
        while self._running:
            ready = []
            if gap < SPIN_SECONDS:
                # Where an answer follows soon, sleeping and waking take longer than to wait for it awake.
                ready = poll(0, MAX_EVENTS)
                while not ready and clock() - done < SPIN_SECONDS:
                    os.sched_yield()
                    ready = poll(0, MAX_EVENTS)
            if not ready:
                ready = poll(max(0.0, self._next_tick - done), MAX_EVENTS)
            lock.acquire()
            try:
                now = clock()
                gap = now - done
                self._is_behind = gap < BEHIND_SECONDS
                if self._running:
                    self._turn(ready, now)
            except Exception:
                # A bug; it must cost the batch it was met in, not the tunnel.
                self._report()
            finally:
                lock.release()
            if gate.waiting:
                gate.give_way()
            done = clock()
        self._cpu_seconds = time.thread_time()

    def _report(self) -> None:
        self._errors += 1
        if self._errors <= ERRORS_LOGGED:
            logger.exception("dataplane_batch_lost")

    def _turn(self, ready: list[tuple[int, int]], now: float) -> None:
        for descriptor, _ in ready:
            if descriptor == self._wire_descriptor:
                self._read_wire(now)
            elif descriptor == self._wake:
                try:
                    os.eventfd_read(self._wake)
                except BlockingIOError:
                    pass
            elif self._tap is not None and descriptor in self._tap_descriptors:
                self._read_tap(self._tap, descriptor, now)
        if now >= self._next_tick:
            self._next_tick = self._on_tick(now)

    def _read_tap(self, tap: TapIo, descriptor: int, now: float) -> None:
        budget = self._budgets.get(descriptor, FIRST_BUDGET)
        try:
            frames = tap.read(descriptor, budget)
        except TapGone as gone:
            self._lose_tap(gone)
            return
        self._budgets[descriptor] = self._next_budget(budget, len(frames), TAP_BUDGET_FRAMES)
        if frames:
            self._forwarding.from_tap(frames, now)

    def _read_wire(self, now: float) -> None:
        budget = self._budgets.get(-1, FIRST_BUDGET)
        reads = 0
        forwarding = self._forwarding
        while reads < budget:
            received = self._wire.receive()
            if received is None:
                break
            reads += 1
            forwarding.from_wire(received, now)
        self._budgets[-1] = self._next_budget(budget, reads, WIRE_BUDGET_READS)
        if forwarding.to_tap:
            self._write_tap(forwarding.take_for_tap())
        forwarding.send_queued(now)

    def _next_budget(self, budget: int, used: int, most: int) -> int:
        """How many reads to try in the next turn.

        Asking once more than there is costs a system call and an exception. So it is as many as there
        were, and twice as many only where all were used up and we did not have to wait before.
        """
        if used < budget:
            return max(1, used)
        return min(most, budget * 2) if self._is_behind else budget

    def _write_tap(self, frames: list[bytes]) -> None:
        if self._tap is None:
            self._forwarding.drop("receive", "tap_down", len(frames))
            return
        try:
            self._tap.write(frames)
        except TapGone as gone:
            self._lose_tap(gone)

    def _lose_tap(self, gone: TapGone) -> None:
        self._forget_tap()
        self._on_tap_gone(gone.number)

    def _forget_tap(self) -> None:
        for descriptor in self._tap_descriptors:
            self._budgets.pop(descriptor, None)
            try:
                self._epoll.unregister(descriptor)
            except (OSError, ValueError):
                pass  # the caller closed it
        self._tap = None
        self._tap_descriptors = ()
