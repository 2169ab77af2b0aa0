"""What is set for a tunnel reaches its data plane."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridged.addresses import MacAddress
from bridged.configuration.load import parse
from bridged.dataplane.contract import TapPort
from bridged.runtime.tunnels.dataplane_settings import dataplane_settings
from bridged.units import Octets

pytestmark = pytest.mark.native

FILE = """\
bridges: {br0: {}}
tunnels:
  main: {role: server, bridge: br0, tls: {embedded: true}, workers: 2, priority: PRIORITY,
         busy_poll_microseconds: 20, moderation_microseconds: 70}
"""
PORT = TapPort((3,), "tap0", MacAddress(bytes(6)), Octets(1500))


@pytest.mark.parametrize("priority", ["off", "pcp", "dscp"])
def test_what_is_set_reaches_the_data_plane(priority: str) -> None:
    tunnel = parse(FILE.replace("PRIORITY", priority), Path("site.yaml")).tunnels["main"]
    settings = dataplane_settings("main", tunnel, PORT, "native", frozenset())
    assert (settings.priority, settings.workers) == (priority, 2)
    assert (settings.busy_poll, settings.moderation) == (20, 70)
