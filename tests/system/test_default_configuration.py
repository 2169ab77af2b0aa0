"""`make run`: the configuration that we ship works as it stands, on a machine that has never seen us."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.lab import BRIDGED, Lab, LabError, run, wait_for

pytestmark = pytest.mark.root
CONFIG = Path(__file__).parents[2] / "config" / "bridged.yaml"
# The daemon writes under /var/lib and /run: give it empty ones, which go away with its mount namespace.
FRESH = 'mount -t tmpfs fresh /var/lib && mount -t tmpfs fresh /run && exec "$@"'


def test_the_default_configuration_starts_a_server_with_a_bridge_and_stops_without_a_trace() -> None:
    with Lab("default") as lab:
        machine = lab.namespace("machine")
        daemon = machine.popen(
            "sh", "-c", FRESH, "sh", BRIDGED, "run", "--config", str(CONFIG), log="bridged"
        )

        def inside(*argv: str) -> str:
            return run("nsenter", "-t", str(daemon.pid), "-m", "-n", "-r", "-w", *argv)

        def status() -> dict[str, Any] | None:
            assert daemon.running, daemon.tail()
            try:
                found = json.loads(inside(BRIDGED, "status", "--json", "--config", str(CONFIG)))
            except LabError:
                return None
            # It answers while it starts, too.
            return found if found["bridges"] and found["tunnels"][0]["up"] else None

        answer = wait_for(status, "the daemon to be up", 30, interval_seconds=0.3)
        assert answer is not None
        (bridge,) = answer["bridges"]
        assert bridge["name"] == "br0"
        (tunnel,) = answer["tunnels"]
        assert tunnel["role"] == "server"
        assert tunnel["up"]
        assert "br0" in machine.ip("link", "show", "type", "bridge")
        modes = inside("find", "/var/lib/bridged", "-name", "*.key", "-printf", "%m ").split()
        assert modes and set(modes) == {"600"}
        assert daemon.stop(signal.SIGTERM) == 0
        assert machine.ip("link", "show", "type", "bridge") == ""
        assert machine.ip("link", "show", "type", "tun") == ""
