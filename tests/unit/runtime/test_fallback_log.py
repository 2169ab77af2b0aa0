"""What a data plane gave up while it ran is said once for each tunnel, offload and cause."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from lab.snapshots import plane
from structlog.testing import capture_logs

from bridged.dataplane.contract import DataPlane, DataplaneSnapshot
from bridged.runtime.fallback_log import FallbackLog


class Counting:
    """A data plane as far as the log looks at it."""

    def __init__(self) -> None:
        self.fallbacks: dict[tuple[str, str], int] = {}

    def snapshot(self) -> DataplaneSnapshot:
        return replace(plane(), offload_fallbacks=self.fallbacks)


def test_each_fallback_is_said_once_and_in_words() -> None:
    one, two = Counting(), Counting()
    log = FallbackLog(lambda: {"one": cast(DataPlane, one), "two": cast(DataPlane, two)})
    with capture_logs() as lines:
        log.look()
        one.fallbacks = {("udp_gso", "eio"): 1}
        log.look()
        one.fallbacks = {("udp_gso", "eio"): 900, ("coalesce", "einval"): 1}
        two.fallbacks = {("udp_gso", "eio"): 3}
        log.look()
        log.look()
    assert [(line["tunnel"], line["offload"], line["cause"]) for line in lines] == [
        ("one", "udp_gso", "eio"),
        ("one", "coalesce", "einval"),
        ("two", "udp_gso", "eio"),
    ]
    assert all(line["event"] == "offload_fallback" and line["log_level"] == "warning" for line in lines)
    assert all(line["detail"] for line in lines)
