"""Many clients at once, and new ones amid forged resets: scenes of two benches, with generous deadlines."""

from __future__ import annotations

import pytest

from tests.bench.flooded import FloodBench
from tests.bench.returning import ReturnBench
from tests.lab.core import Lab

pytestmark = pytest.mark.root

CLIENTS = 300
"""More than a server has places for handshakes."""


def test_more_clients_than_places_are_all_up_soon_behind_one_address_and_after_the_server_was_killed() -> (
    None
):
    with Lab("return") as lab:
        first, again = ReturnBench(lab, CLIENTS, "none").killed(nat=True)
        assert (first["up"], first["failures"]) == (CLIENTS, 0)
        assert first["last"] < 10.0
        assert (again["up"], again["failures"]) == (CLIENTS, 0)
        assert again["last"] < again["started"] + 10.0


def test_a_new_client_connects_within_three_seconds_amid_forged_resets() -> None:
    with Lab("flooded") as lab:
        bench = FloodBench(lab, "none")
        assert bench.connect(1, seconds=8.0) < 3.0
        assert bench.server.tunnel()["dataplane"]["drops"]["receive"]["handshake_rate"] > 1000
        bench.close()
