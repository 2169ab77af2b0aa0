"""The MAC address that a tunnel's adapter chooses: none that our own switches know."""

from __future__ import annotations

from pathlib import Path

import yaml

from bridged.addresses import MacAddress
from bridged.configuration.tunnel import Tunnel
from bridged.runtime.tunnels.adapter import TunnelAdapter
from tests.lab.namespace import in_namespace

TUNNEL = """
role: client
bridge: br0
remotes: ["192.0.2.1:1194"]
tls: {ca: x, certificate: x, key: x}
"""


@in_namespace
def test_an_address_that_a_switch_has_learned_is_not_taken(tmp_path: Path) -> None:
    asked: list[MacAddress] = []

    def is_learned(address: MacAddress) -> bool:
        asked.append(address)
        return len(asked) <= 2

    adapter = TunnelAdapter("t0", Tunnel.model_validate(yaml.safe_load(TUNNEL)), tmp_path, (), is_learned)
    port = adapter.open()
    try:
        assert adapter.mac_conflicts == 2
        assert port.mac == asked[2] and port.mac not in asked[:2]
    finally:
        adapter.close()
