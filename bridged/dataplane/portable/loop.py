"""The one thread that moves frames: wait, read in batches, forward, write, look at the timers.

Source: epoll(7), eventfd(2). One thread does both directions. Tried with one for each (tests/bench/
dataplane_pair.py, and no lock but the interpreter's): no more throughput, a third more processor time, and
a longer round trip.

It holds the gate while it works on a batch; see `gate`.
"""

from __future__ import annotations

import logging
import os
import select
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final

from bridged.dataplane.portable.control.counters import DropCounter
from bridged.dataplane.portable.directions import Directions
from bridged.dataplane.portable.gate import Gate
from bridged.dataplane.portable.tap import TapGone
from bridged.dataplane.portable.transport.stream import Stream
from bridged.dataplane.portable.transport.wires import Wires
from bridged.endings import take_every_step
from bridged.supervision import SUPERVISOR

TAP_BUDGET_FRAMES: Final = 128
WIRE_BUDGET_READS: Final = 16
MAX_EVENTS: Final = 16
TICK_SECONDS: Final = 1.0
AWAKE_SECONDS: Final = 50e-6
"""How long to poll without sleeping for the next event, if the last one came as soon as that."""
CROWDED_SECONDS: Final = 30e-6
"""If one look took longer than this, another program had the processor: sleep from now on, for a while."""
CROWDED_PAUSE_SECONDS: Final = 0.1
ERRORS_LOGGED: Final = 10

logger = logging.getLogger(__name__)


class _Budget:
    """How many reads to try in one turn.

    One read more than there is to read costs a system call and an exception. The budget is therefore what the
    last turn used, and doubles only after two turns in a row that used it up: then there is a queue.
    """

    __slots__ = ("_full_at", "most", "reads")

    def __init__(self, most: int) -> None:
        self.most = most
        self.reads = 1
        self._full_at = -2

    def spend(self, used: int, turn: int) -> None:
        """Record that `used` reads returned data in this turn."""
        if used < self.reads:
            self.reads = used or 1
            return
        if self._full_at == turn - 1:
            self.reads = min(self.most, self.reads * 2)
        self._full_at = turn


class Loop:
    """Drives both directions between `start` and `stop`, in a thread of its own.

    `on_tick(now)` returns when it wants to be called next, at the latest. `on_tap_gone(errno)` says that the
    adapter vanished, once for each adapter. Both are called with the gate held.
    """

    def __init__(
        self,
        name: str,
        gate: Gate,
        wires: Wires,
        directions: Directions,
        drops: DropCounter,
        on_tick: Callable[[float], float],
        on_tap_gone: Callable[[int], None],
    ) -> None:
        self._name = name
        self._gate = gate
        self._transport = wires.udp
        self._streams = streams = wires.streams
        streams.after_open = self._watch_stream
        streams.on_waiting = self._watch_waiting
        streams.before_close = self._forget_stream
        self._directions = directions
        self._reader, self._writer = directions.reader, directions.writer
        self._forwarding = directions.forwarding
        self._delivery = directions.delivery
        self._receiver = directions.receiver
        self._batches = directions.batches
        self._drops = drops
        self._on_tick = on_tick
        self._on_tap_gone = on_tap_gone
        self._tap_descriptors: tuple[int, ...] = ()
        """Empty while there is no adapter."""
        self._wire_descriptor = -1
        self._transport.before_close = self._forget_wire
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
        self._lan_events = self._wan_events = select.EPOLLIN
        self._question = self._answer = 0

    def start(self) -> None:
        self._running = True
        self._thread = SUPERVISOR.thread(
            "dataplane_thread", self._run, self._name, name=self._name, is_wanted=lambda: self._running
        )

    def stop(self) -> None:
        """End the thread and close the loop's descriptors. Idempotent. Not with the gate held."""
        self._running = False
        if self._wake >= 0:
            os.eventfd_write(self._wake, 1)
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        self._thread = None
        if self._wake >= 0:
            wake, self._wake = self._wake, -1
            take_every_step((self._epoll.close, partial(os.close, wake)))

    def wake(self) -> None:
        """Call `on_tick` soon: the timers have changed."""
        self._next_tick = 0.0
        if self._wake >= 0:
            os.eventfd_write(self._wake, 1)

    def ask(self) -> None:
        """Ask the thread for a sign of life."""
        self._question += 1
        if self._wake >= 0:
            os.eventfd_write(self._wake, 1)

    @property
    def has_answered(self) -> bool:
        """The thread has come round since the latest `ask`."""
        return self._answer == self._question

    def hold(self, *, lan: bool, wan: bool) -> None:
        """Leave frames in the adapter and datagrams in the socket, or read them again. With the gate held."""
        self._lan_events = 0 if lan else select.EPOLLIN
        self._wan_events = 0 if wan else select.EPOLLIN
        for descriptor in self._tap_descriptors:
            self._epoll.modify(descriptor, self._lan_events)
        if self._wire_descriptor >= 0:
            self._epoll.modify(self._wire_descriptor, self._wan_events)
        for stream in self._streams.by_descriptor.values():
            self._watch_waiting(stream)

    def watch_wire(self) -> None:
        """Watch the transport's socket, which is a new one. With the gate held, or before `start`."""
        self._forget_wire()
        self._wire_descriptor = self._transport.fileno()
        if self._wire_descriptor >= 0:
            self._epoll.register(self._wire_descriptor, self._wan_events)

    def watch_tap(self) -> None:
        """Watch the adapter that the directions use now. With the gate held, or before `start`."""
        self._forget_tap()
        self._reader, self._writer = self._directions.reader, self._directions.writer
        self._tap_descriptors = self._directions.tap.port.fds
        for descriptor in self._tap_descriptors:
            self._budgets[descriptor] = _Budget(TAP_BUDGET_FRAMES)
            self._epoll.register(descriptor, self._lan_events)

    def cpu_seconds(self) -> float:
        """Processor time of the thread up to now."""
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
            self._answer = self._question
            # If an answer follows soon, to sleep and wake takes longer than to poll for it.
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
                # A bug must cost the batch that it was met in, not the tunnel.
                self._report()
            finally:
                lock.release()
            if gate.waiting:
                gate.give_way()
            done = clock()
        self._cpu_seconds = time.thread_time()

    def _wait_awake(self, since: float) -> list[tuple[int, int]]:
        """Poll for AWAKE_SECONDS, and give way to other programs.

        A sleeping thread costs twice: the sender an interrupt to the other processor, and itself the time to
        wake. Traffic with longer pauses, or a busy machine, ends this.
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

        A single event, on another descriptor than in the turn before, is hardly the head of a queue: one read
        is tried then, which takes fewer steps.

        Raises:
            TapGone: the adapter vanished.
        """
        if self._receiver.early:
            # Before all that is read in this turn: the key is there, and each flow keeps its order.
            self._receiver.take_early(now)
            self._deliver(now)
        if len(ready) == 1 and ready[0][0] != self._latest and self._tap_descriptors:
            descriptor = self._latest = ready[0][0]
            if descriptor == self._wire_descriptor:
                received = self._transport.receive()
                if received is None:
                    return
                frame = self._receiver.take_one(received, now)
                if frame is not None:
                    self._writer.write_one(frame)
                elif self._delivery.to_tap or self._batches:
                    self._deliver(now)
                return
            # The event may be older than the adapter: a descriptor's number is soon another file's.
            if descriptor in self._tap_descriptors:
                frame, frames = self._reader.read_one(descriptor)
                if frame is not None:
                    self._forwarding.forward_one(frame, now)
                elif frames:
                    self._forwarding.forward(frames, now)
                return
        self._turn_many(ready, now)

    def _turn_many(self, ready: list[tuple[int, int]], now: float) -> None:
        self._turns += 1
        for descriptor, events in ready:
            self._latest = descriptor
            if descriptor == self._wire_descriptor:
                self._read_wire(now)
            elif descriptor == self._wake:
                self._answer_wake(now)
            elif descriptor in self._tap_descriptors:
                self._read_tap(descriptor, now)
            else:
                self._serve_stream(descriptor, events, now)

    def _answer_wake(self, now: float) -> None:
        with suppress(BlockingIOError):
            os.eventfd_read(self._wake)
        if self._streams.fresh and self._wan_events:
            fresh, self._streams.fresh = self._streams.fresh, []
            for stream in fresh:
                if stream.fileno() in self._streams.by_descriptor:
                    self._read_stream(stream, now)

    def _read_tap(self, descriptor: int, now: float) -> None:
        budget = self._budgets[descriptor]
        frames = self._reader.read(descriptor, budget.reads)
        budget.spend(len(frames), self._turns)
        if frames:
            self._forwarding.forward(frames, now)

    def _read_wire(self, now: float) -> None:
        budget = self._wire_budget
        reads = 0
        while reads < budget.reads:
            received = self._transport.receive()
            if received is None:
                break
            reads += 1
            self._receiver.take(received, now)
        budget.spend(reads, self._turns)
        self._deliver(now)

    def _serve_stream(self, descriptor: int, events: int, now: float) -> None:
        stream = self._streams.by_descriptor.get(descriptor)
        if stream is None:
            return
        if events & select.EPOLLOUT:
            stream.flush()
        if events & ~select.EPOLLOUT:
            self._read_stream(stream, now)

    def _read_stream(self, stream: Stream, now: float) -> None:
        for received in stream.receive():
            self._receiver.take(received, now)
        self._streams.note_read(stream)
        self._deliver(now)

    def _deliver(self, now: float) -> None:
        """Hand out what waits for the TAP and for peers."""
        if self._delivery.to_tap:
            frames = self._delivery.take_for_tap()
            if self._tap_descriptors:
                self._writer.write(frames)
            else:
                self._drops.count("receive", "tap_down", len(frames))
        self._batches.flush(now)

    def _lose_tap(self, gone: TapGone) -> None:
        self._forget_tap()
        self._on_tap_gone(gone.number)

    def _forget_wire(self) -> None:
        """Stop watching a socket that is about to close. The epoll keeps it while a duplicate is open."""
        descriptor, self._wire_descriptor = self._wire_descriptor, -1
        if descriptor >= 0 and not self._epoll.closed:
            self._epoll.unregister(descriptor)

    def _watch_stream(self, stream: Stream) -> None:
        self._epoll.register(stream.fileno(), self._stream_events(stream))

    def _watch_waiting(self, stream: Stream) -> None:
        self._epoll.modify(stream.fileno(), self._stream_events(stream))

    def _stream_events(self, stream: Stream) -> int:
        # The last of what was held must not be lost: one that closes is read although the others are held.
        reads = select.EPOLLIN if stream.is_closing else self._wan_events
        return reads | (select.EPOLLOUT if stream.has_waiting else 0)

    def _forget_stream(self, stream: Stream) -> None:
        if not self._epoll.closed:
            self._epoll.unregister(stream.fileno())

    def _forget_tap(self) -> None:
        for descriptor in self._tap_descriptors:
            self._budgets.pop(descriptor, None)
            try:
                self._epoll.unregister(descriptor)
            except (OSError, ValueError):
                pass  # the caller closed it
        self._tap_descriptors = ()
