"""What a data plane gave up while it ran is said once for each tunnel, offload and cause."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import cast

import pytest
from structlog.testing import capture_logs

from bridged.dataplane.contract import DataPlane, DataplaneSnapshot
from bridged.runtime.watchers import fallback_log
from bridged.runtime.watchers.fallback_log import FallbackLog
from tests.lab.snapshots import plane
from tests.lab.waiting import in_time


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


def test_a_tunnel_that_comes_again_is_told_of_anew() -> None:
    one = Counting()
    one.fallbacks = {("udp_gso", "eio"): 1}
    planes = {"one": cast(DataPlane, one)}
    log = FallbackLog(lambda: planes)
    with capture_logs() as lines:
        log.look()
        planes = {}
        log.look()
        planes = {"one": cast(DataPlane, one)}
        log.look()
        log.look()
    assert [line["tunnel"] for line in lines] == ["one", "one"]


def test_a_look_that_fails_is_not_the_last_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fallback_log, "INTERVAL_SECONDS", 0.01)
    looks = 0

    async def watch() -> None:
        third = asyncio.Event()

        def planes() -> dict[str, DataPlane]:
            nonlocal looks
            looks += 1
            if looks == 3:
                third.set()
            raise OSError("the data plane has just gone")

        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        log = FallbackLog(planes)
        with pytest.raises(OSError, match="just gone"):
            log.start()
        try:
            async with in_time(5):
                await third.wait()
        finally:
            log.stop()
        await asyncio.sleep(0.05)

    asyncio.run(watch())
    assert looks == 3
