"""`bridged status` says what is amiss: missing ports, problems of bridges, undone duties, hazards."""

from __future__ import annotations

from dataclasses import replace

from bridged.cli import status_text
from bridged.runtime.snapshot import BridgeStatus, DutiesStatus
from bridged.supervision import Undone
from bridged.units import UnixSeconds
from tests.lab.snapshots import NOW, daemon, status_answer, tunnel


def test_a_port_that_does_not_exist_is_called_missing_and_one_without_carrier_down() -> None:
    ports = {"eth1": False, "eth01": False, "tap0": True}
    bridge = BridgeStatus("br0", None, 1500, False, ports, missing=("eth01",))
    answer = status_answer(replace(daemon(tunnel("a")), bridges=(bridge,)))
    (_, line) = status_text.bridge_lines(answer.bridges[0])
    assert line == "  ports eth1 (down), eth01 (missing), tap0"


def test_what_is_amiss_stands_above_all_else_with_its_reason_and_cure() -> None:
    undone = Undone("tap", "tap0", UnixSeconds(NOW - 90), "too many open files")
    state = replace(
        daemon(tunnel("a")),
        bridges=(BridgeStatus("br0", None, 1500, False, {}, problem="eth1 carries the tunnel"),),
        duties=DutiesStatus({"tap": 3}, (undone,)),
        warnings={
            "wan_gro": "eth0 carries tunnels with GRO off",
            "bridge_netfilter": "packets are dropped. Let them pass: " + "x " * 60,
        },
    )
    lines = status_text.warning_lines(status_answer(state))
    assert lines[0] == "bridge br0: eth1 carries the tunnel"
    assert any(line.startswith("packets are dropped. Let them pass:") for line in lines)
    assert "not done for 1 min 30 s: tap tap0: too many open files" in lines
    assert lines[-1] == "note: eth0 carries tunnels with GRO off", "it costs speed only"
    assert all(len(line) <= status_text.COLUMNS for line in lines)


def test_two_that_claim_to_be_one_are_shown_with_the_name_of_their_log_line() -> None:
    amiss = replace(tunnel("a"), mac_conflicts={"lan_station": 2, "peer": 7}, name_conflicts=3)
    text = "\n".join(status_text.tunnel_lines(status_answer(daemon(amiss)).tunnels[0], NOW))
    assert "LAN stations that a peer claims to have: 2 (log: station_contested)" in text
    assert "ended each other's connection: 3" in text and "(log: name_conflict)" in " ".join(text.split())
