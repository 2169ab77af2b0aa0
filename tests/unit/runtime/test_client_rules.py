"""Who may be here: entries of `clients` refuse every spelling of their name, and give to the exact one."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bridged.configuration.access import Client
from bridged.runtime.server.bans import Bans
from bridged.runtime.server.client_rules import ClientRules
from bridged.runtime.tunnels.tunnel_plan import AdmissionPlan


def rules(admission: AdmissionPlan) -> ClientRules:
    sessions: Any = SimpleNamespace(plan=SimpleNamespace(admission=admission))
    return ClientRules(sessions)


@pytest.mark.parametrize("spelling", ["alice", "ALICE"])
def test_a_disabled_client_stays_out_in_every_spelling(spelling: str) -> None:
    made = rules(AdmissionPlan(clients={"alice": Client(enabled=False), "bob": Client()}))
    assert made.objection(spelling) == "this client is disabled"
    assert made.objection("bob") is None and made.objection("carol") is None


def test_an_exact_entry_decides_alone() -> None:
    made = rules(AdmissionPlan(clients={"alice": Client(enabled=False), "Alice": Client()}))
    assert made.objection("Alice") is None
    assert made.objection("ALICE") == "this client is disabled"


def test_a_known_client_is_known_by_the_exact_name() -> None:
    made = rules(AdmissionPlan(clients={"alice": Client()}, only_known_clients=True))
    assert made.objection("alice") is None
    assert made.objection("Alice") == "this client is not known to the server"


def test_a_banned_name_stays_out_in_every_spelling(tmp_path: Path) -> None:
    made = rules(AdmissionPlan(bans=tmp_path / "bans"))
    Bans(tmp_path / "bans").ban("Alice", 0.0)
    made.refresh()
    assert made.objection("alice") == "banned by the operator" and made.objection("bob") is None
