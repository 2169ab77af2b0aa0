"""How much memory a process has of its own."""

from __future__ import annotations

from pathlib import Path


def own_octets(pid: int) -> int:
    """What it has written to, without pages of files: the daemon gives those back, and they return.

    Source: proc(5), RssAnon.
    """
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))
