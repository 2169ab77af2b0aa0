"""Every test of this directory runs once for each data plane build.

Where native is not built its half fails, unless BRIDGED_PORTABLE_ONLY=1 says that this is meant.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib import import_module
from typing import Any

import pytest

from bridged.dataplane import native
from tests.contract.dataplane_rig import Rig

BUILDS = ("portable",) if os.environ.get("BRIDGED_PORTABLE_ONLY") == "1" else ("portable", "native")


@pytest.fixture
def native_module() -> Any:
    """The compiled module itself."""
    _need_native()
    return import_module("bridged._native")


def _need_native() -> None:
    if native.unavailable():
        pytest.fail(f"{native.unavailable()}; or test portable only: BRIDGED_PORTABLE_ONLY=1", pytrace=False)


@pytest.fixture(params=BUILDS)
def build(request: pytest.FixtureRequest) -> str:
    """Name of the build under test."""
    if request.param == "native":
        _need_native()
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
