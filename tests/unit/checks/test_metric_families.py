"""A metric family, or a field of a snapshot, that nothing fills is found."""

from __future__ import annotations

from scripts.checks import metric_families
from scripts.checks.sources import Sources

SNAPSHOT = "class TunnelStatus:\n    name: str\n    up: bool = False\n    storms: int = 0\n"


def findings(texts: dict[str, str]) -> set[str]:
    return set(metric_families.check(Sources.of(texts)))


def test_a_family_that_telemetry_does_not_name_is_found() -> None:
    found = findings({"bridged/telemetry/collector.py": 'families.set("tunnel_up", (), 1)\n'})
    assert "bridged/telemetry/metrics_table.py: nothing fills the family `tunnel_peers`" in found
    assert "bridged/telemetry/metrics_table.py: nothing fills the family `tunnel_up`" not in found


def test_a_field_that_only_its_default_fills_is_found() -> None:
    texts = {"bridged/runtime/snapshot.py": SNAPSHOT, "bridged/a.py": 'TunnelStatus("x", up=True)\n'}
    assert [line for line in findings(texts) if "runtime" in line] == [
        "bridged/runtime/snapshot.py: nothing fills `storms` of TunnelStatus"
    ]
