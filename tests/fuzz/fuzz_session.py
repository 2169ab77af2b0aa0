"""Fuzz target: a client session against a listener and its session, driven by a script of bytes.

The first byte chooses the wrap; then steps: one byte of action, one of argument, and for most actions
one of length and that many bytes. Time, randomness and the TLS engine repeat themselves exactly.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field
from functools import partial

from bridged.addresses import Endpoint
from bridged.errors import BridgedError, RemoteProtocolError
from bridged.protocol.keys.cipher import DEFAULT_CIPHERS
from bridged.protocol.keys.static_key import StaticKey
from bridged.protocol.packets.packet import ControlBody, ControlHeader, Opcode, serialize_body
from bridged.protocol.packets.wrap import NoWrap, TlsAuthKeys, TlsCryptKeys, WrapChannel, WrapKeys
from bridged.protocol.role import Role
from bridged.protocol.session.events import (
    Authenticated,
    Established,
    InstallKey,
    RemoveKey,
    SendDatagram,
    SessionDown,
    SessionEnded,
    UseKey,
)
from bridged.protocol.session.key_state import PENDING_TLS_OCTETS
from bridged.protocol.session.reliable import RECEIVE_WINDOW, SEND_WINDOW
from bridged.protocol.session.session import Session
from bridged.protocol.session.settings import SessionSettings
from bridged.protocol.session.states import SessionState
from bridged.protocol.strangers.cookie import CookieJar
from bridged.protocol.strangers.listener import Listener, NewSession, ResetAnswer
from bridged.units import KeyId
from tests.fuzz.toy_tls import ToyEngine

KEY = StaticKey(bytes(range(256)))
HOME = Endpoint("192.0.2.1", 1194)
MODES = ("none", "tls-auth", "tls-crypt")
STEPS_MAX = 200
OPCODES = tuple(opcode for opcode in Opcode if opcode.is_control)


def _keys(mode: str, role: Role) -> WrapKeys:
    if mode == "tls-auth":
        return TlsAuthKeys(KEY, 0 if role is Role.SERVER else 1)
    return TlsCryptKeys(KEY, role) if mode == "tls-crypt" else NoWrap()


def _settings(role: Role, mode: str, *, use_exporter: bool) -> SessionSettings:
    return SessionSettings(
        role=role,
        ciphers=DEFAULT_CIPHERS,
        wrap_name=mode,
        wrap_key=None if mode == "none" else KEY,
        use_exporter=use_exporter,
        reneg_seconds=120.0,
        tran_window=300.0,
        ping=10,
        ping_restart=60,
    )


@dataclass
class _End:
    session: Session | None = None
    outbox: deque[bytes] = field(default_factory=lambda: deque(maxlen=64))
    keys: set[int] = field(default_factory=set)
    sealing: int | None = None
    was_up: bool = False
    is_down: bool = False
    is_ended: bool = False


class _Pair:
    """Both ends and the checks that hold after every step."""

    def __init__(self, mode: str, *, use_exporter: bool) -> None:
        self.now = 1000.0
        self.mode = mode
        self.random = random.Random(1)
        self.server_settings = _settings(Role.SERVER, mode, use_exporter=use_exporter)
        self.listener = Listener(_keys(mode, Role.SERVER), CookieJar(bytes(32)))
        self.client = _End(
            Session(
                _settings(Role.CLIENT, mode, use_exporter=use_exporter),
                partial(ToyEngine, is_client=True),
                self.random.randbytes,
                WrapChannel(_keys(mode, Role.CLIENT), 1),
                b"client__",
                self.now,
            )
        )
        self.server = _End()
        self.collect()

    def to_client(self, datagram: bytes) -> None:
        assert self.client.session is not None
        self.client.session.receive_datagram(datagram, self.now)
        self.collect()

    def to_server(self, datagram: bytes) -> None:
        session = self.server.session
        if session is not None and datagram[1:9] == session.remote_session_id:
            session.receive_datagram(datagram, self.now)
        else:
            self.to_listener(datagram)
        self.collect()

    def to_listener(self, datagram: bytes) -> None:
        try:
            made = self.listener.receive(datagram, HOME, self.now, self.now)
        except RemoteProtocolError:
            return
        if isinstance(made, ResetAnswer):
            self.server.outbox.append(made.datagram)
        elif self.server.session is None or self.server.is_ended:
            assert isinstance(made, NewSession)
            self.server = _End(outbox=self.server.outbox)
            self.server.session = Session(
                self.server_settings,
                partial(ToyEngine, is_client=False),
                self.random.randbytes,
                WrapChannel(_keys(self.mode, Role.SERVER), int(self.now), next_packet_id=2),
                made.local_session_id,
                self.now,
                remote_session_id=made.remote_session_id,
            )
            self.server.session.receive_opened(made.opened, self.now)

    def advance(self, seconds: float) -> None:
        self.now += seconds
        for end in self.ends():
            assert end.session is not None
            end.session.handle_timeout(self.now)
        self.collect()

    def ends(self) -> list[_End]:
        return [end for end in (self.client, self.server) if end.session is not None]

    def collect(self) -> None:
        for end in self.ends():
            self._take_events(end)
        for end in self.ends():
            self._check(end)

    def _take_events(self, end: _End) -> None:
        session = end.session
        assert session is not None
        while (event := session.poll_event()) is not None:
            assert not end.is_ended
            assert not end.is_down or isinstance(event, RemoveKey | SendDatagram | SessionEnded)
            match event:
                case SendDatagram(datagram):
                    end.outbox.append(datagram)
                case Authenticated():
                    session.admit(5, self.now)
                case InstallKey(key):
                    end.keys.add(key.key_id)
                case UseKey(key_id):
                    assert key_id in end.keys
                    end.sealing = key_id
                case RemoveKey(key_id):
                    assert end.is_down or key_id != end.sealing
                    end.keys.discard(key_id)
                case Established():
                    assert not end.was_up
                    end.was_up = True
                case SessionDown():
                    assert event.was_established == end.was_up
                    end.is_down = True
                case SessionEnded():
                    assert end.is_down
                    end.is_ended = True

    def _check(self, end: _End) -> None:
        session = end.session
        assert session is not None
        keys = list(session.keys.newest_first())
        assert len(keys) <= 2 and len({key.key_id for key in keys}) == len(keys)
        for key in keys:
            assert len(key.send._pending) <= SEND_WINDOW
            assert len(key.inbox._buffered) <= RECEIVE_WINDOW
            assert len(key._pending) <= PENDING_TLS_OCTETS
        deadline = session.poll_timeout()
        assert (deadline is None) == (session.state is SessionState.CLOSED) == end.is_ended
        if deadline is not None and deadline.at <= self.now:
            session.handle_timeout(self.now)
            self._take_events(end)
            deadline = session.poll_timeout()
            assert deadline is None or deadline.at > self.now, deadline


class _Script:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    @property
    def is_over(self) -> bool:
        return self._position >= len(self._data)

    def octet(self) -> int:
        value = self._data[self._position] if not self.is_over else 0
        self._position += 1
        return value

    def text(self) -> bytes:
        length = self.octet()
        text = self._data[self._position : self._position + length]
        self._position += length
        return text


def _craft(session: Session, peer: Session, argument: int, text: bytes) -> bytes:
    """A packet with good ids and good wrap, as a peer with all keys can make it."""
    opcode = OPCODES[argument % len(OPCODES)]
    acks = tuple(text[1 : 1 + (text[0] % 9 if text else 0)])
    message_id = (text[9] if len(text) > 9 else 0) if opcode.has_message_id else None
    payload = text[10:] if opcode.has_message_id else b""
    body = ControlBody(acks, session.local_session_id if acks else None, message_id, payload)
    key_id = KeyId(argument >> 5)
    header = ControlHeader(opcode, key_id, peer.local_session_id)
    return peer.wire._channel(key_id).wrap(header, serialize_body(body))


def _mutate(datagram: bytes, text: bytes) -> bytes:
    octets = bytearray(datagram)
    for position, bits in zip(text[::2], text[1::2], strict=False):
        octets[position % len(octets)] ^= bits
    return bytes(octets)


def _step(pair: _Pair, script: _Script) -> None:
    action = script.octet() % 10
    argument = script.octet()
    end, receive = (pair.server, pair.to_server) if argument & 1 else (pair.client, pair.to_client)
    waiting = (pair.client if argument & 1 else pair.server).outbox
    if action == 0:
        receive(script.text())
    elif action in (1, 2):
        for _ in range(min(len(waiting), 1 + (argument >> 1) % 16)):
            receive(waiting.popleft())
    elif action in (3, 4):
        text = script.text() if action == 3 else b""
        if waiting:
            receive(_mutate(waiting[argument % len(waiting)], text)) if text else waiting.popleft()
    elif action in (5, 6):
        pair.advance(argument / 8 if action == 5 else argument)
    elif action == 7:
        text = script.text()
        peer = (pair.client if argument & 1 else pair.server).session
        if end.session is not None and peer is not None:
            receive(_craft(end.session, peer, argument, text))
    elif action == 8:
        _speak(pair, end, script.text())
    else:
        _command(pair, end, argument)
    pair.collect()


def _speak(pair: _Pair, end: _End, text: bytes) -> None:
    """The peer says something inside TLS that it should not."""
    if end.session is None:
        return
    key = next((key for key in end.session.keys.newest_first() if key.engine.is_established), None)
    if key is not None and not end.is_down:
        key.write(text + b"\0", pair.now)
        end.session.handle_timeout(pair.now)


def _command(pair: _Pair, end: _End, argument: int) -> None:
    if end.session is None:
        return
    match argument >> 5:
        case 0 | 1 | 2:
            end.session.request_renegotiation("manual", pair.now)
        case 3 | 4:
            end.session.handle_path_change(pair.now)
        case 5:
            end.session.handle_occ_exit(pair.now)
        case _:
            end.session.close("shutdown", "fuzz", pair.now, notify=bool(argument & 2))


def one_input(data: bytes) -> None:
    script = _Script(data)
    first = script.octet()
    pair = _Pair(MODES[first % 3], use_exporter=not first & 0x80)
    for _ in range(STEPS_MAX):
        if script.is_over:
            break
        try:
            _step(pair, script)
        except BridgedError as error:
            raise AssertionError(f"{type(error).__name__} {error.code}: {error}") from error
    for _ in range(40):
        pair.advance(15.0)
