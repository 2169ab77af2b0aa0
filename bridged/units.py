"""Numbers with a unit in their type.

A value of one of these types is a plain int or float at run time; the name tells the reader, and
the type checker, what it counts.
"""

from __future__ import annotations

from typing import NewType

Seconds = NewType("Seconds", float)
"""A span of time."""

MonotonicSeconds = NewType("MonotonicSeconds", float)
"""A reading of the monotonic clock; only differences mean anything."""

UnixSeconds = NewType("UnixSeconds", float)
"""Seconds since 1970-01-01 UTC."""

Octets = NewType("Octets", int)
"""A size in bytes."""

KeyId = NewType("KeyId", int)
"""Key id of a packet, 0..7 (docs/protocol/control.md#4-5)."""

WirePeerId = NewType("WirePeerId", int)
"""Peer id of DATA_V2 packets, 0..0xFFFFFE (docs/protocol/control.md#8-6)."""

PeerHandle = NewType("PeerHandle", int)
"""Names one peer of one data plane; chosen by the control plane, never reused in a process."""
