"""How much a data plane keeps of what others send, and for how long."""

from __future__ import annotations

from typing import Final

CONTROL_QUEUE_DATAGRAMS: Final = 2048
"""How many control datagrams of peers and of handshakes can wait."""
STRANGER_QUEUE_DATAGRAMS: Final = 2048
"""How many control datagrams of everybody else can wait."""
EVENT_QUEUE_EVENTS: Final = 1024
"""How many events can wait of the kinds that may be dropped: `OccReceived` and `StationMoved`.

`ControlReceived` has queues of its own. The other kinds are state and never dropped: one event waits for each
peer (or key, or the TAP), and is updated if it happens again before it is taken.
"""
OCC_WAITING: Final = 8
"""How many OCC messages of one peer can wait."""
OCC_OCTETS: Final = 1280
"""Bytes of the longest OCC message that is handed up; an options string has 1024 at most."""
OCC_BURST: Final = 16
"""OCC messages that one peer may send at once."""
OCC_PER_SECOND: Final = 4
"""OCC messages that one peer may send in the long run: two ends that probe their path send two each."""

EARLY_OCTETS: Final = 256 * 1024
"""Bytes of packets that one peer may have waiting for a key (`expect_key`)."""
EARLY_LEAST_OCTETS: Final = 256
"""What packets of one read count at least: keeping them costs as much, however short they are."""
EARLY_SECONDS: Final = 1.0
"""Packets that waited longer for their key are dropped."""

STREAM_QUEUE_OCTETS: Final = 256 * 1024
"""Bytes that may wait for one TCP connection; frames beyond that are dropped (`tcp_send_full`).

Control packets may wait beyond it: STREAM_CONTROL_OCTETS more.
"""
STREAM_CONTROL_OCTETS: Final = 128 * 1024
"""A connection for which even more control packets wait is closed."""
STREAM_PACKET_OCTETS: Final = 65_535
"""Bytes of the longest packet in a stream."""
STREAM_STRANGER_OCTETS: Final = 32 * 1024
"""Bytes that may wait for a connection of a stranger; one for which more wait is closed."""
STREAM_GROWN_OCTETS: Final = 64 * 1024
"""From this receive buffer on the kernel finds the size by itself, once a stranger has become a peer."""
STREAM_LINGER_SECONDS: Final = 5.0
"""How long a connection that `close_stream` ends may take for what waits."""
STREAMS_LINGERING: Final = 256
"""How many connections may be about to close. One more ends the oldest at once."""

STATION_EVENTS_KEPT: Final = 4096
"""How many of the latest station events are kept for `station_events`."""
