"""The programs that people watch OpenVPN with, from PyPI: what their parsers read in our status files."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

import semver
from openvpn_status import parse_status


def read_by_openvpn_status(text: str) -> Any:
    """What the package openvpn-status reads (version 1 alone)."""
    return parse_status(text)


def read_by_openvpn_monitor(text: str) -> dict[str, Any]:
    """What openvpn-monitor reads of `status 3` from OpenVPN 2.6: sessions by virtual address."""
    spec = importlib.util.find_spec("openvpn_monitor")
    assert spec is not None and spec.origin is not None
    # It imports its own parts as if they were installed by themselves.
    sys.path.insert(0, str(Path(spec.origin).parent))
    try:
        collector = importlib.import_module("vpns.openvpn.data_collector").VPNDataCollector({}, None)
    finally:
        sys.path.pop(0)
    sessions: dict[str, Any] = collector.parse_status(text, semver.VersionInfo.parse("2.6.14"), None)
    return sessions
