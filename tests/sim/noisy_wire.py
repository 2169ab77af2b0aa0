"""Two ends of one tunnel on a virtual clock, with a wire that drops, repeats, reorders and corrupts.

A busy machine is simulated, too: an end may rest between any two things that its session wants done, while
its data plane and the other end go on.

The TLS engines and certificates are real; time, the wire and random bytes are the simulation's.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache, partial

from bridged.addresses import Endpoint
from bridged.errors import RemoteProtocolError
from bridged.pki.certificates import (
    Validity,
    build_authority,
    build_certificate,
    certificate_pem,
    generate_key,
    key_pem,
)
from bridged.protocol.keys.cipher import DEFAULT_CIPHERS
from bridged.protocol.keys.client_wrap_key import ServerWrapKey
from bridged.protocol.keys.static_key import StaticKey
from bridged.protocol.packets.wrap import (
    NoWrap,
    TlsAuthKeys,
    TlsCryptKeys,
    TlsCryptV2Keys,
    TlsCryptV2Server,
    WrapChannel,
    WrapKeys,
)
from bridged.protocol.role import Role
from bridged.protocol.session.events import (
    Authenticated,
    Established,
    InstallKey,
    RemoveKey,
    Renegotiated,
    SendDatagram,
    SessionDown,
    SessionEnded,
    SessionEvent,
    UseKey,
)
from bridged.protocol.session.key_state import PENDING_TLS_OCTETS, KeyPhase
from bridged.protocol.session.reliable import RECEIVE_WINDOW, SEND_WINDOW
from bridged.protocol.session.session import Session
from bridged.protocol.session.settings import SessionSettings
from bridged.protocol.session.states import SessionState
from bridged.protocol.session.tls_session import TlsEngineFactory
from bridged.protocol.strangers.cookie import CookieJar
from bridged.protocol.strangers.key_memory import KeyMemory
from bridged.protocol.strangers.listener import Listener, NewSession, ResetAnswer
from bridged.tls.context import TlsSettings, make_engine_factory

CLIENT_ENDPOINT = Endpoint("192.0.2.1", 40000)
UNIX_START = 1_800_000_000.0
SECRET = StaticKey(bytes(range(256)))
SERVER_KEY = ServerWrapKey(bytes(range(128)))
TWO_FIVE = "tls-crypt-v2 of 2.5"
"""A client that sends its key only once."""
UNDIRECTED = "tls-auth without direction"


@cache
def identities() -> dict[str, tuple[bytes, bytes, bytes]]:
    """CA, certificate and key of `server`, `client`, and `stranger` (another CA's client)."""
    now = datetime.now(UTC)
    validity = Validity(now - timedelta(days=1), now + timedelta(days=30))
    found: dict[str, tuple[bytes, bytes, bytes]] = {}
    ca_key = generate_key()
    ca = build_authority("simulated CA", ca_key, validity)
    other_key = generate_key()
    other = build_authority("another CA", other_key, validity)
    for name, usage, authority, authority_key in (
        ("server", "server", ca, ca_key),
        ("client", "client", ca, ca_key),
        ("second", "client", ca, ca_key),
        ("stranger", "client", other, other_key),
    ):
        key = generate_key()
        certificate = build_certificate(name, key.public_key(), usage, authority, authority_key, validity)
        found[name] = (certificate_pem(ca), certificate_pem(certificate), key_pem(key))
    return found


@cache
def engine_factory(name: str, role: str, version_max: str = "1.3") -> TlsEngineFactory:
    ca, certificate, key = identities()[name]
    usage = "client" if role == "server" else "server"
    return make_engine_factory(
        TlsSettings(role, certificate, key, ca_pem=ca, peer_usage=usage, version_max=version_max)
    )


def wrap_keys(mode: str, role: Role) -> WrapKeys:
    if mode == UNDIRECTED:
        return TlsAuthKeys(SECRET, None, "SHA256")
    if mode == "tls-auth":
        return TlsAuthKeys(SECRET, 0 if role is Role.SERVER else 1, "SHA256")
    if mode == "tls-crypt":
        return TlsCryptKeys(SECRET, role)
    if mode.startswith("tls-crypt-v2") and role is Role.SERVER:
        return TlsCryptV2Server(SERVER_KEY)
    if mode.startswith("tls-crypt-v2"):
        keys = TlsCryptV2Keys(SECRET, role, SERVER_KEY.wrap(SECRET, bytes(9)))
        if mode == TWO_FIVE:
            keys.first_packet_id = 1
        return keys
    return NoWrap()


def _wrap_of(own: SessionSettings) -> WrapKeys:
    is_undirected = own.wrap_name == "tls-auth" and own.wrap_direction is None
    return wrap_keys(UNDIRECTED if is_undirected else own.wrap_name, own.role)


def settings(role: Role, mode: str = "none", **changes: object) -> SessionSettings:
    direction = (0 if role is Role.SERVER else 1) if mode == "tls-auth" else None
    values: dict[str, object] = {
        "role": role,
        "ciphers": DEFAULT_CIPHERS,
        "wrap_name": "tls-auth" if mode == UNDIRECTED else mode,
        "wrap_key": None if mode == "none" else SECRET,
        "wrap_direction": direction,
        "digest": "SHA256" if mode in ("tls-auth", UNDIRECTED) else "SHA1",
        "ping": 10,
        "ping_restart": 60,
        "reneg_seconds": 0.0,
    }
    return SessionSettings(**(values | changes))  # type: ignore[arg-type]


@dataclass
class Noise:
    """Probabilities 0..1 for each packet; `delay` is the longest one-way time in seconds."""

    loss: float = 0.0
    repeat: float = 0.0
    corrupt: float = 0.0
    delay: float = 0.05


@dataclass
class End:
    """What one end has said so far."""

    session: Session | None = None
    events: list[SessionEvent] = field(default_factory=list)
    keys: dict[int, InstallKey] = field(default_factory=dict)
    sealing: int | None = None
    ended: bool = False
    undone: deque[SessionEvent] = field(default_factory=deque)
    unread: list[bytes] = field(default_factory=list)

    def of(self, kind: type) -> list:
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def established(self) -> bool:
        return bool(self.of(Established))

    @property
    def down(self) -> SessionDown | None:
        return next(iter(self.of(SessionDown)), None)

    def newest_usable(self) -> InstallKey | None:
        """What OpenVPN would seal with: the newest key whose negotiation is complete, at once."""
        key = self.session.keys.primary if self.session is not None else None
        if self.sealing is None or key is None:
            return None
        newest = key.key_id if key.phase is KeyPhase.GENERATED else self.sealing
        return self.keys.get(newest) or self.keys[self.sealing]

    def take(self, event: SessionEvent) -> None:
        assert not self.ended, f"{event} behind the end of the session"
        if self.down is not None:
            assert isinstance(event, RemoveKey | SendDatagram | SessionEnded), f"{event} behind SessionDown"
        if not isinstance(event, SendDatagram):
            self.events.append(event)
        match event:
            case InstallKey(key):
                self.keys[key.key_id] = event
            case UseKey(key_id):
                assert key_id in self.keys, "sealing with a key that was never installed"
                self.sealing = key_id
            case RemoveKey(key_id):
                assert key_id != self.sealing or self.down, "the key in use was removed"
                self.keys.pop(key_id, None)
            case SessionEnded():
                assert self.down is not None, "ended without having gone down"
                self.ended = True


class Simulation:
    """A client and a listening server; `run_until` moves the clock from event to event.

    `lag`: longest rest, in seconds, between two events of one session. `frame_seconds`: each end sends a
    frame so often, under the newest key that it may use (None: never); `unopened` lists those that met no key
    although their sender could rely on one.
    `admit` None leaves an authenticated client waiting. After each step every session must be waiting for
    something in the future: a deadline that stays in the past would be a busy loop.
    """

    def __init__(
        self,
        client: SessionSettings,
        server: SessionSettings,
        *,
        noise: Noise | None = None,
        seed: int = 1,
        client_name: str = "client",
        tls_max: str = "1.3",
        admit: bool | None = True,
        lag: float = 0.0,
        frame_seconds: float | None = None,
    ) -> None:
        self.now = 1000.0
        self.noise = noise or Noise()
        self.random = random.Random(seed)
        self.admit = admit
        self.refusal = ("auth_failed", "not today")
        self.client = End()
        self.server = End()
        self.datagrams = 0
        self.lag = lag
        self.frame_seconds = frame_seconds
        self.frames = 0
        self.unopened: list[tuple[float, str, int]] = []
        self.drops: dict[str, int] = {}
        self._server_settings = server
        self._server_factory = engine_factory("server", "server", tls_max)
        self._server_keys = _wrap_of(server)
        self._listener = Listener(self._server_keys, CookieJar(self.random.randbytes(32)), memory=KeyMemory())
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        keys = _wrap_of(client)
        channel = WrapChannel(keys, int(UNIX_START), keys.first_packet_id)
        self.client.session = Session(
            client,
            engine_factory(client_name, "client", tls_max),
            self.random.randbytes,
            channel,
            self.random.randbytes(8),
            self.now,
        )
        if frame_seconds is not None:
            self._later(frame_seconds, self._send_frames)
        self._drain()

    def run_until(self, seconds: float, *, stop=lambda _: False) -> None:
        """Go on for so many virtual seconds, or until `stop(self)`; bounded in steps."""
        end = self.now + seconds
        for _ in range(200_000):
            if stop(self):
                return
            due = self._next_time()
            if due is None or due > end:
                self.now = end
                return
            self.now = max(self.now, due)
            self._step()
        raise AssertionError("the simulation does not come to rest")

    def _next_time(self) -> float | None:
        times = [self._queue[0][0]] if self._queue else []
        sessions = [end.session for end in self._idle_ends() if end.session is not None]
        times += [deadline.at for session in sessions if (deadline := session.poll_timeout()) is not None]
        return min((time for time in times if time != float("inf")), default=None)

    def _step(self) -> None:
        while self._queue and self._queue[0][0] <= self.now:
            heapq.heappop(self._queue)[2]()
        for end in self._idle_ends():
            if end.session is not None:
                end.session.handle_timeout(self.now)
        self._drain()
        for end in self._idle_ends():
            if end.session is not None:
                assert_waits(end.session, self.now)

    def _idle_ends(self) -> list[End]:
        """Those that do not rest amid what their session wants done."""
        return [end for end in (self.client, self.server) if not end.undone]

    def _later(self, seconds: float, step: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (self.now + seconds, next(self._order), step))

    def _deliver(self, target: str, datagram: bytes) -> None:
        end = self.client if target == "client" else self.server
        if end.undone:
            end.unread.append(datagram)
            return
        if target == "client":
            self.client.session.receive_datagram(datagram, self.now)
        else:
            self._deliver_to_server(datagram)
        self._drain()

    def _deliver_to_server(self, datagram: bytes) -> None:
        session = self.server.session
        if session is not None and datagram[1:9] == session.remote_session_id:
            session.receive_datagram(datagram, self.now)
            return
        try:
            made = self._listener.receive(datagram, CLIENT_ENDPOINT, self.now, UNIX_START + self.now - 1000)
        except RemoteProtocolError as error:
            self.drops[error.code] = self.drops.get(error.code, 0) + 1
            return
        if isinstance(made, ResetAnswer):
            self._send("client", made.datagram)
            return
        assert isinstance(made, NewSession)
        keys = made.opened.keys or self._server_keys
        self.server.session = Session(
            self._server_settings,
            self._server_factory,
            self.random.randbytes,
            WrapChannel(keys, int(UNIX_START + self.now - 1000), next_packet_id=2),
            made.local_session_id,
            self.now,
            remote_session_id=made.remote_session_id,
        )
        self.server.session.receive_opened(made.opened, self.now)

    def _drain(self) -> None:
        for end, target in ((self.client, "server"), (self.server, "client")):
            while not end.undone and end.session is not None and (event := end.session.poll_event()):
                if self.lag:
                    end.undone.append(event)
                    rest = self.random.choice((0.0, self.random.uniform(0, self.lag)))
                    self._later(rest, partial(self._carry_on, end, target))
                else:
                    self._carry_out(end, target, event)

    def _carry_on(self, end: End, target: str) -> None:
        """The rest is over: do one thing, and go on if that was all."""
        self._carry_out(end, target, end.undone.popleft())
        self._drain()
        while end.unread and not end.undone:
            self._deliver("server" if target == "client" else "client", end.unread.pop(0))

    def _carry_out(self, end: End, target: str, event: SessionEvent) -> None:
        end.take(event)
        assert end.session is not None
        if isinstance(event, SendDatagram):
            self._send(target, event.datagram)
        elif isinstance(event, Authenticated) and self.admit is not None:
            if self.admit:
                end.session.admit(7, self.now)
            else:
                end.session.refuse(*self.refusal, self.now)

    def _send_frames(self) -> None:
        """One from each data plane; they pass the wire as control packets do."""
        for end, other, name in ((self.client, self.server, "client"), (self.server, self.client, "server")):
            # A server cannot know when its first options have arrived.
            may_rely = name == "client" or other.established
            sealed = end.newest_usable()
            if sealed is not None and end.down is None and may_rely:
                self._later(self._wire_time(), partial(self._open_frame, other, sealed, name))
        assert self.frame_seconds is not None
        self._later(self.frame_seconds, self._send_frames)

    def _open_frame(self, receiver: End, sealed: InstallKey, sender: str) -> None:
        self.frames += 1
        key = receiver.keys.get(sealed.key.key_id)
        if receiver.down is None and (key is None or key.key.receive_key != sealed.key.send_key):
            self.unopened.append((self.now, sender, sealed.key.key_id))

    def _wire_time(self) -> float:
        return self.random.uniform(0.001, self.noise.delay)

    def _send(self, target: str, datagram: bytes) -> None:
        self.datagrams += 1
        noise = self.noise
        copies = 2 if self.random.random() < noise.repeat else 1
        for _ in range(copies):
            if self.random.random() < noise.loss:
                continue
            octets = bytearray(datagram)
            if self.random.random() < noise.corrupt:
                octets[self.random.randrange(len(octets))] ^= 1 << self.random.randrange(8)
            self._later(self._wire_time(), partial(self._deliver, target, bytes(octets)))


def assert_waits(session: Session, now: float) -> None:
    deadline = session.poll_timeout()
    if deadline is None:
        assert session.state in (SessionState.CLOSED, SessionState.ESTABLISHED), (
            "only these can wait for nothing"
        )
    else:
        assert deadline.at > now, f"{deadline.reason} is due since {now - deadline.at} s"


def renegotiations(end: End) -> list[str]:
    return [event.outcome for event in end.of(Renegotiated)]


def assert_small(session: Session) -> None:
    """What a peer can make a session hold."""
    keys = list(session.keys.newest_first())
    assert len(keys) <= 2
    for key in keys:
        assert len(key.send._pending) <= SEND_WINDOW
        assert len(key.inbox._buffered) <= RECEIVE_WINDOW
        assert len(key._pending) <= PENDING_TLS_OCTETS


def assert_keys_agree(sim: Simulation) -> None:
    for key_id in sim.client.keys.keys() & sim.server.keys.keys():
        ours, theirs = sim.client.keys[key_id].key, sim.server.keys[key_id].key
        assert (ours.send_key, ours.receive_key) == (theirs.receive_key, theirs.send_key)


def assert_same_keys(sim: Simulation) -> None:
    """Each end seals with what the other opens with; epochs make their IVs themselves."""
    shared = sim.client.keys.keys() & sim.server.keys.keys()
    assert shared
    for key_id in shared:
        ours, theirs = sim.client.keys[key_id].key, sim.server.keys[key_id].key
        assert ours.cipher is theirs.cipher and ours.is_epoch is theirs.is_epoch
        assert ours.send_key == theirs.receive_key != ours.receive_key == theirs.send_key
        if ours.is_epoch:
            assert not (ours.send_iv or ours.receive_iv or theirs.send_iv or theirs.receive_iv)
        else:
            assert ours.send_iv == theirs.receive_iv != ours.receive_iv == theirs.send_iv
