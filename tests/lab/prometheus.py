"""Debian's Prometheus: promtool, and a server that scrapes daemons of the lab."""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.lab.namespace import Namespace
from tests.lab.processes import Process, run
from tests.lab.waiting import wait_for

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "build" / "prometheus"
START_SECONDS = 30.0


def program(name: str) -> str:
    """The path of `prometheus` or `promtool`, fetched first where it is missing."""
    path = FOLDER / name
    if not path.is_file():
        run("bash", str(ROOT / "scripts" / "prometheus.sh"), seconds=300)
    return str(path)


def promtool(*arguments: str, check: bool = True) -> str:
    """What promtool prints.

    Raises:
        LabError: it failed, and `check` is true.
    """
    return run(program("promtool"), *arguments, seconds=120, check=check)


class Prometheus:
    """A Prometheus in a namespace of the lab, on its loopback. It ends with the namespace."""

    def __init__(self, namespace: Namespace, configuration: Mapping[str, Any], port: int = 9090) -> None:
        self._namespace = namespace
        self._port = port
        self._folder = namespace.directory / f"prometheus-{port}"
        self._folder.mkdir()
        self.file = self._folder / "prometheus.yml"
        self.file.write_text(yaml.safe_dump(dict(configuration), sort_keys=False), encoding="utf-8")
        self.process: Process | None = None

    def start(self) -> Prometheus:
        """Start it, and wait until it answers."""
        self.process = self._namespace.popen(
            program("prometheus"),
            f"--config.file={self.file}",
            f"--storage.tsdb.path={self._folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{self._port}",
            "--storage.tsdb.retention.time=1d",
            "--log.level=warn",
            log="prometheus",
            env={"GOMAXPROCS": "1"},
        )
        wait_for(self._is_ready, "Prometheus to be ready", START_SECONDS)
        return self

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The samples of an instant query; empty: no data."""
        found: list[dict[str, Any]] = self._get("query", query=expression)["result"]
        return found

    def query_range(self, expression: str, start: float, end: float, step: float) -> list[dict[str, Any]]:
        """The series of a range query."""
        answer = self._get("query_range", query=expression, start=start, end=end, step=step)
        found: list[dict[str, Any]] = answer["result"]
        return found

    def firing(self) -> set[tuple[str, str]]:
        """(alert, instance) of all alerts that fire now."""
        return {
            (alert["labels"]["alertname"], alert["labels"].get("instance", ""))
            for alert in self._get("alerts")["alerts"]
            if alert["state"] == "firing"
        }

    def rules(self) -> list[dict[str, Any]]:
        """All rules, with `health` and `lastError`."""
        return [rule for group in self._get("rules")["groups"] for rule in group["rules"]]

    def targets(self) -> list[dict[str, Any]]:
        """What it scrapes, with `health` and `lastError`."""
        found: list[dict[str, Any]] = self._get("targets")["activeTargets"]
        return found

    def _is_ready(self) -> bool:
        try:
            return self._namespace.call(fetch, f"http://127.0.0.1:{self._port}/-/ready") != b""
        except OSError:
            return False

    def _get(self, what: str, **parameters: Any) -> dict[str, Any]:
        query = urllib.parse.urlencode(parameters)
        url = f"http://127.0.0.1:{self._port}/api/v1/{what}?{query}"
        answer: dict[str, Any] = json.loads(self._namespace.call(fetch, url))
        data: dict[str, Any] = answer["data"]
        return data


def fetch(url: str) -> bytes:
    """Raises:
    ConnectionError: no answer, or a refusal. (An HTTPError cannot be handed to another process.)
    """
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            body: bytes = answer.read()
    except OSError as error:
        text = error.read().decode() if isinstance(error, urllib.error.HTTPError) else ""
        raise ConnectionError(f"{url}: {error} {text}") from None
    return body
