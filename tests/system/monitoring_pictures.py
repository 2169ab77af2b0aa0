"""Draws docs/pictures/*.svg: the dashboards, while troubles come and go at two sites (`make pictures`)."""

from __future__ import annotations

import time
from pathlib import Path

from scripts.monitoring.panels import PAGES, Query
from scripts.monitoring.pictures import Answer, draw
from tests.lab import wait_for
from tests.system.monitoring_lab import WatchedSites, watched_sites

ROOT = Path(__file__).parents[2]
SCALE = 240.0
POINTS = 48


def main() -> None:
    with watched_sites(SCALE, "250ms") as watched:
        wait_for(lambda: len(watched.prometheus.query("up == 1")) == 2, "both targets to be up")
        began = time.time()
        _live(watched)
        for page in PAGES:
            path = ROOT / "docs" / "pictures" / f"{page.uid}.svg"
            path.parent.mkdir(exist_ok=True)
            path.write_text(draw(page, lambda query: _ask(watched, query, began)), encoding="utf-8")
            print(path)


def _live(watched: WatchedSites) -> None:
    """Traffic, then a lossy line, then a peer that is gone for a while, then traffic again."""
    host, far = watched.sites.b.host.namespace, watched.sites.a.host.ipv4
    host.popen("ping", "-f", "-i", "0.005", "-s", "900", far)
    for loss in (0.0, 0.1, 0.0):
        watched.relay.change(loss=loss, only="data")
        _wait(watched.hour / 2)
    watched.b.stop()
    _wait(watched.hour / 3)
    watched.b.start().wait_connected()
    _wait(watched.hour / 2)


def _wait(seconds: float) -> None:
    """A picture shows time that passes."""
    until = time.monotonic() + seconds
    wait_for(lambda: time.monotonic() > until, "time to pass", seconds + 1)


def _ask(watched: WatchedSites, query: Query, began: float) -> Answer:
    now = time.time()
    return watched.prometheus.query_range(watched.panel_expression(query), began, now, (now - began) / POINTS)


if __name__ == "__main__":
    main()
