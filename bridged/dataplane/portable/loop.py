"""The one thread that moves frames: wait, read in batches, forward, write, look at the timers.

Source: epoll(7), eventfd(2). One thread does both directions. Tried with one for each (tests/bench/
dataplane_pair.py, and no lock but the interpreter's): no more throughput, a third more processor time, and
a longer round trip.

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
from contextlib import suppress
from types import TracebackType
from typing import Final

from bridged.dataplane.portable.fast_path import FastPath
from bridged.dataplane.portable.forwarding import Forwarding
from bridged.dataplane.portable.tap_io import TapGone, TapIo
from bridged.dataplane.portable.transport.udp import Wire
from bridged.supervision import SUPERVISOR

TAP_BUDGET_FRAMES: Final = 128
WIRE_BUDGET_READS: Final = 16
MAX_EVENTS: Final = 16
TICK_SECONDS: Final = 1.0
AWAKE_SECONDS: Final = 50e-6
"""How long to wait awake for the next event, where the last one came as soon as that."""
CROWDED_SECONDS: Final = 30e-6
"""Where one look took longer than this, another program had the processor: do not wait awake for a while."""
CROWDED_PAUSE_SECONDS: Final = 0.1
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


class _Budget:
    """How many reads to try in one turn.

    Asking once more than there is costs a system call and an exception. So it is as many as there were
    lately, and twice as many only after two turns in a row that used up all: then there is a queue.
    """

    __slots__ = ("_full_at", "most", "reads")

    def __init__(self, most: int) -> None:
        self.most = most
        self.reads = 1
        self._full_at = -2

    def spend(self, used: int, turn: int) -> None:
        """So many reads gave something, in the turn of this number."""
        if used < self.reads:
            self.reads = used or 1
            return
        if self._full_at == turn - 1:
            self.reads = min(self.most, self.reads * 2)
        self._full_at = turn


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
        fast_path: FastPath,
        on_tick: Callable[[float], float],
        on_tap_gone: Callable[[int], None],
    ) -> None:
        self._name = name
        self._gate = gate
        self._wire = wire
        self._forwarding = forwarding
        self._fast_path = fast_path
        self._on_tick = on_tick
        self._on_tap_gone = on_tap_gone
        self._tap: TapIo | None = None
        self._tap_descriptors: tuple[int, ...] = ()
        self._wire_descriptor = -1
        wire.before_close = self._forget_wire
        self._epoll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._wake, select.EPOLLIN)
        self._running = False
        self._thread: threading.Thread | None = None
        self._next_tick = 0.0
        self._budgets: dict[int, _Budget] = {}
        self._wire_budget = _Budget(WIRE_BUDGET_READS)
        self._turns = 0
        self._latest = -1
        self._crowded_until = 0.0
        self._cpu_seconds = 0.0
        self._errors = 0

    def start(self) -> None:
        self._running = True
        self._thread = SUPERVISOR.thread(
            "dataplane_thread", self._run, self._name, name=self._name, is_wanted=lambda: self._running
        )

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
        self._forget_wire()
        self._wire_descriptor = self._wire.fileno()
        if self._wire_descriptor >= 0:
            self._epoll.register(self._wire_descriptor, select.EPOLLIN)

    def _forget_wire(self) -> None:
        """Stop watching a socket that is about to close. The epoll keeps it while a duplicate is open."""
        descriptor, self._wire_descriptor = self._wire_descriptor, -1
        if descriptor >= 0 and not self._epoll.closed:
            self._epoll.unregister(descriptor)

    def watch_tap(self, tap: TapIo) -> None:
        """Go on with this TAP. With the gate held, or before `start`."""
        self._forget_tap()
        self._tap = tap
        self._tap_descriptors = tap.port.fds
        for descriptor in tap.port.fds:
            self._budgets[descriptor] = _Budget(TAP_BUDGET_FRAMES)
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
        now = done = clock()
        gap = 1.0
        while self._running:
            # Where an answer follows soon, sleeping and waking take longer than to wait for it awake.
            ready = self._wait_awake(done) if gap < AWAKE_SECONDS and done >= self._crowded_until else None
            if not ready:
                ready = poll(max(0.0, self._next_tick - done), MAX_EVENTS)
            lock.acquire()
            try:
                now = clock()
                gap = now - done
                if self._running:
                    self._turn(ready, now)
                    if now >= self._next_tick:
                        self._next_tick = self._on_tick(now)
            except TapGone as gone:
                self._lose_tap(gone)
            except Exception:
                # A bug; it must cost the batch it was met in, not the tunnel.
                self._report()
            finally:
                lock.release()
            if gate.waiting:
                gate.give_way()
            done = clock()
        self._cpu_seconds = time.thread_time()

    def _wait_awake(self, since: float) -> list[tuple[int, int]]:
        """Look again and again for AWAKE_SECONDS, giving way to whoever wants the processor.

        A thread asleep costs twice: the sender an interrupt to the other processor, and itself the time to
        wake. Traffic with longer pauses, or a busy machine, has us sleep as ever.
        """
        poll = self._epoll.poll
        clock = time.monotonic
        until = since + AWAKE_SECONDS
        before = since
        while True:
            ready = poll(0, MAX_EVENTS)
            if ready:
                return ready
            now = clock()
            if now - before > CROWDED_SECONDS:
                self._crowded_until = now + CROWDED_PAUSE_SECONDS
            if now - before > CROWDED_SECONDS or now > until:
                return ready
            before = now
            os.sched_yield()

    def _report(self) -> None:
        self._errors += 1
        if self._errors <= ERRORS_LOGGED:
            logger.exception("dataplane_batch_lost")

    def _turn(self, ready: list[tuple[int, int]], now: float) -> None:
        """Deal with what is ready.

        A single event on another descriptor than in the turn before is hardly the head of a queue: it goes
        the short way.

        Raises:
            TapGone: the adapter vanished.
        """
        tap = self._tap
        if len(ready) == 1 and ready[0][0] != self._latest and tap is not None:
            descriptor = self._latest = ready[0][0]
            if descriptor == self._wire_descriptor:
                received = self._fast_path.from_wire(tap, now)
                if received is not None:
                    self._forwarding.from_wire(received, now)
                if self._forwarding.to_tap or self._forwarding.to_peers:
                    self._deliver(now)
                return
            # The event may be older than the adapter: a descriptor's number is soon another file's.
            if descriptor in self._tap_descriptors:
                frames = self._fast_path.from_tap(tap, descriptor, now)
                if frames:
                    self._forwarding.from_tap(frames, now)
                return
        self._turns += 1
        for descriptor, _ in ready:
            self._latest = descriptor
            if descriptor == self._wire_descriptor:
                self._read_wire(now)
            elif descriptor == self._wake:
                with suppress(BlockingIOError):
                    os.eventfd_read(self._wake)
            elif tap is not None and descriptor in self._tap_descriptors:
                self._read_tap(tap, descriptor, now)

    def _read_tap(self, tap: TapIo, descriptor: int, now: float) -> None:
        budget = self._budgets[descriptor]
        frames = tap.read(descriptor, budget.reads)
        budget.spend(len(frames), self._turns)
        if frames:
            self._forwarding.from_tap(frames, now)

    def _read_wire(self, now: float) -> None:
        budget = self._wire_budget
        reads = 0
        while reads < budget.reads:
            received = self._wire.receive()
            if received is None:
                break
            reads += 1
            self._forwarding.from_wire(received, now)
        budget.spend(reads, self._turns)
        self._deliver(now)

    def _deliver(self, now: float) -> None:
        """Hand out what waits for the TAP and for peers."""
        if self._forwarding.to_tap:
            self._write_tap(self._forwarding.take_for_tap())
        self._forwarding.send_queued(now)

    def _write_tap(self, frames: list[bytes]) -> None:
        if self._tap is None:
            self._forwarding.drop("receive", "tap_down", len(frames))
            return
        self._tap.write(frames)

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
