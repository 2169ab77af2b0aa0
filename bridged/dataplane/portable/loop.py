"""The one thread that moves frames: wait, read in batches, forward, write, look at the timers.

Source: epoll(7), eventfd(2). One thread does both directions: under the interpreter's lock a second one only
waits for the first (measured: tests/bench/dataplane_pair.py).

The gate: the loop holds it while it works on a batch, the control plane while it changes something. The
loop steps back when somebody waits, so that the control plane waits for one batch at most.
"""

from __future__ import annotations

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
TICK_SECONDS: Final = 1.0
_STEP_BACK_SECONDS: Final = 0.00005
_STEP_BACK_TIMES: Final = 100


class Gate:
    """A lock between the loop and the control plane, in which the loop gives way."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting = 0
        self._counting = threading.Lock()

    def __enter__(self) -> None:
        with self._counting:
            self._waiting += 1
        self._lock.acquire()
        with self._counting:
            self._waiting -= 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()

    def take(self) -> None:
        """As the loop."""
        self._lock.acquire()

    def leave(self) -> None:
        """As the loop; lets those who wait go first."""
        self._lock.release()
        for _ in range(_STEP_BACK_TIMES):
            if not self._waiting:
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
        gate = self._gate
        clock = time.monotonic
        now = clock()
        while self._running:
            # The clock of the turn before will do: a tick is late by one batch at most.
            ready = poll(max(0.0, self._next_tick - now))
            gate.take()
            try:
                if self._running:
                    now = clock()
                    self._turn(ready, now)
            finally:
                gate.leave()
        self._cpu_seconds = time.thread_time()

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
        # Asking once more than there is costs an exception; so ask for as much as there was lately.
        self._budgets[descriptor] = _next_budget(budget, len(frames), TAP_BUDGET_FRAMES)
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
        self._budgets[-1] = _next_budget(budget, reads, WIRE_BUDGET_READS)
        if forwarding.to_tap:
            self._write_tap(forwarding.take_for_tap())
        forwarding.send_queued(now)

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


def _next_budget(budget: int, used: int, most: int) -> int:
    """Twice as much where all was used up, and never below what there was."""
    return min(most, budget * 2) if used >= budget else max(1, used)
