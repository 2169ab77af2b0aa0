"""Many clients at once, and new ones amid forged resets: scenes of two benches, with generous deadlines."""

from __future__ import annotations

import pytest

from tests.bench.flooded import FloodBench
from tests.bench.returning import ReturnBench
from tests.lab.bounds import at_least, at_most
from tests.lab.core import Lab
from tests.system.daemon_lab import own_kibioctets

pytestmark = [pytest.mark.root, pytest.mark.measures]

GROWTH_KIBIOCTETS = 24 * 1024
"""The places that may be taken, filled: memory of 2048 keys, and the tables of repeated resets."""
CLIENTS = 300
"""More than a server has places for handshakes."""


def test_more_clients_than_places_are_all_up_soon_behind_one_address_and_after_the_server_was_killed() -> (
    None
):
    with Lab("return") as lab:
        first, again = ReturnBench(lab, CLIENTS, "none").killed(nat=True)
        assert (first["up"], first["failures"]) == (CLIENTS, 0)
        at_most(first["last"], 10.0, "the last client")
        assert (again["up"], again["failures"]) == (CLIENTS, 0)
        at_most(again["last"] - again["started"], 10.0, "the last client after the kill")


def test_a_new_client_connects_within_three_seconds_amid_forged_resets() -> None:
    with Lab("flooded") as lab:
        bench = FloodBench(lab, "none")
        at_most(bench.connect(1, seconds=8.0), 3.0, "a new client")
        drops = bench.server.tunnel()["dataplane"]["drops"]["receive"]
        at_least(drops["handshake_rate"], 1000, "forged resets refused")
        bench.close()


@pytest.mark.parametrize("wrap", ["tls-crypt-v2", "captured-2.5"])
def test_invented_and_captured_tls_crypt_v2_keys_keep_nobody_out_and_cost_no_memory(wrap: str) -> None:
    with Lab("flooded") as lab:
        bench = FloodBench(lab, wrap)
        before = own_kibioctets(bench.server)
        at_most(bench.connect(1, seconds=8.0), 3.0, "a new client")
        assert own_kibioctets(bench.server) - before < GROWTH_KIBIOCTETS
        drops = bench.server.tunnel()["dataplane"]["drops"]["receive"]
        refused = drops["wrap_mismatch" if wrap == "tls-crypt-v2" else "handshake_rate"]
        at_least(refused, 1000, "packets refused")
        bench.close()
