"""Keeps one bridge as configured while the daemon runs, and restores the host when it ends.

Asyncio. Netlink requests run in a thread of their own, a few milliseconds at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import secrets
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias, TypeVar

from bridged.addresses import MacAddress
from bridged.endings import Ending, take_every_step
from bridged.link_planning.wishes import BridgeWish
from bridged.netlink.attachment_state import AttachmentEvent, AttachmentStatus
from bridged.netlink.journal import Journal
from bridged.netlink.reconciler import Reconciler
from bridged.netlink.watch import HostEvent, LinkWatch
from bridged.supervision import SUPERVISOR

Report: TypeAlias = Callable[[AttachmentEvent], None]
Destinations: TypeAlias = Callable[[], Collection[str]]
_Result = TypeVar("_Result")

LONGEST_SILENCE_SECONDS = 30.0
"""Look this often even where no change was reported."""


def _no_destinations() -> Collection[str]:
    return ()


class BridgeAttachment:
    """Makes or adopts the bridge of a wish, attaches ports and TAPs, and repairs what others change.

    `destinations` gives the addresses that the tunnels of this bridge need, as far as known (see
    `check_ports`). `watch`: a shared one is started and closed by its owner; None: our own. `report` is
    called in the event loop. `journal`: a file under the state folder, from which the next run after a crash
    learns what was made and moved, to continue with it and restore it in the end.
    Start and stop it in the thread of the event loop.
    """

    def __init__(
        self,
        wish: BridgeWish,
        *,
        destinations: Destinations = _no_destinations,
        watch: LinkWatch | None = None,
        report: Report | None = None,
        journal: Path | None = None,
    ) -> None:
        if wish.fallback_mac is None:
            wish = replace(wish, fallback_mac=random_mac())
        self.wish = wish
        self._reconciler = Reconciler(wish, destinations, Journal(journal) if journal is not None else None)
        self._watch = watch or LinkWatch()
        self._owns_watch = watch is None
        self._report = report
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._unsubscribe: Callable[[], None] | None = None
        self._executor: ThreadPoolExecutor | None = None

    async def start(self) -> None:
        """Do everything that is possible now; then watch.

        Raises:
            ConfigurationError: the wish cannot be met on this host (`carries_tunnel`, `not_a_bridge`,
                `port_taken`, `port_unfit`); nothing was changed.
            NetlinkError: the kernel refused; what was done before was undone.
        """
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"netlink-{self.wish.name}")
        try:
            if self._owns_watch:
                self._watch.start()
            # Before the first look, so that no change is missed between the two.
            self._unsubscribe = self._watch.subscribe(self._heard)
            await self._in_thread(self._reconciler.start)
        except BaseException:
            # If cancelled, the thread is still at work, and this runs after it. If refused, nothing is left.
            self._executor.submit(self._reconciler.restore)
            self._end()
            raise
        self._changed.set()
        self._task = SUPERVISOR.keep("bridge", self._keep, self.wish.name, endless=True)

    async def stop(self) -> None:
        """Restore the host: remove what we made, return what we adopted to how it was. Idempotent.

        Raises:
            ShutdownErrors: what could not be restored; the rest was.
        """
        if self._executor is None:
            return
        restore = functools.partial(self._in_thread, self._reconciler.restore)
        await Ending(self._end_task, restore, self._end).take()

    async def _end_task(self) -> None:
        task, self._task = self._task, None
        if task is None:
            return
        task.cancel()
        await asyncio.wait({task})
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error

    async def leave(self) -> None:
        """Stop, and leave host and journal as they are, for a successor. Idempotent."""
        if self._executor is not None:
            await Ending(self._end_task, self._end).take()

    async def change(self, wish: BridgeWish) -> None:
        """Keep the bridge as `wish` says from now on. Does what is new in it, and undoes nothing.

        Raises:
            ConfigurationError, NetlinkError: as `start`; the bridge is kept as before.
        """
        if wish.fallback_mac is None:
            wish = replace(wish, fallback_mac=self.wish.fallback_mac)
        if wish == self.wish:
            return
        await self._in_thread(lambda: self._reconciler.change(wish))
        self.wish = wish
        self._changed.set()

    async def check(self, wish: BridgeWish, ours: Collection[str] = ()) -> None:
        """Check that `wish` can be met on this host now. Changes nothing; may be called before `start`.

        `ours`: bridges of this process; what they hold counts as free.

        Raises:
            ConfigurationError: as `start`.
            NetlinkError: the kernel did not answer.
        """
        check = functools.partial(self._reconciler.check, wish, ours)
        if self._executor is not None:
            await self._in_thread(check)
            return
        # The netlink socket belongs to the thread that uses it; `start` opens its own.
        try:
            await asyncio.to_thread(check)
        finally:
            self._reconciler.close()

    async def settle(self) -> None:
        """Look at the host now and do what is missing: a TAP may have appeared."""
        await self._in_thread(self._reconciler.look)

    def status(self) -> AttachmentStatus:
        """As of the last look."""
        return self._reconciler.status()

    def _heard(self, events: frozenset[HostEvent]) -> None:
        names = {self.wish.name, *self.wish.ports, *(tap.name for tap in self.wish.taps)}
        known = self._reconciler.known_indices
        if any(event.index in known or event.link in names or not event.index for event in events):
            self._changed.set()

    async def _keep(self) -> None:
        delay: float | None = None
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(delay or LONGEST_SILENCE_SECONDS, LONGEST_SILENCE_SECONDS)):
                    await self._changed.wait()
            self._changed.clear()
            delay = await self._in_thread(self._reconciler.look)

    async def _in_thread(self, work: Callable[[], _Result]) -> _Result:
        assert self._executor is not None
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, work)
        finally:
            self._tell()

    def _tell(self) -> None:
        for event in self._reconciler.reports.take():
            if self._report is not None:
                self._report(event)

    def _end(self) -> None:
        steps: list[Callable[[], object]] = []
        if self._unsubscribe is not None:
            steps.append(self._unsubscribe)
        if self._owns_watch:
            steps.append(self._watch.close)
        if self._executor is not None:
            steps.append(functools.partial(self._executor.shutdown, wait=True))
        self._unsubscribe = self._executor = None
        take_every_step([*steps, self._reconciler.close])


def random_mac() -> MacAddress:
    """Unicast, locally administered, from the system's random source."""
    octets = bytearray(secrets.token_bytes(6))
    octets[0] = octets[0] & 0xFC | 0x02
    return MacAddress(bytes(octets))
