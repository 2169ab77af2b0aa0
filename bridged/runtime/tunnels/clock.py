"""The two clocks of a tunnel: monotonic seconds for deadlines, Unix time for what people read."""

from __future__ import annotations

import time

from bridged.units import MonotonicSeconds, UnixSeconds


def monotonic() -> MonotonicSeconds:
    return MonotonicSeconds(time.monotonic())


def unix_now() -> UnixSeconds:
    return UnixSeconds(time.time())
