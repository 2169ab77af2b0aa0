"""The MSS that a tunnel lets through."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from bridged.runtime.sizes import mss_limit


@pytest.mark.parametrize(
    ("mss", "fits_path", "limit"),
    [
        ("auto", False, 1500 - 48 - 24 - 14 - 40),
        ("auto", True, 0),
        ("off", False, 0),
        ("off", True, 0),
        (1300, False, 1300),
        (1300, True, 1300),
    ],
)
def test_one_limit_holds_for_all_peers_unless_off_or_where_the_data_plane_knows_each_path(
    mss: Any, fits_path: bool, limit: int
) -> None:
    tunnel: Any = SimpleNamespace(mss=mss, wan_mtu=1500)
    assert mss_limit(tunnel, fits_path=fits_path) == limit
