"""Finds the bridge's name in the command of an `up` script. The script itself is never read or run.

Pure.
"""

from __future__ import annotations

import re
from typing import Final

_NAME: Final = r"([A-Za-z0-9_.-]{1,15})"
_COMMANDS: Final = (
    re.compile(rf"\bmaster\s+(?:dev\s+)?{_NAME}(?=[\s'\";]|$)"),
    re.compile(rf"\bbrctl\s+addif\s+{_NAME}(?=[\s'\";]|$)"),
    re.compile(rf"\bovs-vsctl\s+add-port\s+{_NAME}(?=[\s'\";]|$)"),
    re.compile(r"\s((?:br|vmbr|lanbr)[A-Za-z0-9_.-]{0,12})(?=\s|$)"),
)


def bridge_in_command(command: str) -> str | None:
    """`br0` for `up.sh br0 tap0 1500`, `… brctl addif br0 tap0` and `ip link set tap0 master br0`."""
    for pattern in _COMMANDS:
        found = pattern.search(command)
        if found and "$" not in found.group(1):
            return found.group(1)
    return None
