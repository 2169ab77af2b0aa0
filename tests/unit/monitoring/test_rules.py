"""The rules for Prometheus: promtool tries them, each alert has a trial and a runbook."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from bridged.telemetry.metrics_table import METRICS
from scripts.monitoring.__main__ import files
from scripts.monitoring.alerts import ALERTS
from scripts.monitoring.model import Alert, Recording
from scripts.monitoring.recordings import RECORDINGS
from scripts.monitoring.rules import RULES, RUNBOOKS, rules_text
from tests.lab.prometheus import promtool
from tests.lab.waiting import LabError
from tests.unit.documents.documents import tracked

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "deploy" / "prometheus"
PAGES = sorted(page for page in (ROOT / "docs" / "runbooks").glob("*.md") if page.name != "README.md")
METRIC = re.compile(r"\b((?:[a-z_]+:)?bridged_[a-z0-9_]+(?::\w+)?|instance:\w+(?::\w+)?|up)\b(?=[{\[\s)]|$)")
CODE = re.compile(r"`([a-z]+(?:_[a-z]+)+)`")


@pytest.mark.parametrize("name", sorted(files()))
def test_generated_files_are_up_to_date(name: str) -> None:
    assert (ROOT / name).read_text(encoding="utf-8") == files()[name], (
        f"{name} is behind; run `make generate`"
    )


def test_prometheus_takes_the_rules_and_the_scrape_configuration() -> None:
    assert f"{len(ALERTS) + len(RECORDINGS)} rules found" in promtool("check", "rules", str(FOLDER / RULES))
    promtool("check", "config", str(FOLDER / "prometheus.yml"))


def test_each_alert_fires_for_its_trouble_and_ends_after_it() -> None:
    assert "SUCCESS" in promtool("test", "rules", str(FOLDER / "bridged.rules_test.yml"))


def test_each_alert_has_a_unit_test_in_which_it_fires_and_ends() -> None:
    document = yaml.safe_load((FOLDER / "bridged.rules_test.yml").read_text(encoding="utf-8"))
    moments = [moment for test in document["tests"] for moment in test["alert_rule_test"]]
    for alert in ALERTS:
        expected = [bool(each["exp_alerts"]) for each in moments if each["alertname"] == alert.name]
        assert sorted(expected) == [False, True], alert.name


def test_the_unit_tests_find_a_wrong_rule(tmp_path: Path) -> None:
    text = rules_text().replace("bridged_tunnel_up == 0", "bridged_tunnel_up == 2")
    (tmp_path / RULES).write_text(text, encoding="utf-8")
    (tmp_path / "test.yml").write_text((FOLDER / "bridged.rules_test.yml").read_text(encoding="utf-8"))
    with pytest.raises(LabError, match="BridgedTunnelDown"):
        promtool("test", "rules", str(tmp_path / "test.yml"))


def test_rules_use_only_metrics_that_exist() -> None:
    known = {row.full_name for row in METRICS} | {row.name for row in RECORDINGS} | {"up"}
    known |= {f"{row.full_name}_bucket" for row in METRICS if row.type == "histogram"}
    rules: tuple[Alert | Recording, ...] = (*ALERTS, *RECORDINGS)
    for rule in rules:
        names = set(METRIC.findall(rule.expression))
        assert names and names <= known, rule.name


def test_scaled_rules_differ_in_times_only(tmp_path: Path) -> None:
    (tmp_path / "scaled.yml").write_text(rules_text(300), encoding="utf-8")
    promtool("check", "rules", str(tmp_path / "scaled.yml"))
    times = re.compile(r"\[\w+\]|for: \w+|offset \w+")
    plain, scaled = (times.sub("", rules_text(scale)) for scale in (1, 300))
    assert plain == scaled
    assert "[1000ms]" in rules_text(300) and "for: 400ms" in rules_text(300)


def test_each_alert_has_severity_summary_and_a_runbook_and_each_runbook_an_alert() -> None:
    groups = yaml.safe_load(rules_text())["groups"]
    alerts = [rule for group in groups for rule in group["rules"] if "alert" in rule]
    for rule in alerts:
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        assert rule["annotations"]["summary"]
    urls = {rule["annotations"]["runbook_url"].removeprefix(RUNBOOKS) for rule in alerts}
    assert urls == {page.name for page in PAGES}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_runbook_says_what_it_means_what_to_look_at_and_what_to_do(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    title = text.splitlines()[0].removeprefix("# ")
    assert page.stem in {alert.runbook for alert in ALERTS if alert.name == title}
    meaning, look, do = re.split(r"\n## (?:Look at|Do)\n", text)
    assert len(meaning.split()) > 10
    assert "\n- " in look and "\n- " in do


def test_names_that_runbooks_quote_are_names_of_the_program() -> None:
    program = "\n".join(
        file.read_text(encoding="utf-8")
        for file in tracked(".py", ".rs")
        if file.relative_to(ROOT).parts[0] in ("bridged", "native")
    )
    quoted = {name for page in PAGES for name in CODE.findall(page.read_text(encoding="utf-8"))}
    assert len(quoted) > 30
    assert {name for name in quoted if not re.search(rf"\b{name}\b", program)} == set()
