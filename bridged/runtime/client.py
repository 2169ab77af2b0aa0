"""A connecting tunnel: one server at a time, the next one when it fails.

Source: docs/protocol/control.md, section 9.
"""

from __future__ import annotations

import asyncio
import secrets
from typing import Final

from bridged.addresses import Endpoint, Remote
from bridged.dataplane.contract import DataPlane, PeerSnapshot
from bridged.errors import RemoteProtocolError
from bridged.protocol.packet import SESSION_ID_LENGTH
from bridged.protocol.session_types import Authenticated, Identified, SessionDown, SessionState
from bridged.runtime.link import PeerLink
from bridged.runtime.lookup import Lookup
from bridged.runtime.tunnel import Tunnel, monotonic, newest
from bridged.runtime.tunnel_plan import TunnelPlan
from bridged.runtime.ways import has_way
from bridged.supervision import SUPERVISOR, Timer

RETRY_SECONDS: Final = 1.0
RETRY_SECONDS_MAX: Final = 300.0
ROUNDS_BEFORE_BACKOFF: Final = 5
KNOCK_SECONDS: Final = 1.0
"""While no server has answered our reset at all, it is repeated so often: a server that appears is found."""
LEAST_PAUSE_SECONDS: Final = 0.1
WAY_SECONDS: Final = 0.3
"""A way that is gone for so long is given up for another one; an address that is replaced is back sooner."""


class ClientTunnel(Tunnel):
    """Tries the remotes in order, all addresses of one before the next; after a connection that one first."""

    role = "client"

    def __init__(self, plan: TunnelPlan, dataplane: DataPlane) -> None:
        super().__init__(plan, dataplane)
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._down: SessionDown | None = None
        self._is_refused = False
        self._ended = asyncio.Event()
        self._lookup = Lookup()
        self._current: Endpoint | None = None
        self._is_resolving = False
        self._is_hurried = False
        self._known: dict[Remote, list[Endpoint]] = {
            remote: [remote.server] for remote in plan.remotes if remote.server.is_numeric
        }
        self._way_timer: Timer | None = None

    async def start(self) -> None:
        await super().start()
        self._task = SUPERVISOR.keep("connect", self._connect_for_ever, self.plan.name, endless=True)

    async def stop(self) -> None:
        if self._way_timer is not None:
            self._way_timer.cancel()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._lookup.close()
        await super().stop()

    def handle_network_change(self) -> None:
        super().handle_network_change()
        self._wake.set()
        if self._way_timer is None and not self.is_stopping:
            self._way_timer = SUPERVISOR.after(
                "look_for_way", WAY_SECONDS, self._look_for_way, self.plan.name
            )

    def _look_for_way(self) -> None:
        """Where the server's address cannot be reached any more, and another one can, change over."""
        self._way_timer = None
        for link in list(self.links.values()):
            if link.session.is_live and self._should_pass_over(link.endpoint):
                self._is_hurried = True
                link.close("transport_closed", f"there is no way to {link.endpoint} any more", notify=False)

    def _should_pass_over(self, endpoint: Endpoint) -> bool:
        """There is no way to it, but one to another address of our servers."""
        if has_way(endpoint, self.plan.local):
            return False
        others = {other for found in self._known.values() for other in found} - {endpoint}
        return any(has_way(other, self.plan.local) for other in others)

    @property
    def state(self) -> str:
        link = newest(link for link in self.links.values() if link.session.is_live)
        if link is None:
            return "resolving" if self._is_resolving else "waiting"
        return "connected" if link.session.state is SessionState.ESTABLISHED else "connecting"

    @property
    def remote(self) -> str | None:
        return str(self._current) if self._current is not None else None

    def receive_control(self, datagram: bytes, source: Endpoint) -> None:
        # The last session may still be acknowledging the server's farewell.
        link = newest(self.links.at(source))
        if link is None:
            raise RemoteProtocolError("cookie_mismatch", "not from the server we speak with")
        link.receive(datagram)

    def handle_identified(self, link: PeerLink, event: Identified) -> None:
        raise AssertionError("a client admits nobody")

    def handle_authenticated(self, link: PeerLink, event: Authenticated) -> None:
        raise AssertionError("a client is not asked to admit anybody")

    def handle_down(self, link: PeerLink, event: SessionDown, last: PeerSnapshot | None) -> None:
        super().handle_down(link, event, last)
        self._down = event
        self._ended.set()

    # --- attempts ---------------------------------------------------------------------------------

    async def _connect_for_ever(self) -> None:
        order = list(self.plan.remotes)
        refused_rounds = 0
        while True:
            self._is_refused = False
            self._down = None
            began = monotonic()
            for remote in order:
                if await self._try_remote(remote):
                    # The same remote first after a connection that worked.
                    order = [remote, *(other for other in order if other != remote)]
                    break
            refused_rounds = refused_rounds + 1 if self._is_refused else 0
            await self._pause(refused_rounds, monotonic() - began)

    async def _pause(self, refused_rounds: int, spent: float) -> None:
        """Wait before the next round. Only who was told no waits longer and longer.

        A round without an answer has taken its time already, and what is missing (name server, link, server)
        may appear at any moment.
        """
        over = refused_rounds - ROUNDS_BEFORE_BACKOFF
        seconds = min(RETRY_SECONDS * 2.0 ** min(over, 16), RETRY_SECONDS_MAX) if over > 0 else RETRY_SECONDS
        if refused_rounds == 0 and self._down is None:
            seconds = max(LEAST_PAUSE_SECONDS, seconds - spent)
        if self._down is not None:
            seconds = min(max(seconds, self._down.retry_after), RETRY_SECONDS_MAX)
        if self._is_hurried:
            self._is_hurried = False
            return
        self._wake.clear()
        try:
            # A change of addresses or routes ends the wait: the way may be open now.
            await asyncio.wait_for(self._wake.wait(), seconds)
        except TimeoutError:
            pass

    async def _try_remote(self, remote: Remote) -> bool:
        """Try all addresses of one remote; True when a session was established (and is over now)."""
        for endpoint in await self._resolve(remote):
            if self._should_pass_over(endpoint):
                continue
            down = await self._run_session(endpoint)
            if down.was_established:
                self._is_refused = False
                return True
            if down.reason != "timeout":
                self._is_refused = True
            if down.next_remote:
                return False
        return False

    async def _resolve(self, remote: Remote) -> list[Endpoint]:
        self._is_resolving = True
        try:
            self._known[remote] = await self._lookup.resolve(remote)
            return self._known[remote]
        except OSError as error:  # TimeoutError is one
            detail = str(error) or "no answer in time"
            text = f"cannot look up {remote.server.host}: {detail}"
            if self.last_error != text:
                self.log.warning("lookup_failed", host=remote.server.host, detail=detail)
            self.last_error = text
            return []
        finally:
            self._is_resolving = False

    async def _run_session(self, endpoint: Endpoint) -> SessionDown:
        self._ended.clear()
        self._down = None
        self._current = endpoint
        link = self.make_link(endpoint, local_session_id=_session_id())
        self.log.info("connecting", endpoint=str(endpoint))
        link.pump()
        self.rearm()
        while not self._ended.is_set():
            is_heard = link.session.remote_session_id is not None
            try:
                await asyncio.wait_for(self._ended.wait(), None if is_heard else KNOCK_SECONDS)
            except TimeoutError:
                if link.session.remote_session_id is None:
                    link.nudge()
                    self.rearm()
        assert self._down is not None
        return self._down


def _session_id() -> bytes:
    while not any(session_id := secrets.token_bytes(SESSION_ID_LENGTH)):
        pass
    return session_id
