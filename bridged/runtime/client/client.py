"""A connecting tunnel: calls its servers, one after the other and side by side, until one lets it in.

Source: docs/protocol/control.md#9; docs/decisions/0043.
Whom to call when is in `remote_order`, what a call is in `call`, the reasons of failure in `outage`.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Final

from bridged.addresses import Endpoint, Remote
from bridged.dataplane.contract import DataPlane, PeerSnapshot
from bridged.errors import BridgedError, DataplaneError, RemoteProtocolError
from bridged.protocol.packets.packet import SESSION_ID_LENGTH
from bridged.protocol.session.events import Authenticated, Established, Identified, SessionDown
from bridged.runtime.client.call import CALL_SECONDS, KNOCKS, Call
from bridged.runtime.client.call_socket import CallSocket
from bridged.runtime.client.call_sockets import CallSockets
from bridged.runtime.client.name_watch import NameWatch
from bridged.runtime.client.outage import Outage
from bridged.runtime.client.pauses import Pauses
from bridged.runtime.client.probe import Probe
from bridged.runtime.client.remembered import RememberedServer
from bridged.runtime.client.remote_order import Candidate, RemoteOrder
from bridged.runtime.client.route_probe import has_route
from bridged.runtime.tunnels.link import PeerLink
from bridged.runtime.tunnels.mss import TcpSizes
from bridged.runtime.tunnels.tunnel import Tunnel, monotonic, newest
from bridged.runtime.tunnels.tunnel_plan import TunnelPlan
from bridged.supervision import SUPERVISOR, Timer

WAY_SECONDS: Final = 0.3
"""A way that is gone for so long is given up for another one; an address that is replaced is back sooner."""
WAKE_SECONDS: Final = 1.0
"""News of the network begin a new round at most so often."""
CALLS_MAX: Final = 32
"""At once. Beyond, the oldest that nobody answered is over."""
STALLS_MAX: Final = 1024
"""Endpoints whose stalls are counted."""
_NEVER: Final = float("inf")


class ClientTunnel(Tunnel):
    """Calls the remotes in order, all addresses of one side by side; what worked last comes first.

    Each call has a socket of its own, and so another UDP port, unless `local` fixes one. The data plane gets
    the socket of the call that is let in.
    """

    role = "client"

    def __init__(self, plan: TunnelPlan, dataplane: DataPlane) -> None:
        super().__init__(plan, dataplane)
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._order = RemoteOrder(plan.remotes)
        self.sizes: Mapping[Remote, TcpSizes] = {}
        """Of servers whose paths differ; empty: all have the data plane's settings."""
        self._remembered = RememberedServer(plan.memory, plan.remotes)
        self._names = NameWatch(plan.remotes, self._note_found, self._note_not_found, plan.name)
        self._outage = Outage(monotonic())
        self._calls: dict[int, Call] = {}
        """Live calls by the handle of their link."""
        self._sockets = CallSockets(plan.local, dataplane, self._take_datagram, self._take_refusal, plan.name)
        self._speaker: Call | None = None
        """Whose server has answered: only one goes on with its handshake."""
        self._connected: Call | None = None
        self._latest: Endpoint | None = None
        self._stalls: dict[Endpoint, int] = {}
        self._pauses = Pauses()
        self._woken_at = -_NEVER
        self._wake_at = _NEVER
        self._way_timer: Timer | None = None
        self._probe = Probe(dataplane, self._renew, monotonic, plan.name)
        if (best := self._remembered.load()) is not None:
            self._order.prefer(best)

    async def start(self) -> None:
        """As `Tunnel.start`.

        Raises:
            DataplaneError: `bind_failed`: `local` cannot be bound.
        """
        self._sockets.start()
        await super().start()
        self._names.start()
        self._task = SUPERVISOR.keep("connect", self._connect_for_ever, self.plan.name, endless=True)

    async def stop(self) -> None:
        self._probe.close()
        if self._way_timer is not None:
            self._way_timer.cancel()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._names.stop()
        for call in list(self._calls.values()):
            if call is not self._connected:
                self._drop(call)
        await super().stop()
        self._sockets.close()

    # --- what is seen from outside ----------------------------------------------------------------

    @property
    def state(self) -> str:
        if self._connected is not None:
            return "connected"
        if self._calls:
            return "connecting"
        return "resolving" if self._order.is_resolving else "waiting"

    @property
    def remote(self) -> str | None:
        return str(self._latest) if self._latest is not None else None

    def handle_network_change(self) -> None:
        super().handle_network_change()
        self.wake()
        if self._way_timer is None and not self.is_stopping:
            self._way_timer = SUPERVISOR.after(
                "look_for_way", WAY_SECONDS, self._look_for_way, self.plan.name
            )

    def handle_clock_step(self) -> None:
        """What was not valid yet may be now: pauses after refusals begin from the shortest again."""
        self._pauses.start_again()
        super().handle_clock_step()

    def wake(self) -> None:
        """End every wait: something has changed that may let us through."""
        self._names.hurry()
        self._wake_at = min(self._wake_at, max(monotonic(), self._woken_at + WAKE_SECONDS))
        self._changed.set()

    def _wake_up(self, now: float) -> None:
        self._woken_at = now
        self._wake_at = _NEVER
        self._pauses.wake()
        if self._speaker is None or self._speaker.waits_until() <= now:
            self._order.begin(now)

    def _look_for_way(self) -> None:
        """Where the server's address cannot be reached any more, and another one can, change over."""
        self._way_timer = None
        call = self._connected
        if call is not None and self._should_leave(call.link.endpoint):
            call.link.close("transport_closed", f"no route to {call.link.endpoint} any more", notify=False)

    def _should_leave(self, endpoint: Endpoint) -> bool:
        """There is no route to it, but one to another address of our servers."""
        if has_route(endpoint, self.plan.local):
            return False
        others = self._order.addresses() - {endpoint}
        return any(has_route(other, self.plan.local) for other in others)

    # --- names ------------------------------------------------------------------------------------

    def _note_found(self, remote: Remote, found: list[Endpoint]) -> None:
        if not self._order.set_addresses(remote, found) or self._connected is not None:
            return
        now = monotonic()
        if self._pauses.until > now:
            # The address before may have been wrong.
            self._pauses.wake()
            self._order.begin(now)
        self._changed.set()

    def _note_not_found(self, remote: Remote, detail: str) -> None:
        text = f"cannot look up {remote.server.host}: {detail}"
        if self.last_error != text:
            self.log.warning("lookup_failed", host=remote.server.host, detail=detail)
        self._outage.note_nameless(text)
        self.last_error = self._outage.words(monotonic())
        self._order.note_no_name(remote)
        self._changed.set()

    # --- what the network says --------------------------------------------------------------------

    def receive_control(self, datagram: bytes, source: Endpoint) -> None:
        # The last session may still be acknowledging the server's farewell.
        link = newest(self.links.at(source))
        if link is None:
            raise RemoteProtocolError("cookie_mismatch", "not from the server we speak with")
        link.receive(datagram)

    def _take_datagram(self, through: CallSocket, datagram: bytes, source: Endpoint) -> None:
        link = newest(link for link in self.links.at(source) if self._sockets.of(link.handle) is through)
        if link is None:
            self.statistics.control_drops["receive", "cookie_mismatch"] += 1
            return
        drops = link.session.drops.total()
        try:
            link.receive(datagram)
        except BridgedError as error:
            self.log.error("session_failed", endpoint=str(source), code=error.code, detail=error.message)
            link.abort(error.message)
        call = self._calls.get(link.handle)
        if call is not None and link.session.drops.total() == drops:
            self._note_heard(call)
        self.rearm()

    def _note_heard(self, call: Call) -> None:
        """A good packet: this server is the one we speak with now, unless another one still answers, too."""
        if call.link.session.remote_session_id is None:
            return
        now = monotonic()
        if self._connected is not None:
            # It is to take the place of the connection, once it is one itself.
            call.heard_at = now
            return
        speaker = self._speaker
        if speaker is not None and speaker is not call:
            if speaker.waits_until() > now:
                self._drop(call)
                return
            self._give_up(speaker)
        call.heard_at = now
        call.is_refused = False
        self._speaker = call
        self._outage.note_answer(now)
        for other in list(self._calls.values()):
            if other is not call:
                self._order.forget(other.candidate.endpoint)
                self._drop(other)
        self._changed.set()

    def _give_up(self, call: Call) -> None:
        """It answered, fell silent, and another call was answered."""
        if len(self._stalls) >= STALLS_MAX:
            self._stalls.clear()
        self._stalls[call.candidate.endpoint] = call.stalls + 1
        call.link.close("timeout", call.link.session.handshake_hint, notify=False)

    def _take_refusal(self, through: CallSocket, endpoint: Endpoint, words: str) -> None:
        """ICMP, or this host, says that nothing arrives there. Anybody can forge ICMP: it ends nothing."""
        for call in self._calls.values():
            if call.socket is through and call.link.endpoint == endpoint and call is not self._connected:
                call.is_refused = True
                self._order.refuse(endpoint)
                if self._outage.note_refused(endpoint, words):
                    self.log.info("remote_unreachable", endpoint=str(endpoint), reason=words)
                self._changed.set()

    # --- sessions ---------------------------------------------------------------------------------

    def handle_identified(self, link: PeerLink, event: Identified) -> None:
        raise AssertionError("a client admits nobody")

    def handle_authenticated(self, link: PeerLink, event: Authenticated) -> None:
        raise AssertionError("a client is not asked to admit anybody")

    def handle_established(self, link: PeerLink, event: Established) -> None:
        super().handle_established(link, event)
        call = self._calls.get(link.handle)
        if call is None:
            return
        self._connected = self._speaker = call
        self._pauses.note_connected()
        self._stalls.clear()
        self._order.prefer(call.candidate)
        self._remembered.save(call.candidate)
        self._names.want(False)
        for other in list(self._calls.values()):
            if other is not call:
                self._drop(other)
        self._changed.set()

    def handle_down(self, link: PeerLink, event: SessionDown, last: PeerSnapshot | None) -> None:
        call = self._calls.pop(link.handle, None)
        if call is None:
            # One of ours that lost the race: no failure.
            return
        super().handle_down(link, event, last)
        if self._connected is not None and self._connected is not call:
            return
        if self._speaker is call:
            self._speaker = None
        now = monotonic()
        if event.was_established:
            self._connected = None
            self._outage = Outage(now)
            self._pauses.end_connection(now, event.reason, event.retry_after)
            self._order.begin(self._pauses.until)
        elif event.reason not in ("shutdown", "replaced"):
            self._note_failure(call, event)
        if event.reason not in ("shutdown", "replaced", "timeout"):
            self._outage.note_reason(f"{event.reason}: {event.detail}")
        self.last_error = self._outage.words(now)
        self._changed.set()

    def _note_failure(self, call: Call, event: SessionDown) -> None:
        self._order.refuse(call.candidate.endpoint)
        if event.reason == "timeout":
            self._outage.note_timeout(f"timeout: {event.detail}")
            return
        self._pauses.note_refusal(event.retry_after)
        if event.next_remote:
            self._order.skip(call.candidate.remote)

    def handle_ended(self, link: PeerLink) -> None:
        super().handle_ended(link)
        self._sockets.release(link.handle)

    # --- calls ------------------------------------------------------------------------------------

    async def _connect_for_ever(self) -> None:
        self._order.begin(monotonic())
        while True:
            self._changed.clear()
            deadline = self._step(monotonic())
            self.rearm()
            seconds = None if deadline == _NEVER else max(0.0, deadline - monotonic())
            # Not `wait_for`: before Python 3.12 it can lose a cancellation.
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._changed.wait()

    def _step(self, now: float) -> float:
        """Do what is due; when to come back at the latest."""
        if self._connected is not None:
            self._wake_at = _NEVER
            return self._tend(now)
        self._names.want(True)
        if now >= self._wake_at:
            self._wake_up(now)
        deadlines = [self._tend(now), self._wake_at]
        speaker = self._speaker
        if speaker is not None and speaker.waits_until() > now:
            deadlines.append(speaker.waits_until())
        elif self._pauses.until > now:
            deadlines.append(self._pauses.until)
        else:
            if speaker is not None:
                self._order.refuse(speaker.candidate.endpoint)
            self._call_those_due(now)
            deadlines.append(max(self._order.deadline(now), self._pauses.until))
        if (fields := self._outage.report(now)) is not None:
            self.log.warning("no_answer", **fields)
        self.last_error = self._outage.words(now) or self.last_error
        deadlines.append(max(now + 0.1, self._outage.next_report))
        return min(deadlines)

    def _call_those_due(self, now: float) -> None:
        if self._order.is_over(now):
            self._pauses.end_round(now)
            self._order.begin(self._pauses.until)
        while self._pauses.until <= now and (candidate := self._order.next(now)) is not None:
            self._call(candidate, now)

    def _call(self, candidate: Candidate, now: float) -> None:
        endpoint = candidate.endpoint
        speaker = self._speaker if self._connected is None else None
        if speaker is not None and speaker.candidate.endpoint == endpoint and not speaker.is_given_up(now):
            self._order.refuse(endpoint)
            return
        try:
            through = self._sockets.open_for(endpoint)
        except DataplaneError as error:
            self._order.refuse(endpoint)
            self._outage.note_refused(endpoint, error.message)
            return
        self._make_room(endpoint)
        try:
            link = self.make_link(endpoint, local_session_id=_session_id())
        except BaseException:
            # Nobody else would close it: each new try would leave one more behind.
            self._sockets.discard(through)
            raise
        self._sockets.give(link, through)
        lend = partial(self._prepare, link.before_attach, candidate.remote)
        link.before_attach = partial(self._take_over, link, lend)
        call = Call(candidate, link, through, now, self._stalls.get(endpoint, 0))
        self._calls[link.handle] = call
        self._latest = endpoint
        if self._outage.note_called(endpoint):
            self.log.info("connecting", endpoint=str(endpoint))
        link.pump()

    def _prepare(self, lend: Callable[[], None], remote: Remote) -> None:
        """The data plane takes over: it gets the socket, and fits TCP to what this server's path bears."""
        lend()
        sizes = self.sizes.get(remote)
        if sizes is not None:
            self.dataplane.use_sizes(sizes.wan_mtu, sizes.mss_limit)

    def handle_unknown(self, link: PeerLink) -> None:
        self._probe.notice(link)

    def _renew(self, link: PeerLink) -> None:
        """The server does not answer under this session: begin another, and keep this one until it is up."""
        call = self._connected
        if call is None or call.link is not link or len(self._calls) > 1 or self.is_stopping:
            return
        self.log.info("session_unknown", endpoint=str(link.endpoint))
        self._call(call.candidate, monotonic())
        self._changed.set()
        self.rearm()

    def _take_over(self, successor: PeerLink, lend: Callable[[], None]) -> None:
        """A session of ours is up: end the one before, if any, whose place in the data plane it takes."""
        call = self._connected
        if call is not None and call.link is not successor:
            call.link.close("replaced", "the server had lost the session", notify=False)
        lend()

    def _make_room(self, endpoint: Endpoint) -> None:
        """One fixed port speaks with one session at a server; and there is a bound for all."""
        if self._connected is not None:
            return
        for call in list(self._calls.values()):
            if self._sockets.is_fixed and call.link.endpoint == endpoint:
                self._drop(call)
        knocking = [call for call in self._calls.values() if call is not self._speaker]
        if len(knocking) >= CALLS_MAX:
            self._drop(knocking[0])

    def _tend(self, now: float) -> float:
        """Knock again where nobody answered, and end what took too long; when next."""
        for call in list(self._calls.values()):
            if call.is_answered or call.next_deadline() > now:
                continue
            if now - call.began >= CALL_SECONDS:
                self.statistics.note_handshake("initial", "timeout", now - call.began)
                self._outage.note_timeout(f"timeout: {call.link.session.handshake_hint}")
                self._drop(call)
            elif call.knocked < KNOCKS:
                call.knocked += 1
                call.link.handle_path_change()
        waiting = (call.next_deadline() for call in self._calls.values() if not call.is_answered)
        return min(waiting, default=_NEVER)

    def _drop(self, call: Call) -> None:
        """End a call without a word; another one was better, or it took too long."""
        self._calls.pop(call.link.handle, None)
        if self._speaker is call:
            self._speaker = None
        call.link.close("replaced", "another call was answered", notify=False)


def _session_id() -> bytes:
    while not any(session_id := secrets.token_bytes(SESSION_ID_LENGTH)):
        pass
    return session_id
