"""Known faults of kernel releases: of UDP super-frames in the LAN, and of what a tunnel needs everywhere.

Source: Linux "udp: do not accept non-tunnel GSO skbs landing in a tunnel" (6.8.5), met in the field as
tailscale/tailscale issue 11026; the UDP segmentation faults of 7.0 to 7.1.4, issues 19777 and 21335 and pull
request 19918 there; "net: missing check virtio" and its repairs in 6.1.111, 6.6.46 and 6.10.5, issue 13041
there and lf-edge/eve pull request 4389.
Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

Release = tuple[int, int, int]

_UDP_FAULTS: Final[tuple[tuple[Release, Release, str], ...]] = (
    ((0, 0, 0), (6, 8, 5), "may lose UDP super-frames in a tunnel behind a LAN port"),
    ((7, 0, 0), (7, 1, 5), "may damage UDP super-frames with some network cards"),
)
"""First release with the fault, first one without, and the fault."""


@dataclass(frozen=True, slots=True)
class KernelFault:
    """A fault of the releases from `first` on, before `repaired`. `of`: what it damages."""

    first: Release
    repaired: Release
    of: Literal["tap", "wan"]
    text: str
    source: str


_TAP_FAULT: Final = "may refuse super-frames that enter a TAP: TCP into the LAN is slow"
_THREADS: Final = "https://github.com/tailscale/tailscale/issues/"
HOST_FAULTS: Final = (
    KernelFault((6, 1, 103), (6, 1, 111), "tap", _TAP_FAULT, f"{_THREADS}13041"),
    KernelFault((6, 6, 44), (6, 6, 46), "tap", _TAP_FAULT, f"{_THREADS}13041"),
    KernelFault((6, 10, 3), (6, 10, 5), "tap", _TAP_FAULT, f"{_THREADS}13041"),
    KernelFault(
        (7, 0, 0),
        (7, 1, 5),
        "wan",
        "may damage packets that it segments for the card (UDP GSO): tunnels lose packets and are slow",
        f"{_THREADS}19777",
    ),
)
"""Faults that every host with such a kernel should know about. Oldest first; no two overlap."""

_RELEASE: Final = re.compile(r"(\d{1,4})\.(\d{1,4})(?:\.(\d{1,6}))?(?!\d)")
_DEBIAN: Final = re.compile(r"\bDebian (\d{1,4}\.\d{1,4}\.\d{1,6}\S*)")


def parse_release(text: str) -> Release | None:
    """Version, patch level and sublevel from `uname -r`, such as `6.1.0-18-amd64`; None: not found."""
    found = _RELEASE.match(text)
    return (int(found[1]), int(found[2]), int(found[3] or 0)) if found else None


def upstream_release(release: str, version: str) -> str:
    """The release with its sublevel: `uname -r`, or where Debian hides it there, that of `uname -v`."""
    found = _DEBIAN.search(version)
    return found[1] if found else release


def find_udp_fault(text: str) -> str:
    """What a kernel of this release may do to UDP super-frames that leave by a LAN port; empty: nothing.

    Distributions repair older releases, too. Those count as faulty here, which only costs speed.
    """
    release = parse_release(text)
    if release is None:
        return f"it is unknown whether kernel {text} forwards UDP super-frames intact"
    for first, repaired, fault in _UDP_FAULTS:
        if first <= release < repaired:
            return f"kernel {text} {fault}; repaired in {written(repaired)}"
    return ""


def find_host_fault(text: str) -> KernelFault | None:
    """The fault of a kernel of this release; None: none that is known."""
    release = parse_release(text)
    if release is None:
        return None
    return next((fault for fault in HOST_FAULTS if fault.first <= release < fault.repaired), None)


def written(release: Release) -> str:
    """Such as `6.1.111`."""
    return ".".join(map(str, release))
