"""Ends that are chained, so that the first failure skips the rest, are found."""

from __future__ import annotations

import pytest

from scripts.checks.endings import check
from scripts.checks.sources import Sources


def found(body: str, path: str = "bridged/a.py") -> list[str]:
    text = f"class Part:\n    async def stop(self):\n{body}"
    return list(check(Sources.of({path: text})))


@pytest.mark.parametrize(
    "body",
    [
        "        self.a.close()\n        await self.b.stop()\n",
        "        for part in self.parts:\n            part.close()\n",
        "        if self.a:\n            self.a.close()\n        self.b.release()\n",
    ],
)
def test_a_chain_is_found(body: str) -> None:
    assert len(found(body)) == 1


@pytest.mark.parametrize(
    "body",
    [
        "        self.a.close()\n        self.b = None\n",
        "        take_every_step((self.a.close, self.b.close))\n",
        "        try:\n            self.a.close()\n        finally:\n            self.b.close()\n",
    ],
)
def test_what_takes_every_step_passes(body: str) -> None:
    assert found(body) == []


def test_the_tap_library_and_the_protocol_are_left_out() -> None:
    chain = "        self.a.close()\n        self.b.close()\n"
    assert not found(chain, "tap/src/bridged_tap/a.py") and not found(chain, "bridged/protocol/a.py")
