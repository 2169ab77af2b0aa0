"""How a session ends: what is said last, and how long it stays for the answer.

Source: docs/protocol/control.md#6, docs/protocol/data.md#5-3.
Pure: callers pass `now` (monotonic seconds).
"""

from __future__ import annotations

from typing import Final

from bridged.errors import LocalProtocolError, TlsError
from bridged.protocol.packets.messages import Exit, Info, Message, Restart
from bridged.protocol.packets.occ import OCC_EXIT
from bridged.protocol.role import Role
from bridged.protocol.session.conversation import Conversation
from bridged.protocol.session.core import DRAIN_SECONDS, SessionCore
from bridged.protocol.session.events import SendPayload
from bridged.protocol.session.key_slots import KeySlots
from bridged.protocol.session.states import SessionInput, SessionState
from bridged.protocol.session.timers import SessionTimer

CLOSE_SECONDS: Final = 1.0
"""How long our own farewell waits for its acknowledgement."""


class Farewell:
    """Says goodbye, and ends the draining of a session.

    `was_acknowledged`: a dismissed peer acknowledged the message before its dismissal, so it was still there.
    """

    def __init__(self, core: SessionCore, keys: KeySlots, conversation: Conversation) -> None:
        self.was_acknowledged = False
        self._core = core
        self._keys = keys
        self._conversation = conversation
        self._last_message: Message | None = None

    def say(self, now: float, text: str | None = None, *, hands_over: bool = False) -> None:
        """Tell the peer that we leave; a server may say `text` in place of its usual message."""
        terms = self._conversation.terms
        message: Message | str = self._conversation.handover if hands_over else self._conversation.farewell
        if text is not None and self._core.settings.role is Role.SERVER:
            message = text
        if terms is not None and (terms.exit_by_control or not isinstance(message, Exit)):
            try:
                self._keys.say(message, now)
            except TlsError:
                return
        else:
            self._core.emit(SendPayload(OCC_EXIT))

    def close(
        self,
        reason: str,
        detail: str,
        now: float,
        *,
        notify: bool,
        text: str | None,
        hands_over: bool = False,
    ) -> None:
        """End the session from our side; a session that is already draining ends sooner."""
        core = self._core
        if core.state is SessionState.DRAINING:
            core.timers.set(SessionTimer.DRAIN, min(core.timers.at(SessionTimer.DRAIN), now + CLOSE_SECONDS))
            core.ends_once_acknowledged = True
            return
        is_told = notify and core.state is SessionState.ESTABLISHED
        if is_told:
            self.say(now, text, hands_over=hands_over)
        drain = CLOSE_SECONDS if is_told else 0.0
        core.leave(SessionInput.CLOSE_REQUESTED, reason, detail, now, drain=drain)

    def dismiss(self, detail: str, text: str, now: float) -> None:
        """End the session as `replaced`; a peer that acknowledges a first message gets a last one."""
        last = self._conversation.dismissal(text)
        if self._core.state is not SessionState.ESTABLISHED or last is None:
            self.close("replaced", detail, now, notify=False, text=None)
            return
        try:
            self._keys.say(Info(text), now)
        except (TlsError, LocalProtocolError):
            self.close("replaced", detail, now, notify=False, text=None)
            return
        self._last_message = last
        self._core.leave(SessionInput.CLOSE_REQUESTED, "replaced", detail, now)

    def soften_dismissal(self) -> None:
        """Replace the last message of `dismiss`, if it was not said yet, by one that lets the peer return."""
        if self._last_message is not None:
            self._last_message = Restart()

    def settle(self, now: float) -> None:
        """End the draining if nothing remains to be said or awaited."""
        if self._core.state is not SessionState.DRAINING:
            return
        is_quiet = all(key.is_quiet for key in self._keys.newest_first())
        if is_quiet and self._last_message is not None:
            is_quiet = not self._say_last(self._last_message, now)
        if self._core.timers.is_due(SessionTimer.DRAIN, now) or (
            self._core.ends_once_acknowledged and is_quiet
        ):
            self.finish()

    def finish(self) -> None:
        """End the draining at once."""
        self._core.finish()
        self._keys.close()

    def _say_last(self, message: Message, now: float) -> bool:
        self.was_acknowledged = True
        self._last_message = None
        self._core.timers.set(SessionTimer.DRAIN, now + DRAIN_SECONDS)
        try:
            self._keys.say(message, now)
        except (TlsError, LocalProtocolError):
            return False
        self._keys.transmit(now)
        return True
