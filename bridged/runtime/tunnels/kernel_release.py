"""Known faults of kernel releases that no trial on this machine would show.

Source: Linux "udp: do not accept non-tunnel GSO skbs landing in a tunnel" (6.8.5), met in the field as
tailscale/tailscale issue 11026; the UDP segmentation faults of 7.0 to 7.1.4, issues 19777 and 21335 there.
Pure.
"""

from __future__ import annotations

import re
from typing import Final

Release = tuple[int, int, int]

_UDP_FAULTS: Final[tuple[tuple[Release, Release, str], ...]] = (
    ((0, 0, 0), (6, 8, 5), "may lose UDP super-frames in a tunnel behind a LAN port"),
    ((7, 0, 0), (7, 1, 5), "may damage UDP super-frames with some network cards"),
)
"""First release with the fault, first one without, and the fault."""

_RELEASE: Final = re.compile(r"(\d{1,4})\.(\d{1,4})(?:\.(\d{1,6}))?(?!\d)")


def parse_release(text: str) -> Release | None:
    """Version, patch level and sublevel from `uname -r`, such as `6.1.0-18-amd64`; None: not found."""
    found = _RELEASE.match(text)
    return (int(found[1]), int(found[2]), int(found[3] or 0)) if found else None


def find_udp_fault(text: str) -> str:
    """What a kernel of this release may do to UDP super-frames that leave by a LAN port; empty: nothing.

    Distributions repair older releases, too. Those count as faulty here, which only costs speed.
    """
    release = parse_release(text)
    if release is None:
        return f"it is unknown whether kernel {text} forwards UDP super-frames intact"
    for first, repaired, fault in _UDP_FAULTS:
        if first <= release < repaired:
            return f"kernel {text} {fault}; repaired in {'.'.join(map(str, repaired))}"
    return ""
