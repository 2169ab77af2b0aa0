"""br_netfilter, which some tests need: loaded for the time of a test run where it was not.

From the moment it is loaded it hands bridged packets to the host's packet filter. So it is switched off for
the host's own namespace at once; tests switch it on in theirs.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

_SETTINGS = Path("/proc/sys/net/bridge")
_SECONDS = 30.0


def is_loaded() -> bool:
    return _SETTINGS.exists()


def load() -> bool:
    """Load it where it is missing and can be had; whether this call did."""
    if is_loaded() or os.geteuid() != 0 or shutil.which("modprobe") is None:
        return False
    subprocess.run(("modprobe", "br_netfilter"), capture_output=True, check=False, timeout=_SECONDS)
    for family in ("arptables", "iptables", "ip6tables"):
        setting = _SETTINGS / f"bridge-nf-call-{family}"
        if setting.exists():
            setting.write_text("0")
    return is_loaded()


def unload() -> None:
    """Take it out again; it stays where somebody uses it."""
    subprocess.run(("modprobe", "-r", "br_netfilter"), capture_output=True, check=False, timeout=_SECONDS)
