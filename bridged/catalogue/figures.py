"""What a snapshot of a data plane shows beside counters: offloads, queues, sizes of batches.

`make generate` writes the Rust enums and the reference from these tables. Nothing changes its meaning.
Pure: no I/O.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from bridged.catalogue.counters import CountSource

_DATA: Final[frozenset[CountSource]] = frozenset({"portable", "native"})
_NATIVE: Final[frozenset[CountSource]] = frozenset({"native"})


@dataclass(frozen=True, slots=True)
class Figure:
    """`sources`: the builds that have it."""

    name: str
    sources: frozenset[CountSource]
    meaning: str


@dataclass(frozen=True, slots=True)
class OffloadFigure(Figure):
    """Work that the kernel or a card may do for us. A build that is not in `sources` never has it.

    `fallbacks`: why it could not be used, and what the log says of that. Causes are errno names of the
    kernel, a failed self-test, or a rule for this kernel (`config`). Empty: logged where it is found.
    """

    fallbacks: Mapping[str, str] = field(default_factory=dict)


OFFLOADS: Final = (
    OffloadFigure("tap_vnet", _DATA, "Frames of the TAP carry a virtio-net header."),
    OffloadFigure("tap_tso", _DATA, "The TAP gives TCP super-frames.", {"einval": ""}),
    OffloadFigure("tap_uso", _DATA, "The TAP gives UDP super-frames.", {"einval": ""}),
    OffloadFigure(
        "udp_gso",
        _DATA,
        "The kernel cuts a run of packets into datagrams.",
        {
            "einval": "the kernel refuses UDP_SEGMENT here: packets leave one by one",
            "eio": "the WAN interface cannot segment UDP (IPsec, or a card without checksums): packets leave "
            "one by one",
            "emsgsize": "packets larger than the path's MTU leave one by one, as IP fragments",
        },
    ),
    OffloadFigure(
        "udp_gro",
        _DATA,
        "The kernel joins datagrams on arrival.",
        {"einval": "this kernel has no UDP_GRO: packets are received one by one"},
    ),
    OffloadFigure(
        "udp_steering",
        _NATIVE,
        "Several sockets share the peers by their ids.",
        {
            "einval": "the kernel refuses a program that chooses among sockets (SO_ATTACH_REUSEPORT_CBPF): a "
            "hash of addresses and ports distributes the peers over the workers, perhaps unevenly"
        },
    ),
    OffloadFigure(
        "coalesce",
        _DATA,
        "Frames are joined into super-frames for the TAP.",
        {
            "einval": "the TAP refused a super-frame: frames are written one by one",
            "selftest": "",
            "config": "",
        },
    ),
)

OFFLOAD_FALLBACKS: Final = tuple((offload.name, cause) for offload in OFFLOADS for cause in offload.fallbacks)
"""(offload, cause)."""

QUEUES: Final = (
    Figure("control", _DATA, "Control packets that wait for the control plane."),
    Figure("events", _DATA, "Events that wait for the control plane."),
)
"""Queues inside a data plane: depth and capacity are metrics."""

BATCHES: Final = (
    Figure("segments_per_send", _DATA, "Datagrams handed to the kernel in one call."),
    Figure("datagrams_per_receive", _DATA, "Datagrams taken from the kernel in one call."),
    Figure("frames_per_tap_write", _DATA, "Frames coalesced into one TAP write."),
)
"""Sizes of batches, as histograms: the metrics `bridged_NAME`."""
