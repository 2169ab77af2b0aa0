"""Every setting of a data plane that is a number, a switch or a word: type, limits, defaults, meaning.

`DataplaneSettings` of the contract, the configuration's schema, the native structs and the reference follow
this table (CONTRIBUTING.md, "A setting"). Pure: no I/O.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cache
from typing import Annotated, Any, Final, Literal, get_args, get_origin, get_type_hints

from bridged.units import Octets, Seconds

CoalesceKind = Literal["tcp4", "tcp6", "udp4", "udp6"]
"""What can be joined into a super-frame: segments of TCP, or datagrams of UDP (USO), over IPv4 or IPv6."""

COALESCE_KINDS: Final[frozenset[CoalesceKind]] = frozenset({"tcp4", "tcp6", "udp4", "udp6"})

Priority = Literal["off", "pcp", "dscp"]


@dataclass(frozen=True, slots=True)
class OperatorKey:
    """How operators set it: `path` below `tunnels.NAME`, and what differs from the data plane's own limits.

    None: as the data plane has it.
    """

    path: str
    default: float | None = None
    least: float | None = None


@dataclass(frozen=True, slots=True)
class Setting:
    """What the table says of one setting beside its name, type and default.

    `rust` is its type in native. `unit`: if the meaning does not say it. `least` and `most` are allowed
    themselves (None: no limit); `or_zero`: 0 is allowed, too, and means that it is not set. `key`: None if
    operators cannot set it.
    """

    meaning: str
    rust: str
    unit: str = ""
    least: float | None = None
    most: float | None = None
    or_zero: bool = False
    key: OperatorKey | None = None

    def problem(self, value: float) -> str | None:
        """What is wrong with a number, in words: `0 is not in 1..16`. None: nothing."""
        if self.or_zero and value == 0:
            return None
        if (self.least is None or value >= self.least) and (self.most is None or value <= self.most):
            return None
        ends = ("" if end is None else str(end) for end in (self.least, self.most))
        return f"{value} is not {'0 or ' if self.or_zero else ''}in {'..'.join(ends)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """The table. A line is a setting; a docstring under it says what only programmers need to know."""

    mss_limit: Annotated[
        int,
        Setting(
            "largest MSS of SYN segments over IPv4, IPv6: 20 less; 0: any",
            rust="u16",
            unit="bytes",
            most=65535,
        ),
    ] = 0
    """Source: docs/protocol/data.md#5-4."""
    mss_fits_path: Annotated[
        bool, Setting("native: SYN segments offer no more than one packet to the peer can carry", rust="bool")
    ] = False
    ageing: Annotated[
        Seconds,
        Setting(
            "time after which the tunnel forgets a silent station",
            rust="f64",
            unit="seconds",
            least=0,
            key=OperatorKey("fdb_ageing_seconds", least=1),
        ),
    ] = Seconds(300)
    move_hold: Annotated[
        Seconds,
        Setting("a station heard from a peer this recently stays there", rust="f64", unit="seconds", least=0),
    ] = Seconds(0.25)
    """What the TAP shows of it meanwhile is a reflection."""
    fdb_capacity: Annotated[
        int,
        Setting(
            "stations the tunnel can remember",
            rust="usize",
            least=1,
            key=OperatorKey("fdb_capacity", least=16),
        ),
    ] = 100_000
    addresses_per_peer: Annotated[int, Setting("stations one peer can have", rust="usize", least=1)] = 4096
    replay_window: Annotated[
        int,
        Setting(
            "how far packets may arrive out of order",
            rust="usize",
            unit="packets",
            least=0,
            most=65536,
            key=OperatorKey("replay_window", least=64),
        ),
    ] = 4096
    static_key: Annotated[
        bool,
        Setting("datagrams have no opcode: all are data of the only peer, under a static key", rust="bool"),
    ] = False
    """Without a peer they go to the control plane, as `ControlReceived`."""
    forward_between_peers: Annotated[
        bool,
        Setting(
            "server: let clients reach each other", rust="bool", key=OperatorKey("forward_between_peers")
        ),
    ] = True
    coalesce: Annotated[
        frozenset[CoalesceKind], Setting("what may be joined into super-frames", rust="CoalesceRules")
    ] = COALESCE_KINDS
    """UDP needs `uso4` or `uso6` of the TAP; portable joins only TCP. After the TAP has refused a super-frame
    (EINVAL) nothing is joined any more, until `attach_tap`."""
    socket_buffer: Annotated[
        Octets, Setting("bytes of the UDP socket's buffers, each way", rust="usize", least=0)
    ] = Octets(4 * 1024 * 1024)
    renegotiate_bytes: Annotated[
        int,
        Setting(
            "bytes of frames under one key, both directions together",
            rust="u64",
            least=0,
            key=OperatorKey("renegotiate.bytes"),
        ),
    ] = 0
    """`KeyNearLimit` is reported after this many (0: never)."""
    renegotiate_packets: Annotated[
        int,
        Setting(
            "packets under one key, both directions together",
            rust="u64",
            least=0,
            key=OperatorKey("renegotiate.packets"),
        ),
    ] = 0
    wan_mtu: Annotated[
        Octets,
        Setting(
            "largest outer packet that carries TCP",
            rust="u32",
            unit="bytes",
            least=576,
            most=65535,
            or_zero=True,
            key=OperatorKey("wan_mtu", default=1492),
        ),
    ] = Octets(0)
    """Native cuts TCP super-frames for it (0: for the path MTU). Portable leaves that to `mss_limit`."""
    answer_too_big: Annotated[
        bool,
        Setting(
            "packets larger than `wan_mtu` leaves: tell hosts by ICMP if they must not be cut, and cut IPv4 "
            "that may be; false: they travel in IP fragments of the WAN, which some paths drop",
            rust="bool",
            key=OperatorKey("answer_too_big"),
        ),
    ] = False
    """Portable answers only where `wan_mtu` is not 0. With `fragment` nothing is answered."""
    workers: Annotated[
        int,
        Setting(
            "native: number of thread pairs and TAP queues",
            rust="usize",
            least=1,
            most=16,
            key=OperatorKey("workers"),
        ),
    ] = 1
    busy_poll: Annotated[
        int,
        Setting(
            "native: how long the kernel may busy-poll the network card; 0: off",
            rust="u32",
            unit="microseconds",
            least=0,
            most=1_000_000,
            key=OperatorKey("busy_poll_microseconds"),
        ),
    ] = 0
    moderation: Annotated[
        int,
        Setting(
            "native: how long full-size packets of a fast stream (32 or more in a millisecond) may gather "
            "before they are read; 0: off",
            rust="u32",
            unit="microseconds",
            least=0,
            most=1000,
            key=OperatorKey("moderation_microseconds", default=50),
        ),
    ] = 0
    priority: Annotated[
        Priority,
        Setting(
            "pcp, dscp: copy a frame's VLAN priority or DSCP to the outer packet, where the WAN sees it, and "
            "send PCP 4-7 or DSCP 32-63 first; an OpenVPN peer needs `replay-window 4096`",
            rust="Priority",
            key=OperatorKey("priority"),
        ),
    ] = "off"
    """Order is kept within a DSCP. `off`: the DSCP of outer packets is 0."""

    def problems(self) -> Iterator[str]:
        """What is out of range: `workers: 17 is not in 1..16`."""
        for name, row in rows().items():
            value = getattr(self, name)
            if row.words:
                if value not in row.words:
                    yield f"{name}: {value!r} is not {', '.join(row.words[:-1])} or {row.words[-1]}"
            elif isinstance(value, int | float) and (problem := row.setting.problem(value)):
                yield f"{name}: {problem}"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. `words`: the allowed ones, for a `Literal`."""

    name: str
    setting: Setting
    default: Any
    words: tuple[str, ...]


@cache
def rows() -> Mapping[str, Row]:
    """The table, in its order."""
    hints = get_type_hints(Tuning, include_extras=True)
    found = {}
    for item in fields(Tuning):
        kind, setting = get_args(hints[item.name])
        words = get_args(kind) if get_origin(kind) is Literal else ()
        found[item.name] = Row(item.name, setting, item.default, words)
    return found


def limits_of_key(path: str) -> tuple[float | None, float | None]:
    """The least and the most that operators may set (None: no limit). Raises as `row_of_key`."""
    setting = row_of_key(path).setting
    narrower = None if setting.key is None else setting.key.least
    return setting.least if narrower is None else narrower, setting.most


def row_of_key(path: str) -> Row:
    """The row that operators set by this key below `tunnels.NAME`.

    Raises:
        KeyError: no row has it.
    """
    for row in rows().values():
        if row.setting.key is not None and row.setting.key.path == path:
            return row
    raise KeyError(path)
