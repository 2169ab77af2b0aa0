"""When a session wants to be called next, and why.

Pure: values only.
"""

from __future__ import annotations

from dataclasses import dataclass

from bridged.units import MonotonicSeconds


@dataclass(frozen=True, slots=True)
class Deadline:
    """When `handle_timeout` wants to be called next, and why."""

    at: MonotonicSeconds
    reason: str
