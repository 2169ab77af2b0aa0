"""Every test of this directory runs once for each data plane build that there is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from dataplane_rig import Rig

BUILDS = ("portable",)


@pytest.fixture(params=BUILDS)
def build(request: pytest.FixtureRequest) -> str:
    """Name of the build under test."""
    return str(request.param)


@pytest.fixture
def make_rig(build: str) -> Iterator[Callable[..., Rig]]:
    """Makes started rigs with given settings, and stops them."""
    with ExitStack() as stack:

        def make(**settings: Any) -> Rig:
            return stack.enter_context(Rig(build, **settings))

        yield make


@pytest.fixture
def rig(make_rig: Callable[..., Rig]) -> Rig:
    """One with the usual settings, without a virtio-net header."""
    return make_rig()
