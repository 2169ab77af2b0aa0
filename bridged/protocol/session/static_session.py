"""The session of a link with a static key: nothing is negotiated, its only data key is there from the start.

Source: docs/protocol/data.md#2-4.
Pure: callers pass `now` (monotonic seconds) and the Unix time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final

from bridged.errors import LocalProtocolError
from bridged.protocol.keys.key_derivation import static_data_key
from bridged.protocol.packets import messages
from bridged.protocol.packets.wrap import NoWrap, WrapChannel
from bridged.protocol.role import Role
from bridged.protocol.session.conversation_point_to_point import PointToPointClient
from bridged.protocol.session.core import SessionCore
from bridged.protocol.session.events import Established, InstallKey, UseKey
from bridged.protocol.session.farewell import Farewell
from bridged.protocol.session.key_slots import KeySlots
from bridged.protocol.session.renegotiation import Renegotiation
from bridged.protocol.session.session import Session
from bridged.protocol.session.settings import SessionSettings
from bridged.protocol.session.states import SessionState
from bridged.protocol.session.terms import Negotiated
from bridged.protocol.session.tls_session import TlsEngine, TlsSummary
from bridged.protocol.session.wire import SessionWire
from bridged.units import KeyId, UnixSeconds

STATIC_KEY: Final = "static-key"
"""Its `wrap_name`."""
PEER_NAME: Final = "peer"
"""The other end has no certificate that would name it."""
_NO_END: Final = UnixSeconds(253_402_300_799)
"""The year 9999: a static key never ends."""
_SESSION_ID: Final = b"static k"


def no_engine() -> TlsEngine:
    """There is no TLS."""
    raise LocalProtocolError("a static key knows no TLS")


class StaticSession(Session):
    """Established at once; one that calls by TCP as soon as its connection stands. Ends as other sessions do,
    with an OCC exit as its farewell. Control packets are none of its own and dropped.

    `unix_time`, `mark`, `origin`: see `static_data_key`.
    """

    def __init__(
        self,
        settings: SessionSettings,
        random_bytes: Callable[[int], bytes],
        now: float,
        unix_time: int,
        mark: int = 0,
        origin: bytes = b"",
    ) -> None:
        assert settings.wrap_key is not None
        self.drops: Counter[str] = Counter()
        core = SessionCore(settings, random_bytes, now)
        self._core = core
        self.wire = SessionWire(settings.role, WrapChannel(NoWrap(), 0), _SESSION_ID, None, lambda _: None)
        self.keys = KeySlots(core, self.wire, no_engine)
        self._renegotiation = Renegotiation(core, self.keys)
        self.conversation = _StaticConversation(core, self.keys, self.wire)
        self.conversation.terms = _terms(settings)
        self._farewell = Farewell(core, self.keys, self.conversation)
        self._has_heard_peer = True
        self._hastened_at = -settings.tls_timeout
        self._marks = unix_time, mark, origin
        if not (settings.is_stream and settings.role is Role.CLIENT):
            self.handle_connected(now)

    def handle_connected(self, now: float) -> None:
        """There is a path: from now on both ends may send."""
        core, terms = self._core, self.conversation.terms
        if core.state is not SessionState.HANDSHAKE or terms is None:
            return
        settings = core.settings
        assert settings.wrap_key is not None
        cipher, direction = settings.ciphers[0], settings.wrap_direction
        key = static_data_key(settings.wrap_key, direction, cipher, settings.digest, *self._marks)
        core.establish()
        core.emit(InstallKey(key))
        core.emit(UseKey(KeyId(0)))
        core.emit(Established(terms, core.elapsed(now)))

    def receive_datagram(self, datagram: bytes, now: float) -> bool:
        self.drops["bad_opcode"] += 1
        return False


class _StaticConversation(PointToPointClient):
    """It has nobody to talk to."""

    farewell: messages.Message = messages.Exit()


def _terms(settings: SessionSettings) -> Negotiated:
    return Negotiated(
        cipher=settings.ciphers[0],
        transmit_peer_id=None,
        ping=settings.ping,
        # An end that waits keeps its replay window for as long as it can; a connection has its own end.
        ping_restart=settings.ping_restart if settings.role is Role.CLIENT or settings.is_stream else 0,
        tun_mtu=settings.tun_mtu,
        key_derivation="static",
        is_epoch=False,
        exit_by_control=False,
        dynamic_wrap=False,
        tls=TlsSummary("none", "none", None, PEER_NAME, "", _NO_END),
        framing="none" if settings.framing == "auto" else settings.framing,
        fragment=settings.fragment,
        is_point_to_point=True,
    )
