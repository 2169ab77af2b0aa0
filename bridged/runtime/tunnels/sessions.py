"""The sessions of one tunnel, and the one timer that serves them all.

Shared by the tunnel and its role. Asyncio; all methods run in the event loop.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
import time
from collections.abc import Callable
from dataclasses import replace

import structlog

from bridged.addresses import Endpoint
from bridged.dataplane.contract import DataPlane, PeerSnapshot
from bridged.errors import BridgedError
from bridged.protocol.packets.wrap import TlsCryptV2Keys, WrapChannel, WrapKeys, first_numbers
from bridged.protocol.session.session import Session
from bridged.protocol.session.settings import SessionSettings
from bridged.protocol.session.static_session import StaticSession
from bridged.protocol.session.tls_session import TlsEngine
from bridged.runtime.tunnels.clock import monotonic
from bridged.runtime.tunnels.link import ControlPath, News, PeerLink
from bridged.runtime.tunnels.link_table import LinkTable
from bridged.runtime.tunnels.replay_mark import SAVE_SECONDS, ReplayMark
from bridged.runtime.tunnels.tunnel_plan import TunnelPlan
from bridged.supervision import SUPERVISOR, Timer
from bridged.units import MonotonicSeconds, PeerHandle, UnixSeconds


def _replays_of(plan: TunnelPlan) -> ReplayMark | None:
    if not plan.has_static_key:
        return None
    assert plan.session.wrap_key is not None
    return ReplayMark(plan.replays, plan.session.wrap_key, plan.name)


class Sessions:
    """Opens sessions by the present `plan`, finds them in `links`, and calls them at their deadlines.

    `on_news` hears what becomes of each session; `now` is the clock. `is_stopping`: no more sessions begin.
    """

    def __init__(
        self,
        plan: TunnelPlan,
        dataplane: DataPlane,
        on_news: Callable[[PeerLink, News], None],
        now: Callable[[], MonotonicSeconds] = monotonic,
    ) -> None:
        self.plan = plan
        self.dataplane = dataplane
        self.links = LinkTable()
        self.replays = _replays_of(plan)
        """Of a static key; None: there is none."""
        self.now = now
        self.is_stopping = False
        self._on_news = on_news
        self._handles = itertools.count(1)
        self._newest_wrap = 0.0
        self._replay_timer: Timer | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = float("inf")
        self._on_timer = SUPERVISOR.guard("session_timer", self._handle_timer, plan.name)
        self._all_ended = asyncio.Event()
        self._log = structlog.get_logger("bridged.tunnel").bind(tunnel=plan.name)

    def open(
        self,
        endpoint: Endpoint,
        *,
        local_session_id: bytes,
        remote_session_id: bytes | None = None,
        next_packet_id: int | None = None,
        keys: WrapKeys | None = None,
        path: ControlPath | None = None,
    ) -> PeerLink:
        """Begin a session with the peer at `endpoint`. `path` None: the data plane carries it.

        `keys`: its wrap, where clients have their own; None: the plan's.
        """
        settings = self.plan.session
        wrap = keys or self.plan.wrap
        if keys is not None:
            # Old clients of a tls-crypt-v2 server share the plan's key, and say tls-auth in their options.
            own = keys.key if isinstance(keys, TlsCryptV2Keys) else settings.wrap_key
            settings = replace(settings, wrap_name=keys.name, wrap_key=own)
        if endpoint.transport == "tcp":
            # OpenVPN has no `fragment` there: a stream has no largest packet.
            settings = replace(settings, is_stream=True, fragment=0)
        if self.plan.has_static_key:
            session: Session = self._new_static(settings)
        else:
            session = Session(
                settings,
                self._make_engine,
                secrets.token_bytes,
                self._new_channel(wrap, endpoint, next_packet_id or wrap.first_packet_id),
                local_session_id,
                self.now(),
                remote_session_id=remote_session_id,
            )
        handle = PeerHandle(next(self._handles))
        link = PeerLink(session, handle, endpoint, self.dataplane, self, self.now, path)
        self.links.add(link)
        self.dataplane.expect(endpoint)
        return link

    def forget(self, link: PeerLink) -> None:
        """The session has ended. Harmless for one that is not known."""
        if link.handle in self.links:
            self.dataplane.stop_expecting(link.first_endpoint)
        self.links.discard(link)
        if not self.links:
            self._all_ended.set()

    async def wait_until_ended(self, seconds: float) -> bool:
        """Whether all sessions end within `seconds`."""
        if not self.links:
            return True
        self._all_ended.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._all_ended.wait()
        except TimeoutError:
            return False
        return True

    def watch_replays(self) -> None:
        """Keep the mark of a static key in its file from now on."""
        if self.replays is not None:
            self._replay_timer = SUPERVISOR.every(
                "replay_mark", SAVE_SECONDS, self._keep_replays, self.plan.name
            )

    def note_last(self, last: PeerSnapshot | None) -> None:
        """The last figures of a peer of the data plane."""
        if self.replays is not None and last is not None:
            self.replays.note(last.replay_mark)
            self.replays.save()

    def close(self) -> None:
        """Stop the timers."""
        if self._timer is not None:
            self._timer.cancel()
        if self._replay_timer is not None:
            self._replay_timer.cancel()
            self._replay_timer = None

    def _keep_replays(self) -> None:
        assert self.replays is not None
        for peer in self.dataplane.snapshot().peers:
            self.replays.look(peer.replay_mark, peer.counters.drops.get(("receive", "replay_too_old"), 0))
        self.replays.save(durable=False)

    def _new_channel(self, wrap: WrapKeys, endpoint: Endpoint, first_packet_id: int) -> WrapChannel:
        """With numbers that no wrap of ours had before, also after a step of the clock."""
        self._newest_wrap = max(time.time(), self._newest_wrap + 2e-6)
        if endpoint.transport == "tcp":
            # Each connection has a window of its own, and some want the first id there.
            return WrapChannel(wrap, int(self._newest_wrap), first_packet_id)
        return WrapChannel(wrap, *first_numbers(self._newest_wrap, first_packet_id))

    def _new_static(self, settings: SessionSettings) -> StaticSession:
        mark = self.replays
        assert mark is not None
        sent_time = mark.next_time(UnixSeconds(time.time()))
        numbers = sent_time, mark.received, mark.origin
        return StaticSession(settings, secrets.token_bytes, self.now(), *numbers)

    def _make_engine(self) -> TlsEngine:
        """From the plan of that moment: a renegotiation uses the certificates of the last reload."""
        return self.plan.make_engine()

    # --- LinkOwner --------------------------------------------------------------------------------

    def handle_named(self, link: PeerLink, name: str) -> None:
        self.links.rename(link, name)

    def handle_settled(self, link: PeerLink) -> None:
        self.links.schedule(link)

    def handle_news(self, link: PeerLink, news: News) -> None:
        self._on_news(link, news)

    # --- time -------------------------------------------------------------------------------------

    def rearm(self) -> None:
        """Set the timer to the earliest deadline of all sessions."""
        at = self.links.next_deadline()
        if at == self._timer_at and self._timer is not None:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._timer_at = at
        if at != float("inf"):
            self._timer = asyncio.get_running_loop().call_at(at, self._on_timer)

    def _handle_timer(self) -> None:
        self._timer = None
        self._timer_at = float("inf")
        for link in self.links.take_due(self.now()):
            try:
                link.handle_timeout()
            except Exception as error:
                # A bug. Without this end, the deadline would stay in the past and the timer would never rest.
                code = error.code if isinstance(error, BridgedError) else type(error).__name__
                self._log.error("session_failed", peer=link.name, code=code, detail=str(error))
                link.abort(str(error))
        self.rearm()
