"""The real Prometheus watches four daemons: every query finds data, alerts fire for their trouble and end.

Which trouble fires which alert: `STANDING`, `TROUBLES`, `STOPPED`; `NOT_HERE` has the rest. All metrics have
a producer meanwhile; `SILENT_HERE` has the others.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from scripts.monitoring.alerts import ALERTS
from tests.lab import wait_for
from tests.system.monitoring_daemons import ODD, STANDING, TroubledDaemons, troubled_daemons
from tests.system.monitoring_lab import SITE_A, SITE_B, WatchedAlert
from tests.system.monitoring_troubles import NOT_HERE, SILENT_HERE, TROUBLES

pytestmark = [pytest.mark.root, pytest.mark.native]

ROOT = Path(__file__).parents[2]
SCALE = float(os.environ.get("BRIDGED_MONITORING_SCALE", "60"))
"""`make test-monitoring` takes 30."""
HASTE = 6.0
"""How much shorter still the rules wait: promtool tests that waiting (tests/unit/monitoring)."""
INTERVAL = f"{round(60_000 / SCALE)}ms"
"""Of scrapes: a minute in the time of the rules."""

STOPPED: Final = {
    "b": {("BridgedDown", SITE_B), ("BridgedPeerDown", SITE_A)},
    "a": {("BridgedDown", SITE_A), ("BridgedTunnelDown", SITE_B)},
}
"""What fires when this daemon stops."""


def test_each_alert_is_provoked_or_has_a_reason_why_not_and_a_test_instead() -> None:
    caused = [*STANDING, *(alert for trouble in TROUBLES for alert in trouble.alerts)]
    caused += [alert for alerts in STOPPED.values() for alert in alerts]
    provoked = {alert for alert, _ in caused}
    assert provoked | NOT_HERE.keys() == {alert.name for alert in ALERTS}
    assert not provoked & NOT_HERE.keys()
    for reason, instead in (*NOT_HERE.values(), *SILENT_HERE.values()):
        path, _, name = instead.partition("::")
        assert reason and f"def {name}(" in (ROOT / path).read_text(encoding="utf-8"), instead


@pytest.mark.timeout(900)
def test_real_trouble_fires_its_alert_in_the_real_prometheus_and_ends_it() -> None:
    with troubled_daemons(SCALE, HASTE, INTERVAL) as made:
        fired = set(STANDING)
        with ExitStack() as troubles:
            for trouble in TROUBLES:
                troubles.enter_context(trouble.cause(made))
                fired |= trouble.alerts
            made.wait_firing(fired, made.hour)
            # A scrape that came too late leaves a gap.
            wait_for(lambda: made.queries_without_data() == [], "data for all queries", 20)
            wait_for(
                lambda: made.metrics_without_producer() == [*SILENT_HERE], "all metrics to be produced", 20
            )
        _mend(made)
        made.wait_ended(fired, made.hour)
        for daemon, alerts in ((made.b, STOPPED["b"]), (made.a, STOPPED["a"])):
            assert daemon.stop() == 0
            made.wait_firing(alerts, made.hour)
            daemon.start()
            made.b.wait_connected()
            made.wait_ended(alerts, made.hour)


def _mend(made: TroubledDaemons) -> None:
    """Renew what ends, set the clock, and start site b on a kernel that refuses nothing."""
    made.papers.renew()
    made.configure()
    made.sites.b.namespace.run("ethtool", "-K", "wan0", "gro", "on", "tx-udp-segmentation", "on")
    assert made.odd.stop() == 0 and made.b.stop() == 0
    made.odd.environment, made.b.refusals = {}, ()
    made.a.reload()
    made.odd.start(wait=False)
    made.b.start().wait_connected()
    wait_for(lambda: not _away(made), "both to be scraped again")


def _away(made: TroubledDaemons) -> set[WatchedAlert]:
    """Daemons that Prometheus does not reach: their alerts would end for want of data."""
    found = made.prometheus.query("up == 0")
    return {("up", series["metric"]["instance"]) for series in found} & {("up", ODD), ("up", SITE_B)}
