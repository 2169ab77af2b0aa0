"""What a tunnel's plan makes of keys that have no effect together."""

from __future__ import annotations

from pathlib import Path

from bridged.configuration.load import parse
from bridged.pki import EmbeddedCa
from bridged.runtime.tunnels.tunnel_credentials import plan_tunnel


def test_an_end_with_one_peer_never_keeps_that_out_for_its_own_past(tmp_path: Path) -> None:
    """With `duplicate_names` it would be another peer when it comes again, and there is one place."""
    EmbeddedCa.create(tmp_path)
    text = (
        f"state_directory: {tmp_path}\nbridges: {{br0: {{}}}}\ntunnels:\n"
        "  a: {role: server, bridge: br0, tls: {embedded: true}, point_to_point: true, "
        "duplicate_names: true}\n"
    )
    plan = plan_tunnel(parse(text, tmp_path / "bridged.yaml"), "a", tmp_path)
    assert (plan.peers_limit, plan.duplicate_names) == (1, False)
