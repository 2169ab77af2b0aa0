"""Asks a program of the operator whether a tls-crypt-v2 client key may be used, before TLS begins.

Source: docs/protocol/control.md#2-5; docs/decisions/0116. A process starts only for a client that has
returned its cookie under the very key that it brought, sealed by us: neither a forged address nor a captured
packet gets so far. What a thief with a genuine key can cause is bounded here.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from bridged.addresses import Endpoint
from bridged.endings import take_every_step
from bridged.errors import RemoteProtocolError
from bridged.protocol.keys.client_wrap_key import UnwrappedKey
from bridged.protocol.strangers.listener import NewSession
from bridged.runtime.server.admission import PACKETS_EACH
from bridged.runtime.server.auth_command import ask_metadata
from bridged.supervision import SUPERVISOR

COMMANDS_AT_ONCE: Final = 4
ASKED_MAX: Final = 64
"""Keys whose verdict is awaited."""
CLIENTS_EACH: Final = 16
"""Clients of one key that wait for its verdict; others repeat their packet."""
COMMAND_SECONDS: Final = 10.0
VERDICT_SECONDS: Final = 5.0
"""A verdict holds for this long: a key starts no more processes than that."""
VERDICTS_MAX: Final = 1024

ClientKey = tuple[Endpoint, bytes]


@dataclass(slots=True)
class _Asked:
    """A key whose verdict is awaited, and the packets of its clients until then, by message id."""

    clients: dict[ClientKey, dict[int | None, NewSession]] = field(default_factory=dict)
    task: asyncio.Task[None] | None = None


class KeyChecks:
    """The keys of one tunnel. `take` gets what was held up, `report` why the program could not be asked.

    Runs in the event loop. `now` in every call: monotonic seconds.
    """

    def __init__(
        self,
        command: tuple[str, ...],
        tunnel: str,
        take: Callable[[NewSession, Endpoint], None],
        report: Callable[[str], None],
        monotonic: Callable[[], float],
    ) -> None:
        self.command = command
        self._tunnel = tunnel
        self._take = take
        self._report = report
        self._reported = ""
        self._monotonic = monotonic
        self._turns = asyncio.Semaphore(COMMANDS_AT_ONCE)
        self._asked: dict[str, _Asked] = {}
        self._verdicts: OrderedDict[str, tuple[bool, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._asked)

    def close(self) -> None:
        """Ask no more; who waits repeats its packet."""
        asked = list(self._asked.values())
        self._asked.clear()
        take_every_step(one.task.cancel for one in asked if one.task is not None)

    def cookie_of(self, source: Endpoint, remote_session_id: bytes) -> bytes | None:
        """The cookie of this client, if it waits for a verdict."""
        for asked in self._asked.values():
            for made in asked.clients.get((source, remote_session_id), {}).values():
                return made.local_session_id
        return None

    def may_pass(self, key: UnwrappedKey, made: NewSession, source: Endpoint, now: float) -> bool:
        """Whether this client's packet may go on now. If not, it is held until the verdict.

        Raises:
            RemoteProtocolError: `wrap_key_refused`; `peer_limit`, too many wait.
        """
        if not self.command:
            return True
        is_right, until = self._verdicts.get(key.identifier, (False, now))
        if until > now:
            if not is_right:
                raise RemoteProtocolError("wrap_key_refused", f"the command refuses the key {key.identifier}")
            return True
        if key.metadata_type is None:
            raise RemoteProtocolError("wrap_key_refused", f"the key {key.identifier} has no metadata")
        asked = self._asked.get(key.identifier)
        if asked is None:
            if len(self._asked) >= ASKED_MAX:
                raise RemoteProtocolError("peer_limit", "too many keys are being checked")
            asked = self._asked[key.identifier] = _Asked()
            asked.task = SUPERVISOR.keep(
                "wrap_key_check", lambda: self._ask(key, key.metadata_type or 0), self._tunnel
            )
        client = (source, made.remote_session_id)
        if client not in asked.clients and len(asked.clients) >= CLIENTS_EACH:
            raise RemoteProtocolError("peer_limit", "too many clients wait for this key's verdict")
        packets = asked.clients.setdefault(client, {})
        if len(packets) < PACKETS_EACH:
            packets.setdefault(made.message_id, made)
        return False

    async def _ask(self, key: UnwrappedKey, kind: int) -> None:
        async with self._turns:
            answer = await ask_metadata(self.command, kind, key.metadata, COMMAND_SECONDS)
        if answer.is_failure and answer.reason != self._reported:
            self._report(answer.reason)
        self._reported = answer.reason if answer.is_failure else ""
        asked = self._asked.pop(key.identifier, None)
        if asked is None:
            return
        self._note(key.identifier, answer.is_right)
        for (source, _), packets in asked.clients.items():
            for made in packets.values():
                self._take(made, source)

    def _note(self, identifier: str, is_right: bool) -> None:
        self._verdicts.pop(identifier, None)
        while len(self._verdicts) >= VERDICTS_MAX:
            self._verdicts.popitem(last=False)
        self._verdicts[identifier] = is_right, self._monotonic() + VERDICT_SECONDS
