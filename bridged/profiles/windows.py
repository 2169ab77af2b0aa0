"""Recognises paths of Windows, which profiles written there name. Pure."""

from __future__ import annotations

import re
from pathlib import PureWindowsPath
from typing import Final

_DRIVE: Final = re.compile(r"[A-Za-z]:[\\/]")
_EATEN: Final = re.compile(r"[A-Za-z]:[^\\/]")


def file_name(path: str) -> str | None:
    r"""`ca.crt` for `C:\VPN\ca.crt` and `config\ca.crt`; None for a path of this system."""
    if _DRIVE.match(path) or "\\" in path:
        return PureWindowsPath(path).name or None
    return None


def looks_eaten(path: str) -> bool:
    r"""Whether `path` was `"C:\VPN\ca.crt"`: OpenVPN, too, reads that as `C:VPNca.crt`."""
    return _EATEN.match(path) is not None and "\\" not in path
