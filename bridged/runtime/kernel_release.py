"""What a kernel's release says of faults that no trial on this machine would show.

Source: Linux "udp: do not accept non-tunnel GSO skbs landing in a tunnel" (6.8.5); met in the field as
tailscale/tailscale issue 11026. Pure: text in, verdicts out.
"""

from __future__ import annotations

import re
from typing import Final

Release = tuple[int, int, int]

SOUND_UDP_SUPER_FRAMES: Final[Release] = (6, 8, 5)
"""From here on a UDP super-frame survives a tunnel (VXLAN, Geneve) behind it; before, it is lost there."""

_RELEASE: Final = re.compile(r"(\d{1,4})\.(\d{1,4})(?:\.(\d{1,6}))?(?!\d)")


def parse_release(text: str) -> Release | None:
    """Version, patch level and sublevel of `uname -r`, such as `6.1.0-18-amd64`; None: it has none."""
    found = _RELEASE.match(text)
    return (int(found[1]), int(found[2]), int(found[3] or 0)) if found else None


def has_sound_udp_super_frames(text: str) -> bool:
    """Whether a kernel of this release forwards UDP super-frames intact; False where that cannot be told.

    Distributions bring repairs to older releases: those are taken for faulty, which costs speed only.
    """
    release = parse_release(text)
    return release is not None and release >= SOUND_UDP_SUPER_FRAMES
