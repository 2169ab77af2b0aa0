"""Answers hard resets of strangers where they arrive, and sorts what else strangers send.

Source: bridged/dataplane/contract/verbs.py, `answer_resets`; bridged/protocol/strangers/listener.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from bridged.addresses import Endpoint
from bridged.dataplane.contract import ResetAnswers
from bridged.dataplane.portable.control.control_queue import ControlQueue, Sender
from bridged.errors import RemoteProtocolError
from bridged.protocol.packets.unknown_session import NOTICE_OCTETS, serialize_notice
from bridged.protocol.strangers.cookie import CookieJar
from bridged.protocol.strangers.listener import KeyOnlyOnce, Listener, ResetAnswer
from bridged.protocol.strangers.reset_limit import ResetLimit


class Answers:
    """Answers strangers through `send`, or queues what they sent."""

    def __init__(self, queue: ControlQueue, send: Callable[[bytes, Endpoint], None]) -> None:
        self._queue = queue
        self._send = send
        self._limit = ResetLimit()
        self._listener: Listener | None = None

    def apply(self, answers: ResetAnswers | None) -> None:
        """Answer with this wrap and these cookies from now on (None: answer nobody)."""
        if answers is None:
            self._listener = None
            return
        jar = CookieJar(answers.cookie_secret, answers.hand_window)
        self._listener = Listener(answers.wrap, jar, self._limit)

    def notify(self, packet: bytes, source: Endpoint, now: float) -> None:
        """A stranger's data packet cannot be opened: tell it that we do not know its session."""
        if self._listener is not None and len(packet) > NOTICE_OCTETS and self._queue.may_notify(source, now):
            self._send(serialize_notice(packet[0] & 7), source)

    def receive(self, datagram: bytes, source: Endpoint, now: float) -> str | None:
        """Answer or queue a control datagram of a stranger; returns the drop reason if it is refused."""
        if self._listener is None or self._queue.expects(source):
            return self._queue.put(datagram, source, now, Sender.STRANGER)
        try:
            made = self._listener.receive(datagram, source, now, time.time())
        except RemoteProtocolError as error:
            if error.code == "handshake_rate":
                return error.code
            sender = Sender.UNPROVEN if error.code == "cookie_mismatch" else Sender.USELESS
            return self._queue.put(datagram, source, now, sender, error.code)
        if isinstance(made, ResetAnswer):
            self._send(made.datagram, source)
            return None
        # A client that sends its wrapped key only once may go on, as if it had returned its cookie.
        sender = Sender.REMEMBERED if isinstance(made, KeyOnlyOnce) else Sender.PROVEN
        return self._queue.put(datagram, source, now, sender)
