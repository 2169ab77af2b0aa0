"""Keeps certificates and revocation lists valid while the daemon runs, and warns before they expire.

Once an hour, the embedded CA renews what it can; whatever still expires soon is logged.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import structlog

from bridged.errors import BridgedError
from bridged.files import FileMark, mark_at
from bridged.pki import EmbeddedCa
from bridged.runtime.site.site import Site
from bridged.runtime.snapshot import EXPIRY_NOTICE_SECONDS
from bridged.runtime.tunnels.tunnel_plan import TunnelPlan
from bridged.supervision import SUPERVISOR

PERIOD_SECONDS: Final = 3600.0
RETRY_SECONDS: Final = 300.0
LISTS_SECONDS: Final = 10.0
"""How often the files of revocation lists are looked at."""
NOTICE_SECONDS: Final = 86_400.0
"""Pause between two log lines about the same expiry."""
_ADVICE: Final = {
    "own": "issue a new certificate for this end, then `bridged reload`",
    "ca": "make a new CA and give it to both ends, then `bridged reload`",
    "crl": "sign a new revocation list, and put it into the file: once it expires, nobody can connect "
    "(unless `tls.crl_expired` is warn)",
}
_EMBEDDED_ADVICE: Final = (
    "the embedded CA expires: move `pki` out of the state folder, run `bridged init`, and invite "
    "every site again"
)


@dataclass(frozen=True, slots=True)
class Revocation:
    """What a revocation did: number of certificates revoked and of sessions ended."""

    revoked: int
    ended: int


class TrustKeeper:
    """One for each daemon. `changes` is the lock that protects changes of `site`.

    `state` gives the state folder of the present configuration, `clock` the wall clock.
    """

    def __init__(
        self,
        site: Site,
        changes: AbstractAsyncContextManager[None],
        state: Callable[[], Path],
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._site = site
        self._changes = changes
        self._state = state
        self._clock = clock
        self._log = structlog.get_logger("bridged")
        self._task: asyncio.Task[None] | None = None
        self._follower: asyncio.Task[None] | None = None
        self._tried: dict[str, FileMark] = {}
        self._mark: str | None = None
        # (tunnel, role) -> the expiry that was logged last, and when.
        self._noticed: dict[tuple[str, str], tuple[float, float]] = {}

    def start(self) -> None:
        self._task = SUPERVISOR.keep(
            "certificates", self._keep, endless=True, longest_pause_seconds=RETRY_SECONDS
        )

        self._follower = SUPERVISOR.keep("revocation_lists", self._follow, endless=True)

    async def stop(self) -> None:
        tasks = [task for task in (self._task, self._follower) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(LISTS_SECONDS)
            await self.follow_lists()

    async def follow_lists(self) -> None:
        """Load revocation lists whose files have changed. One that cannot be used changes nothing."""
        for name, plan in list(self._plans()):
            mark = mark_at(plan.crl_file) if plan.crl_file is not None else None
            if mark is None or mark in (plan.crl_mark, self._tried.get(name)):
                continue
            self._tried[name] = mark
            async with self._changes:
                if name not in self._site.tunnels:
                    continue
                try:
                    ended = self._site.renew_list(name)
                except BridgedError as error:
                    self._log.error("revocation_list_unusable", tunnel=name, reason=error.message)
                    continue
            self._log.info("revocation_list_loaded", tunnel=name, sessions_ended=ended)

    async def _keep(self) -> None:
        while True:
            await self.tend()
            await asyncio.sleep(PERIOD_SECONDS)

    async def tend(self) -> None:
        """Renew what the embedded CA can renew, and log what expires soon."""
        try:
            if any(plan.is_embedded for _, plan in self._plans()):
                await self._renew()
        finally:
            self._give_notice()

    async def revoke(self, name: str, keep: str | None = None) -> Revocation:
        """Revoke the certificates of `name`, except the one with serial `keep`, and end their sessions.

        Raises:
            PkiError: there is no embedded CA, or it has no such certificate.
        """
        async with self._changes:
            authority = await asyncio.to_thread(EmbeddedCa.open, self._state())
            revoked = await asyncio.to_thread(lambda: authority.revoke(name, keep=keep))
            ended = self._site.renew_trust()
            self._mark = await asyncio.to_thread(authority.mark)
        self._log.warning("certificate_revoked", peer=name, certificates=revoked, sessions_ended=ended)
        return Revocation(revoked, ended)

    async def _renew(self) -> None:
        async with self._changes:
            authority = await asyncio.to_thread(EmbeddedCa.ensure, self._state(), clock=self._clock)
            mark = await asyncio.to_thread(authority.mark)
            if mark == self._mark:
                return
            is_first, self._mark = self._mark is None, mark
            ended = self._site.renew_trust()
        if not is_first:
            # Our own renewal, or a command that did not reach this daemon.
            self._log.info("embedded_ca_changed", sessions_ended=ended)

    def _plans(self) -> Iterator[tuple[str, TunnelPlan]]:
        return ((name, tunnel.plan) for name, tunnel in self._site.tunnels.items())

    def _give_notice(self) -> None:
        now = self._clock().timestamp()
        for name, plan in self._plans():
            ends = dict(plan.certificates or {})
            if plan.crl_next_update is not None:
                ends["crl"] = plan.crl_next_update
            for role, end in ends.items():
                noticed, noticed_at = self._noticed.get((name, role), (0.0, 0.0))
                is_fresh = noticed == end and 0 <= now - noticed_at < NOTICE_SECONDS - PERIOD_SECONDS
                if end - now > EXPIRY_NOTICE_SECONDS or is_fresh:
                    continue
                self._noticed[name, role] = end, now
                self._log.warning(
                    "certificate_ends" if role != "crl" else "revocation_list_ends",
                    tunnel=name,
                    role=role,
                    until=f"{datetime.fromtimestamp(end, UTC):%Y-%m-%dT%H:%M:%SZ}",
                    days=round((end - now) / 86_400, 1),
                    advice=_EMBEDDED_ADVICE if plan.is_embedded else _ADVICE.get(role, ""),
                )
