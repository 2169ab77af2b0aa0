"""Grafana's files: its own typed model of a dashboard takes every key, and references lead somewhere."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from bridged.telemetry.metrics_table import METRICS
from scripts.monitoring.grafana import DATASOURCE_FILE, PROVIDER_FILE, dashboard_files
from scripts.monitoring.panels import PAGES, DashboardPage
from scripts.monitoring.recordings import RECORDINGS

ROOT = Path(__file__).parents[3]
FILES = dashboard_files()
NEWER = re.compile(r"/panels/\d+/options/(percentChangeColorMode|showPercentChange|wideLayout)")
"""Options of Grafana 11, which the published model for Grafana 10 does not have."""
VARIABLE = re.compile(r"\$(\w+)")
METRIC = re.compile(r"\b(?:[a-z_]+:)?(?:bridged|process)_[a-z0-9_]+(?::\w+)?\b")
GRAPH = re.compile(r"\*([A-Z][^*]+)\* of the dashboard \*([^*]+)\*")
BUILT_IN = {"__rate_interval", "__all", "datasource"}

LEGEND = {"displayMode", "placement", "showLegend", "calcs"}
REQUIRED: dict[str, dict[str, set[str]]] = {
    "timeseries": {
        "options": {"legend", "tooltip"},
        "options/legend": LEGEND,
        "options/tooltip": {"mode", "sort"},
    },
    "state-timeline": {
        "options": {"showValue", "rowHeight", "legend", "tooltip"},
        "options/legend": LEGEND,
        "options/tooltip": {"mode", "sort"},
    },
    "stat": {
        "options": {
            *("graphMode", "colorMode", "justifyMode", "textMode", "wideLayout", "showPercentChange"),
            *("reduceOptions", "percentChangeColorMode", "orientation"),
        },
        "options/reduceOptions": {"calcs"},
    },
    "table": {
        "options": {"frameIndex", "showHeader"},
        "fieldConfig/defaults/custom": {"align", "inspect"},
    },
}
"""Kind of panel -> path -> the keys that must be there, which the model does not say.

Source: `required` in jsonschema/ of grafana/grafana-foundation-sdk, commit f178d5a (Apache-2.0).
"""
REQUIRED_OF_ALL = {"fieldConfig": {"defaults", "overrides"}, "gridPos": {"h", "w", "x", "y"}}

plugins.register_default_plugins()


def differences(ours: Any, theirs: Any, path: str = "") -> Iterator[str]:
    """Keys and values of ours that Grafana's model lost or changed."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key, value in ours.items():
            if key in theirs:
                yield from differences(value, theirs[key], f"{path}/{key}")
            else:
                yield f"{path}/{key}"
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for number, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            yield from differences(one, other, f"{path}/{number}")
    elif ours != theirs:
        yield f"{path}: {ours!r} became {theirs!r}"


def through_grafana(document: dict[str, Any]) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(json.dumps(Dashboard.from_json(document), cls=JSONEncoder))
    return read


@pytest.mark.parametrize("name", sorted(FILES))
def test_the_model_of_grafana_knows_every_key(name: str) -> None:
    document = json.loads(FILES[name])
    lost = differences(document, through_grafana(document))
    assert [path for path in lost if not NEWER.fullmatch(path)] == []


@pytest.mark.parametrize("name", sorted(FILES))
def test_what_the_schema_of_grafana_requires_is_there(name: str) -> None:
    document = json.loads(FILES[name])
    assert {"schemaVersion", "templating", "annotations"} <= document.keys()
    assert all({"type", "name"} <= variable.keys() for variable in document["templating"]["list"])
    for panel in document["panels"]:
        assert all("expr" in target for target in panel["targets"])
        for path, keys in {**REQUIRED_OF_ALL, **REQUIRED[panel["type"]]}.items():
            part = panel
            for step in path.split("/"):
                part = part[step]
            assert keys <= part.keys(), f"{panel['title']}: {path}"


@pytest.mark.parametrize(
    "change", [{"titel": "x"}, {"refresh": 5.5, "gridPoss": {}}], ids=["a misspelt key", "another"]
)
def test_the_model_of_grafana_finds_a_key_that_it_does_not_have(change: dict[str, Any]) -> None:
    document = json.loads(FILES["bridged-fleet.json"]) | change
    assert list(differences(document, through_grafana(document)))


@pytest.mark.parametrize("name", sorted(FILES))
def test_panels_do_not_overlap_and_have_numbers_of_their_own(name: str) -> None:
    panels = json.loads(FILES[name])["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for one, other in combinations((panel["gridPos"] for panel in panels), 2):
        apart = (
            one["x"] + one["w"] <= other["x"]
            or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"]
            or other["y"] + other["h"] <= one["y"]
        )
        assert apart
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in panels)


@pytest.mark.parametrize("name", sorted(FILES))
def test_queries_use_variables_and_metrics_that_exist(name: str) -> None:
    document = json.loads(FILES[name])
    variables = {variable["name"] for variable in document["templating"]["list"]} | BUILT_IN
    known = {row.full_name for row in METRICS} | {row.name for row in RECORDINGS}
    known |= {f"{row.full_name}_{part}" for row in METRICS for part in ("bucket", "sum", "count")}
    known |= {"process_resident_memory_bytes"}
    expressions = [target["expr"] for panel in document["panels"] for target in panel["targets"]]
    expressions += [variable["query"] for variable in document["templating"]["list"]]
    for expression in expressions:
        assert set(VARIABLE.findall(expression)) <= variables, expression
        assert set(METRIC.findall(expression)) <= known, expression


def test_provisioning_files_are_what_grafana_reads() -> None:
    (source,) = yaml.safe_load(DATASOURCE_FILE)["datasources"]
    assert (source["type"], source["access"]) == ("prometheus", "proxy")
    (provider,) = yaml.safe_load(PROVIDER_FILE)["providers"]
    assert provider["type"] == "file" and provider["options"]["path"]


def test_graphs_that_runbooks_name_exist() -> None:
    titles = {(panel.title, page.title) for page in PAGES for panel in page.panels}
    named = {
        pair
        for page in (ROOT / "docs" / "runbooks").glob("*.md")
        for pair in GRAPH.findall(" ".join(page.read_text(encoding="utf-8").split()))
    }
    assert len(named) > 5 and named <= titles


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.uid)
def test_the_picture_of_a_dashboard_shows_all_its_panels_with_data(page: DashboardPage) -> None:
    picture = (ROOT / "docs" / "pictures" / f"{page.uid}.svg").read_text(encoding="utf-8")
    assert [panel.title for panel in page.panels if f">{panel.title}<" not in picture] == []
    assert "no data" not in picture, "draw it again: make pictures"
