"""What a link with a static key has received and sent, across sessions and restarts of the daemon.

Source: docs/protocol/data.md#2-4; docs/decisions/0115 and 0125. Its key never changes: without this, a
recorded packet would be taken again by each new session. Blocking, a few bytes.
"""

from __future__ import annotations

import hashlib
import secrets
from pathlib import Path
from typing import Final

import structlog

from bridged.files import write_atomic
from bridged.protocol.keys.static_key import StaticKey
from bridged.protocol.packets.static_packet import ORIGIN_LENGTH
from bridged.units import UnixSeconds

SAVE_SECONDS: Final = 10.0
"""How often the mark is written while packets come. After a crash, those of that time may be replayed."""
FILE_OCTETS_MAX: Final = 1024
_OLDER: Final = (
    "authentic packets have an older time than those before: the peer's clock was set back, or somebody "
    "repeats them; if its clock is right now, stop this end, remove {path}, and start again"
)
_UNREAD: Final = (
    "packets that somebody recorded before this start may be taken once more, until newer ones came; it is "
    "written again as soon as they do"
)
_TIMES: Final = 1 << 32
_MARKS: Final = 1 << 64


class ReplayMark:
    """`received`: time (upper 32 bits) and packet id of the newest packet of the peer. It only grows.

    `origin`: the secret by which this end knows its own packets, also those of earlier runs.
    The file of `path` (None: nothing is kept) is valid for this key alone.
    """

    def __init__(self, path: Path | None, key: StaticKey, name: str) -> None:
        self._path = path
        self._key_name = hashlib.sha256(b"bridged replay mark" + key.octets).hexdigest()[:32]
        self._log = structlog.get_logger("bridged.tunnel").bind(tunnel=name)
        self.received = 0
        self.origin = secrets.token_bytes(ORIGIN_LENGTH)
        self._sent_time = 0
        self._saved = (0, 0)
        self._is_failing = False
        self._too_old = 0
        self._told_at = 0
        self._load()

    def note(self, received: int) -> None:
        """A packet of this time and id was accepted."""
        self.received = max(self.received, received)

    def look(self, received: int, too_old: int) -> None:
        """Now and then: the newest packet of a peer, and how many older ones the data plane has dropped."""
        # Late packets are few among newer ones.
        if too_old - self._too_old > max(0, received - self.received):
            self.tell_older()
        self._too_old = too_old
        self.note(received)

    def tell_older(self) -> None:
        """Log that authentic packets come which are older than this mark; once for each mark."""
        if self._told_at != self.received:
            self._told_at = self.received
            self._log.warning("peer_packets_older", detail=_OLDER.format(path=self._path))

    def next_time(self, now: UnixSeconds) -> int:
        """The time of a new session's packets: later than that of all before, also if the clock was set back.

        It is in the file when this returns.
        """
        self._sent_time = min(max(int(now), self._sent_time + 1), _TIMES - 1)
        self.save()
        return self._sent_time

    def save(self, *, durable: bool = True) -> None:
        """Write the file if something changed. A failure is logged once. `durable`: see `write_atomic`."""
        state = self.received, self._sent_time
        if self._path is None or state == self._saved:
            return
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            text = f"{self._key_name} {self.received} {self._sent_time} {self.origin.hex()}\n"
            write_atomic(self._path, text.encode(), durable=durable)
        except OSError as error:
            if not self._is_failing:
                self._log.warning("replay_mark_not_kept", path=str(self._path), reason=error.strerror)
            self._is_failing = True
            return
        self._is_failing = False
        self._saved = state

    def _load(self) -> None:
        if self._path is None:
            return
        try:
            with self._path.open("rb") as stream:
                key_name, *numbers = stream.read(FILE_OCTETS_MAX).decode("ascii").split()
            received, sent_time = map(int, numbers[:2])
            # Files of earlier versions have none.
            origin = bytes.fromhex("".join(numbers[2:]))
        except (FileNotFoundError, NotADirectoryError):
            return
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "it is damaged"
            self._log.warning("replay_mark_unreadable", path=str(self._path), reason=reason, detail=_UNREAD)
            return
        if key_name == self._key_name and 0 <= received < _MARKS and 0 <= sent_time < _TIMES:
            self.received, self._sent_time = received, sent_time
            if len(origin) == ORIGIN_LENGTH:
                self.origin, self._saved = origin, (received, sent_time)


def mark_of(time: int, packet_id: int) -> int:
    """As `ReplayMark.received`."""
    return time << 32 | packet_id
