"""Finds the bridge's name in the command of an `up` script. The script itself is never read or run.

Pure.
"""

from __future__ import annotations

import re
from typing import Final

_NAME: Final = r"([A-Za-z0-9_.-]{1,15})"
_END: Final = r"(?=[\s'\";&|]|$)"
_COMMANDS: Final = (
    re.compile(rf"\bmaster\s+(?:dev\s+)?{_NAME}{_END}"),
    re.compile(rf"\bbrctl\s+addif\s+{_NAME}{_END}"),
    re.compile(rf"\bovs-vsctl\s+(?:--\S+\s+)*add-port\s+{_NAME}{_END}"),
    re.compile(rf"\bifconfig\s+{_NAME}\s+addm\b"),
    # An argument that can only be a bridge: `br0`, `br-lan`, `vmbr1`, `bridge0`, `lanbr`.
    re.compile(rf"\s((?:br|vmbr|lanbr|virbr|xenbr)(?:[-_]?[0-9.]+|[-_][A-Za-z0-9_-]+)?|bridge[0-9]+){_END}"),
)
_NAME_OCTETS_MAX: Final = 15


def bridge_in_command(command: str) -> str | None:
    """`br0` for `up.sh br0 tap0 1500`, `… brctl addif br0 tap0` and `ip link set tap0 master br0`."""
    for pattern in _COMMANDS:
        for name in pattern.findall(command):
            if len(name) <= _NAME_OCTETS_MAX:
                return str(name)
    return None
