"""Reloads of the configuration: read the file, change the site to it, and go back where that fails.

What restarts by a change is decided in `configuration.diff`; `Site.become` carries it out. Asyncio.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import structlog

from bridged.configuration import Configuration, find_warnings, load
from bridged.configuration.diff import diff
from bridged.errors import BridgedError, ConfigurationError, ShutdownErrors
from bridged.runtime.site.host_warnings import host_warnings
from bridged.runtime.site.site import Site
from bridged.runtime.snapshot import ReloadStatus
from bridged.runtime.tunnels.tunnel import RunningTunnel
from bridged.runtime.tunnels.tunnel_plan import TunnelPlan
from bridged.supervision import SUPERVISOR
from bridged.units import UnixSeconds

SITE_ERRORS: Final = (BridgedError, OSError, ShutdownErrors)
"""Errors of changes of the site."""


class Reloads:
    """Reloads `path`, one at a time. `configuration` is what is in effect, `status` the newest outcome.

    `lock` is held while the site changes. `is_running`: the start is complete, and no stop has begun.
    `on_changed` is called after every attempt, even a failed one; `on_applied` when a configuration is in
    effect; `on_begun` and `on_ended` around every attempt, with the reason of a rejection.
    """

    def __init__(
        self,
        site: Site,
        path: Path,
        configuration: Configuration,
        *,
        is_running: Callable[[], bool],
        on_changed: Callable[[Configuration], None],
        on_applied: Callable[[Configuration], None],
        on_begun: Callable[[], None] = lambda: None,
        on_ended: Callable[[str], None] = lambda rejection: None,
    ) -> None:
        self.configuration = configuration
        self.lock = asyncio.Lock()
        # As Prometheus counts it: a start is a successful reload.
        self.status = ReloadStatus({}, "applied", "", UnixSeconds(time.time()))
        self._site = site
        self._path = path
        self._is_running = is_running
        self._on_changed = on_changed
        self._on_applied = on_applied
        self._on_begun = on_begun
        self._on_ended = on_ended
        self._again = False
        self._task: asyncio.Task[None] | None = None
        self._log = structlog.get_logger("bridged")

    def reload_soon(self) -> None:
        """Start a reload. Any number of calls during one cause one more reload."""
        if not self._is_running():
            return  # starting: the file has just been read
        if self._task is None or self._task.done():
            self._task = SUPERVISOR.keep("reload", self.reload)
        else:
            self._again = True

    async def reload(self) -> ReloadStatus:
        """Load the configuration again and apply the difference. Never raises; see the status."""
        async with self.lock:
            if not self._is_running():
                return self._note("rejected", "nothing was changed: the daemon is starting or stopping")
            self._on_begun()
            try:
                return await self._reload_all()
            finally:
                self._on_ended(self.status.detail if self.status.outcome == "rejected" else "")

    async def _reload_all(self) -> ReloadStatus:
        status = await self._reload()
        while self._again and self._is_running():
            self._again = False
            status = await self._reload()
        return status

    async def _reload(self) -> ReloadStatus:
        try:
            target = self._load()
            plans = self._site.plan(target)
            await self._site.check(target)
        except SITE_ERRORS as error:
            return self._note("rejected", f"nothing was changed: {error}")
        before, ran = self.configuration, self._site.tunnels
        try:
            restarted = await self._become(target, plans)
        except Exception as error:
            # Whatever it is, the daemon continues with what it had.
            outcome = await self._go_back(before, ran)
            return self._note("rejected", f"{error or type(error).__name__}; {outcome}")
        return self._note("restarted" if restarted else "applied", ", ".join(restarted))

    def _load(self) -> Configuration:
        target = load(self._path)
        changes = diff(self.configuration, target)
        if refused := [change.key for change in changes if change.effect == "refused"]:
            raise ConfigurationError(
                f"{', '.join(refused)} cannot be changed while the daemon runs; restart it", file=self._path
            )
        log_warnings(target)
        return target

    async def _become(self, target: Configuration, plans: Mapping[str, TunnelPlan]) -> list[str]:
        """Change the site. Returns what had to restart."""
        try:
            restarted = await self._site.become(target, plans)
        finally:
            self._on_changed(target)
        self.configuration = target
        self._on_applied(target)
        return restarted

    async def _go_back(self, before: Configuration, ran: Mapping[str, RunningTunnel]) -> str:
        """Restore what was before a failed reload. Returns a sentence about the result."""
        try:
            await self._become(before, self._site.plan(before))
        except Exception as error:
            self._log.error("reload_not_undone", detail=str(error))
            return f"the previous configuration could not be restored: {error}; correct it and reload again"
        restarted = [name for name, tunnel in self._site.tunnels.items() if tunnel is not ran.get(name)]
        restored = "the previous configuration has been restored"
        return f"{restored}; restarted: {', '.join(restarted)}" if restarted else restored

    def _note(self, outcome: str, detail: str) -> ReloadStatus:
        known = self.status
        counts = {**known.counts, outcome: known.counts.get(outcome, 0) + 1}
        is_good = outcome != "rejected"
        succeeded = UnixSeconds(time.time()) if is_good else known.succeeded
        self.status = ReloadStatus(counts, outcome, detail, succeeded)
        write = self._log.info if is_good else self._log.error
        write("configuration_reloaded" if is_good else "reload_rejected", outcome=outcome, detail=detail)
        return self.status


def log_warnings(configuration: Configuration) -> None:
    """Log what is doubtful in a configuration, by itself and on this host."""
    log = structlog.get_logger("bridged")
    for path, text in [*find_warnings(configuration), *host_warnings(configuration)]:
        log.warning("configuration_warning", where=".".join(map(str, path)), text=text)
