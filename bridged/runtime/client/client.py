"""The client's role: calls its servers, one after the other and side by side, until one lets it in.

Source: docs/protocol/control.md#9; docs/decisions/0043.
Whom to call when is in `remote_order`, the live calls in `calls`, the reasons of failure in `outage`.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Final

from bridged.addresses import Endpoint, Remote
from bridged.endings import Ending, take_every_step
from bridged.errors import BridgedError, DataplaneError, RemoteProtocolError
from bridged.protocol.packets.packet import SESSION_ID_LENGTH
from bridged.protocol.session.events import Established, SessionDown, SessionEnded
from bridged.protocol.session.timers import NEVER
from bridged.runtime.client.backoff import Backoff
from bridged.runtime.client.call import Call
from bridged.runtime.client.call_socket import CallSocket
from bridged.runtime.client.call_sockets import CallPath, CallSockets
from bridged.runtime.client.call_stream import Through
from bridged.runtime.client.calls import Calls
from bridged.runtime.client.dial_pauses import DialPauses
from bridged.runtime.client.name_watch import NameWatch
from bridged.runtime.client.outage import Outage
from bridged.runtime.client.probe import Probe
from bridged.runtime.client.remembered import RememberedServer
from bridged.runtime.client.remote_order import Candidate, RemoteOrder
from bridged.runtime.client.route_loss import RouteLoss
from bridged.runtime.tunnels.link import LinkDown, News, PeerLink
from bridged.runtime.tunnels.link_table import newest
from bridged.runtime.tunnels.mss import TcpSizes
from bridged.runtime.tunnels.peer_records import PeerRecords
from bridged.runtime.tunnels.sessions import Sessions
from bridged.runtime.tunnels.tunnel_plan import TunnelPlan
from bridged.supervision import SUPERVISOR

WAKE_SECONDS: Final = 1.0
"""Shortest time between two rounds that news of the network begin."""
SHORTEST_WAIT_SECONDS: Final = 0.1


class ClientRole:
    """Calls the remotes in order, all addresses of one side by side; what worked last comes first.

    Each call has a socket of its own, and so another UDP port, unless `local` fixes one. The data plane gets
    the socket of the call that is let in. `sizes`: what TCP is fitted to, for servers that differ from the
    tunnel's settings.
    """

    name = "client"

    def __init__(
        self, sessions: Sessions, records: PeerRecords, sizes: Mapping[Remote, TcpSizes] | None = None
    ) -> None:
        plan = sessions.plan
        self._sessions = sessions
        self._records = records
        self._sizes = sizes or {}
        self._log = records.log
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._order = RemoteOrder(plan.remotes, random.shuffle if plan.shuffles_remotes else None)
        self._remembered = RememberedServer(plan.memory, plan.remotes)
        self._names = NameWatch(plan.remotes, self._note_found, self._note_not_found, plan.name)
        self._outage = Outage(sessions.now())
        self._calls = Calls(self._order, self._outage, self._note_unanswered)
        self._sockets = CallSockets(
            plan.local,
            sessions.dataplane,
            self._take_datagram,
            self._take_refusal,
            plan.name,
            plan.proxy,
            self._take_connection,
        )
        self._route_loss = RouteLoss(self._calls, self._order, lambda: sessions.plan.local, plan.name)
        self._probe = Probe(sessions.dataplane, self._renew, sessions.now, plan.name)
        self._backoff = Backoff()
        self._dials = DialPauses()
        self._login = plan.session.login
        self._latest: Endpoint | None = None
        self._woken_at = -NEVER
        self._wake_at = NEVER
        self._asking: Candidate | None = None
        """The last one that asked us to wait."""
        if not plan.shuffles_remotes and (best := self._remembered.load()) is not None:
            self._order.prefer(best)

    # --- life -------------------------------------------------------------------------------------

    def open(self) -> int:
        self._sockets.start()
        return 1

    def start(self) -> None:
        self._names.start()
        name = self._sessions.plan.name
        self._task = SUPERVISOR.keep("connect", self._connect_for_ever, name, endless=True)

    async def stop(self) -> None:
        await Ending(
            self._probe.close, self._route_loss.close, self._end_task, self._names.stop, self._drop_calls
        ).take()

    async def _end_task(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _drop_calls(self) -> None:
        others = [call for call in self._calls if call is not self._calls.connected]
        take_every_step(partial(self._calls.drop, call) for call in others)

    def hand_over(self) -> None:
        """The server hears that we come back; nothing else outlives us."""

    def close(self) -> None:
        self._sockets.close()

    def apply(self, plan: TunnelPlan) -> None:
        """Another password may let us in at once. Another list of remotes restarts the tunnel."""
        before, self._login = self._login, plan.session.login
        if self._login is before or (self._login is not None and self._login.succeed(before)):
            return
        self._backoff.start_again()
        self._wake()

    # --- for the outside --------------------------------------------------------------------------

    @property
    def state(self) -> str:
        if self._calls.connected is not None:
            return "connected"
        if self._calls:
            return "connecting"
        return "resolving" if self._order.is_resolving else "waiting"

    @property
    def remote(self) -> str | None:
        return str(self._latest) if self._latest is not None else None

    @property
    def admission(self) -> dict[str, int]:
        return {}

    @property
    def tcp_endpoints(self) -> tuple[Endpoint, ...]:
        return ()

    def handle_network_change(self) -> None:
        self._wake()
        if not self._sessions.is_stopping:
            self._route_loss.look_soon()

    def handle_clock_step(self) -> None:
        """A certificate that was not valid yet may be now: pauses begin from the shortest again."""
        self._backoff.start_again()
        self._dials.start_again()

    def _wake(self) -> None:
        """End every wait: something has changed that may let us through."""
        self._names.hurry()
        self._wake_at = min(self._wake_at, max(self._sessions.now(), self._woken_at + WAKE_SECONDS))
        self._changed.set()

    def _wake_up(self, now: float) -> None:
        self._woken_at = now
        self._wake_at = NEVER
        self._backoff.wake()
        self._dials.wake()
        self._calls.drop_dials(now)
        speaker = self._calls.speaker
        if speaker is None or speaker.waits_until() <= now:
            self._order.begin(now)

    # --- names ------------------------------------------------------------------------------------

    def _note_found(self, remote: Remote, found: list[Endpoint]) -> None:
        if not self._order.set_addresses(remote, found) or self._calls.connected is not None:
            return
        now = self._sessions.now()
        until = self._backoff.until
        if until > now:
            # The address before may have been wrong, also that of a server that asked us to wait.
            asking = self._asking
            is_gone = asking is not None and asking.remote == remote and asking.endpoint not in found
            (self._backoff.wake if is_gone else self._backoff.wake_own)()
            if self._backoff.until < until:
                self._order.begin(max(now, self._backoff.until))
        self._changed.set()

    def _note_not_found(self, remote: Remote, detail: str) -> None:
        text = f"cannot look up {remote.server.host}: {detail}"
        if self._records.last_error != text:
            self._log.warning("lookup_failed", host=remote.server.host, detail=detail)
        self._outage.note_nameless(text)
        self._records.last_error = self._outage.words(self._sessions.now())
        self._order.note_no_name(remote)
        self._changed.set()

    # --- what the network reports -----------------------------------------------------------------

    def receive_control(self, datagram: bytes, source: Endpoint) -> None:
        # The last session may still be acknowledging the server's farewell.
        link = newest(self._sessions.links.at(source))
        if link is None:
            raise RemoteProtocolError("cookie_mismatch", "not from a server that we called")
        if source.transport == "tcp":
            self._take(link, datagram)
        else:
            link.receive(datagram)

    def handle_stream_closed(self, endpoint: Endpoint) -> None:
        """Its session has ended, and with it the call."""

    def _take_datagram(self, through: CallSocket, datagram: bytes, source: Endpoint) -> None:
        ours = (link for link in self._sessions.links.at(source) if self._sockets.of(link.handle) is through)
        link = newest(ours)
        if link is None:
            self._records.statistics.control_drops["receive", "cookie_mismatch"] += 1
            return
        self._take(link, datagram)
        self._sessions.rearm()

    def _take(self, link: PeerLink, datagram: bytes) -> None:
        drops = link.session.drops.total()
        try:
            link.receive(datagram)
        except BridgedError as error:
            self._log.error(
                "session_failed", endpoint=str(link.endpoint), code=error.code, detail=error.message
            )
            link.abort(error.message)
        call = self._calls.get(link.handle)
        is_good = link.session.drops.total() == drops
        if call is not None and is_good and self._calls.note_heard(call, self._sessions.now()):
            self._changed.set()

    def _take_refusal(self, through: Through, endpoint: Endpoint, words: str) -> None:
        """Nothing arrives there, the network says. ICMP can be forged, so it ends no call by UDP."""
        for call in self._calls:
            if (
                call.socket is through
                and call.link.endpoint == endpoint
                and call is not self._calls.connected
            ):
                call.is_refused = True
                self._order.refuse(endpoint)
                if self._outage.note_refused(endpoint, words):
                    self._log.info("remote_unreachable", endpoint=str(endpoint), reason=words)
                if endpoint.transport == "tcp":
                    self._dials.note_failure(endpoint, self._sessions.now())
                    self._calls.drop(call)
                self._changed.set()

    def _take_connection(self, through: Through) -> None:
        """The data plane has it: a session that needs no handshake begins."""
        for call in self._calls:
            if call.socket is through:
                call.link.handle_connected()
                if call is self._calls.connected:
                    # The server knows its peer by a first packet, and the LAN may be silent.
                    call.link.ask()
                self._sessions.rearm()
                self._changed.set()

    # --- news of the sessions ---------------------------------------------------------------------

    def handle_news(self, link: PeerLink, news: News) -> None:
        match news:
            case Established():
                self._handle_established(link)
            case LinkDown():
                self._note_silence(link, news)
                self._handle_down(link, news.event)
            case SessionEnded():
                self._sockets.release(link.handle)

    def _handle_established(self, link: PeerLink) -> None:
        call = self._calls.get(link.handle)
        if call is None:
            return
        self._backoff.note_connected()
        if not self._sessions.plan.has_static_key:
            self._dials.note_connected(call.candidate.endpoint)
        self._order.prefer(call.candidate)
        self._remembered.save(call.candidate)
        self._names.want(False)
        self._calls.connect(call)
        self._changed.set()

    def _note_silence(self, link: PeerLink, news: LinkDown) -> None:
        """With a static key a connection alone says nothing: was the server ever heard?"""
        if not self._sessions.plan.has_static_key or not news.event.was_established:
            return
        if news.last is not None and news.last.counters.wire_datagrams["receive"]:
            self._dials.note_connected(link.endpoint)
        else:
            self._dials.note_failure(link.endpoint, self._sessions.now())

    def _handle_down(self, link: PeerLink, event: SessionDown) -> None:
        call = self._calls.forget(link.handle)
        # A call that was dropped, or one that another connection has replaced: no failure.
        if call is None or self._calls.connected is not None:
            return
        now = self._sessions.now()
        if event.retry_after > 0.0:
            self._asking = call.candidate
        if event.was_established:
            self._outage.begin(now)
            self._backoff.end_connection(
                now,
                event.reason,
                event.retry_after,
                is_final=event.is_final,
                is_handed_over=event.is_handed_over,
            )
            self._order.begin(self._backoff.until)
            if event.advance == "remote":
                self._order.skip(call.candidate.remote)
            elif event.advance == "addr":
                self._order.pass_over(call.candidate.endpoint)
        elif event.reason not in ("shutdown", "replaced"):
            self._note_failure(call, event, now)
        if event.reason not in ("shutdown", "replaced", "timeout"):
            self._outage.note_reason(f"{event.reason}: {event.detail}")
        self._records.last_error = self._outage.words(now)
        self._changed.set()

    def _note_failure(self, call: Call, event: SessionDown, now: float) -> None:
        self._order.refuse(call.candidate.endpoint)
        if event.reason == "transport_closed":
            self._dials.note_failure(call.candidate.endpoint, now)
            self._outage.note_refused(call.candidate.endpoint, event.detail)
            return
        if event.reason == "timeout":
            self._outage.note_timeout(f"timeout: {event.detail}")
            return
        holds = event.retry_after > 0.0
        self._backoff.note_refusal(now, event.retry_after, is_final=event.is_final, holds=holds)
        if event.advance == "remote":
            self._order.skip(call.candidate.remote)
        if event.advance == "no":
            self._backoff.end_round(now)
            self._order.begin(self._backoff.until)
            self._order.prefer(call.candidate)
        elif holds:
            self._order.resume(self._backoff.until)

    def _note_unanswered(self, call: Call, seconds: float) -> None:
        self._dials.note_failure(call.candidate.endpoint, self._sessions.now())
        self._records.statistics.note_handshake("initial", "timeout", seconds)

    def handle_floated(self, link: PeerLink, previous: Endpoint) -> None:
        """A server that moves is found by its address again: nothing depends on the old one."""

    def handle_unknown(self, link: PeerLink) -> None:
        if link.endpoint.transport == "udp":
            # Who loses a session over TCP closes the connection.
            self._probe.notice(link)

    # --- calls ------------------------------------------------------------------------------------

    async def _connect_for_ever(self) -> None:
        self._order.begin(self._sessions.now())
        while True:
            self._changed.clear()
            deadline = self._step(self._sessions.now())
            self._sessions.rearm()
            seconds = None if deadline == NEVER else max(0.0, deadline - self._sessions.now())
            # Not `wait_for`: before Python 3.12 it can lose a cancellation.
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._changed.wait()

    def _step(self, now: float) -> float:
        """Do what is due. Returns when to come back at the latest."""
        if self._calls.connected is not None:
            self._wake_at = NEVER
            return self._calls.tend(now)
        self._names.want(True)
        if now >= self._wake_at:
            self._wake_up(now)
        deadlines = [self._calls.tend(now), self._wake_at]
        speaker = self._calls.speaker
        if speaker is not None and speaker.waits_until() > now:
            deadlines.append(speaker.waits_until())
        elif self._backoff.until > now:
            deadlines.append(self._backoff.until)
        else:
            if speaker is not None:
                self._order.refuse(speaker.candidate.endpoint)
            self._call_those_due(now)
            deadlines.append(max(self._order.deadline(now), self._backoff.until))
        if (fields := self._outage.report(now)) is not None:
            self._log.warning("no_answer", **fields)
        self._records.last_error = self._outage.words(now) or self._records.last_error
        deadlines.append(max(now + SHORTEST_WAIT_SECONDS, self._outage.next_report))
        return min(deadlines)

    def _call_those_due(self, now: float) -> None:
        if self._order.is_over(now):
            self._backoff.end_round(now)
            self._order.begin(self._backoff.until)
        while self._backoff.until <= now and (candidate := self._order.next(now)) is not None:
            self._call(candidate, now)

    def _call(self, candidate: Candidate, now: float) -> None:
        endpoint = candidate.endpoint
        speaker = self._calls.speaker if self._calls.connected is None else None
        if speaker is not None and speaker.candidate.endpoint == endpoint and not speaker.is_given_up(now):
            self._order.refuse(endpoint)
            return
        if self._calls.waits_for_connection(endpoint):
            return
        if self._dials.until(endpoint) > now:
            self._order.refuse(endpoint)
            return
        try:
            through = self._sockets.open_for(endpoint)
        except DataplaneError as error:
            self._order.refuse(endpoint)
            self._outage.note_refused(endpoint, error.message)
            return
        # A server of a link has room for one session that is not through: each reset replaces it.
        is_link = self._sessions.plan.session.is_point_to_point
        self._calls.make_room(endpoint, takes_one=is_link or self._sockets.is_fixed(endpoint))
        if endpoint.transport == "tcp":
            self._end_farewells(endpoint)
        path = CallPath(self._sockets, through, self._sizes.get(candidate.remote), self._end_predecessor)
        try:
            link = self._sessions.open(endpoint, local_session_id=_session_id(), path=path)
        except BaseException:
            # Nobody else would close it, and each new attempt would leave one more behind.
            self._sockets.discard(through)
            raise
        self._sockets.register(link, through)
        self._calls.add(Call(candidate, link, through, now, self._calls.stalls_at(endpoint)))
        self._latest = endpoint
        if self._outage.note_called(endpoint, now):
            self._log.info("connecting", endpoint=str(endpoint))
        link.pump()

    def _end_farewells(self, endpoint: Endpoint) -> None:
        """End the sessions there that only wait for an acknowledgement.

        Connections are known by their endpoint: the end of an old one would count for the next one.
        """
        for link in self._sessions.links.at(endpoint):
            link.session.end_now()
            link.pump()

    def _end_predecessor(self, successor: PeerLink) -> None:
        """A session is up: end the one before it, whose place in the data plane it takes."""
        call = self._calls.connected
        if call is not None and call.link is not successor:
            call.link.close("replaced", "the server had lost the session", notify=False)

    def _renew(self, link: PeerLink) -> None:
        """The server does not answer under this session: begin another, and keep this one until then."""
        call = self._calls.connected
        if call is None or call.link is not link or len(self._calls) > 1 or self._sessions.is_stopping:
            return
        self._log.info("session_unknown", endpoint=str(link.endpoint))
        self._call(call.candidate, self._sessions.now())
        self._changed.set()
        self._sessions.rearm()


def _session_id() -> bytes:
    """Random, and never all zeros, which means that there is none."""
    while not any(session_id := secrets.token_bytes(SESSION_ID_LENGTH)):
        pass
    return session_id
