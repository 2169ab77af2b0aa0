"""Breaks loops: two tunnels of one bridge that reach each other would send a frame round forever.

While a bridge has several tunnels, each adapter sends a marker to its peers now and then. A marker that
arrives at another adapter has gone round. The later one of the two is then blocked in the kernel's bridge, as
spanning tree would do it. Markers pass a blocked port, which shows when the loop has ended.

Source: packet(7) (PACKET_IGNORE_OUTGOING), bridge(8) (`link set … state`), IEEE 802.1D-2004, 7.4.
Asyncio. A bridge with one tunnel costs nothing.
"""

from __future__ import annotations

import asyncio
import errno
import secrets
import socket
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import structlog

from bridged.endings import take_every_step
from bridged.errors import NetlinkError
from bridged.netlink import set_port_blocked
from bridged.supervision import SUPERVISOR, Timer

INTERVAL_SECONDS: Final = 2.0
QUIET_ROUNDS: Final = 3
"""Rounds without a marker after which an adapter is unblocked."""
ETHERTYPE: Final = 0x88B5
"""IEEE 802, local experimental."""
MAGIC: Final = b"bridged loop marker\0"
TOKEN_OCTETS: Final = 16
TOKENS_KEPT: Final = 4
READS_MAX: Final = 64
NO_PORT: Final = frozenset({errno.ENODEV, errno.EINVAL, errno.EOPNOTSUPP})
"""The link is gone, or in no bridge: there is no block, and no loop."""
_BROADCAST: Final = b"\xff" * 6
_FRAME_OCTETS_MIN: Final = 60
_SO_ATTACH_FILTER: Final = 26
_SOL_PACKET: Final = 263
_PACKET_IGNORE_OUTGOING: Final = 23
_ETH_P_ALL: Final = 3
_RECEIVE_BUFFER_OCTETS: Final = 16_384
"""Small: a storm brings many copies, and one is enough."""


@dataclass(slots=True)
class _Adapter:
    bridge: str
    place: int
    """Of two adapters in a loop, the one with the higher place is blocked."""
    socket: socket.socket
    tokens: list[bytes] = field(default_factory=list)
    is_blocked: bool = False
    is_sure: bool = False
    quiet: int = 0
    failure: str = ""
    warning: str = ""


class LoopGuard:
    """Guards the adapters of `apply` until `stop`. `warnings`: `tunnel_loop` while an adapter is blocked."""

    def __init__(self) -> None:
        self.warnings: dict[str, str] = {}
        self._adapters: dict[str, _Adapter] = {}
        self._wanted: dict[str, tuple[str, int]] = {}
        self._timer: Timer | None = None
        self._log = structlog.get_logger("bridged.loop")

    def apply(self, taps: Mapping[str, Sequence[str]]) -> None:
        """Guard these from now on: bridge -> the adapters of its tunnels, the most important first."""
        wanted = {
            tap: (bridge, place)
            for bridge, names in taps.items()
            if len(names) > 1
            for place, tap in enumerate(names)
        }
        for name, adapter in list(self._adapters.items()):
            bridge, adapter.place = wanted.get(name, ("", 0))
            # A block that another place does not need ends by itself; without it a loop would be open.
            if bridge != adapter.bridge:
                self._drop(name)
        self._wanted = wanted
        if wanted and self._timer is None:
            self._timer = SUPERVISOR.every("loop_guard", INTERVAL_SECONDS, self._round)
        elif not wanted and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def stop(self) -> None:
        """Unblock all: call it when the tunnels have ended. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        take_every_step([partial(self._drop, name) for name in self._adapters])

    def _round(self) -> None:
        """Listen at new adapters, unblock those without markers, send the next markers."""
        for name, (bridge, place) in self._wanted.items():
            known = self._adapters.get(name)
            if known is not None and not _is_alive(known.socket, name):
                self._drop(name)
                known = None
            if known is None:
                self._listen(name, bridge, place)
        for name, adapter in list(self._adapters.items()):
            adapter.quiet += 1
            adapter.is_sure = False
            if adapter.is_blocked and adapter.quiet > QUIET_ROUNDS:
                self._set_blocked(name, adapter, False)
            self._send(adapter)

    def _listen(self, name: str, bridge: str, place: int) -> None:
        try:
            listener = _open(name)
        except OSError:
            return  # the adapter is missing; the next round looks again
        self._adapters[name] = _Adapter(bridge, place, listener)
        read = SUPERVISOR.guard("loop_guard", lambda: self._read(name), name)
        asyncio.get_running_loop().add_reader(listener.fileno(), read)

    def _send(self, adapter: _Adapter) -> None:
        token = secrets.token_bytes(TOKEN_OCTETS)
        adapter.tokens = [*adapter.tokens, token][-TOKENS_KEPT:]
        source = adapter.socket.getsockname()[4]
        frame = _BROADCAST + source + struct.pack("!H", ETHERTYPE) + MAGIC + token
        try:
            adapter.socket.send(frame.ljust(_FRAME_OCTETS_MIN, b"\0"))
        except OSError:
            pass  # the adapter is down or its queue full; the next round sends again

    def _read(self, name: str) -> None:
        adapter = self._adapters.get(name)
        if adapter is None:
            return
        for _ in range(READS_MAX):
            try:
                frame = adapter.socket.recv(256)
            except (BlockingIOError, OSError):
                return
            place = 14 + len(MAGIC)
            token = frame[place : place + TOKEN_OCTETS]
            if frame[14:place] == MAGIC and len(token) == TOKEN_OCTETS:
                self._heard(name, adapter, token)

    def _heard(self, name: str, adapter: _Adapter, token: bytes) -> None:
        for other_name, other in self._adapters.items():
            # A marker that returns to its own adapter is a reflection at the far site, not a loop.
            if other is adapter or other.bridge != adapter.bridge or token not in other.tokens:
                continue
            later = name if adapter.place >= other.place else other_name
            blocked = self._adapters[later]
            blocked.quiet = 0
            # Once a round, even if already blocked: a port that went down has lost the block.
            if not blocked.is_sure:
                blocked.is_sure = True
                self._set_blocked(later, blocked, True, other_name if later == name else name)
            return

    def _set_blocked(self, name: str, adapter: _Adapter, is_blocked: bool, other: str = "") -> None:
        try:
            set_port_blocked(name, is_blocked)
        except NetlinkError as error:
            if error.number in NO_PORT:
                return
            if str(error) != adapter.failure:
                adapter.failure = str(error)
                self._log.warning("loop_guard_failed", tap=name, detail=adapter.failure)
            return
        was_blocked, adapter.is_blocked = adapter.is_blocked, is_blocked
        if is_blocked and was_blocked:
            return
        if is_blocked:
            text = (
                f"{other} and {name} of bridge {adapter.bridge} form a loop: frames sent through one return "
                f"through the other. {name} is blocked until the loop ends. Remove one of the two tunnels, "
                "or use another bridge"
            )
            adapter.warning = text
            self._warn()
            self._log.error("tunnel_loop", bridge=adapter.bridge, tap=name, other=other, detail=text)
        else:
            self._warn()
            self._log.info("tunnel_loop_over", bridge=adapter.bridge, tap=name)

    def _warn(self) -> None:
        """Of all loops: one that comes and goes hides no other."""
        found = [known.warning for known in self._adapters.values() if known.is_blocked]
        self.warnings.pop("tunnel_loop", None)
        if found:
            self.warnings["tunnel_loop"] = ". ".join(found)

    def _drop(self, name: str) -> None:
        adapter = self._adapters.pop(name)
        asyncio.get_running_loop().remove_reader(adapter.socket.fileno())
        adapter.socket.close()
        if adapter.is_blocked:
            self._set_blocked(name, adapter, False)
        self._warn()


def _open(name: str) -> socket.socket:
    """A socket that receives the markers that arrive at a link, and none that leave.

    Raises:
        OSError: no such link, or no socket.
    """
    listener = socket.socket(
        socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, 0
    )
    try:
        program = _program()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_OCTETS)
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program[0])
        listener.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
        # All protocols: a bridge takes frames before sockets for a single protocol see them.
        listener.bind((name, _ETH_P_ALL))
    except BaseException:
        listener.close()
        raise
    return listener


def _program() -> tuple[bytes, object]:
    """Classic BPF that passes only our EtherType, and the buffer the option points to: keep it until then."""
    import ctypes

    rows = (
        (0x28, 0, 0, 12),  # load the half word at 12
        (0x15, 0, 1, ETHERTYPE),
        (0x06, 0, 0, 256),  # take this many bytes
        (0x06, 0, 0, 0),
    )
    code = b"".join(struct.pack("=HBBI", *row) for row in rows)
    buffer = ctypes.create_string_buffer(code, len(code))
    return struct.pack("HL", len(rows), ctypes.addressof(buffer)), buffer


def _is_alive(listener: socket.socket, name: str) -> bool:
    """Whether the socket is still bound to the link with this name."""
    try:
        return bool(listener.getsockname()[0] == name)
    except OSError:
        return False
