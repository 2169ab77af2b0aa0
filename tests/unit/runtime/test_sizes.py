"""The MSS that a tunnel lets through."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from bridged.runtime.sizes import mss_limit


@pytest.mark.parametrize(
    ("mss", "is_fitted", "limit"),
    [
        ("auto", False, 1500 - 28 - 24 - 32 - 40),
        ("auto", True, 0),
        ("off", False, 0),
        ("off", True, 0),
        (1300, False, 1300),
        (1300, True, 1300),
    ],
)
def test_syn_segments_are_left_alone_only_where_told_so_or_where_tcp_is_fitted(
    mss: Any, is_fitted: bool, limit: int
) -> None:
    tunnel: Any = SimpleNamespace(mss=mss, wan_mtu=1500)
    assert mss_limit(tunnel, is_fitted=is_fitted) == limit
