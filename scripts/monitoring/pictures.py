"""Draws a dashboard as SVG from the answers of Prometheus, for the documents. Pure: no I/O.

It is a sketch of what Grafana shows: the same panels in the same places, from the same queries.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from html import escape
from math import isfinite
from typing import Any, Final

from scripts.monitoring.grafana import dashboard_text
from scripts.monitoring.panels import DashboardPage, DashboardPanel, Query

COLUMN: Final = 40
ROW: Final = 20
_GAP: Final = 4
_COLOURS: Final = ("#73bf69", "#f2cc0c", "#5794f2", "#ff9830", "#b877d9", "#f2495c", "#37872d", "#8ab8ff")
_LEGENDS_MAX: Final = 4
_SERIES_MAX: Final = 12
_UNITS: Final = {
    "percentunit": (100.0, " %"),
    "bps": (1e-3, " kbit/s"),
    "bytes": (2.0**-20, " MiB"),
    "s": (1.0, " s"),
}

Answer = Sequence[Mapping[str, Any]]
"""The series of a range query: `metric`, and `values` of (time, text)."""


def draw(page: DashboardPage, ask: Callable[[Query], Answer]) -> str:
    """The whole dashboard. `ask` gives the answer of one query over the time to be shown."""
    places = [panel["gridPos"] for panel in json.loads(dashboard_text(page))["panels"]]
    height = max(place["y"] + place["h"] for place in places) * ROW + 30
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {24 * COLUMN} {height}" '
        'font-family="sans-serif" font-size="10">',
        '<rect width="100%" height="100%" fill="#111217"/>',
        f'<text x="8" y="20" fill="#fff" font-size="15">{escape(page.title)}</text>',
    ]
    for panel, place in zip(page.panels, places, strict=True):
        x, y = place["x"] * COLUMN + _GAP / 2, place["y"] * ROW + 30
        w, h = place["w"] * COLUMN - _GAP, place["h"] * ROW - _GAP
        parts.append(
            f'<g transform="translate({x:g},{y:g})"><rect width="{w}" height="{h}" rx="2" fill="#181b1f"/>'
        )
        parts.append(f'<text x="8" y="14" fill="#ccccdc">{escape(panel.title)}</text>')
        series = [(query, one) for query in panel.queries for one in ask(query)][:_SERIES_MAX]
        parts += _inside(panel, series, w, h)
        parts.append("</g>")
    return "\n".join([*parts, "</svg>"]) + "\n"


def _inside(
    panel: DashboardPanel, series: list[tuple[Query, Mapping[str, Any]]], w: int, h: int
) -> list[str]:
    if not series:
        return [f'<text x="{w / 2}" y="{h / 2}" fill="#888">no data</text>']
    if panel.kind == "stat":
        value = _words(_numbers(series[0][1])[-1], panel)
        return [
            f'<text x="{w / 2}" y="{h / 2 + 18}" fill="{_COLOURS[0]}" font-size="26" '
            f'text-anchor="middle">{value}</text>'
        ]
    if panel.kind == "table":
        rows = [
            ", ".join(
                f"{key}={value}" for key, value in one["metric"].items() if key not in ("__name__", "job")
            )
            for _, one in series
        ]
        shown = [text[: w // 5] or "none" for text in rows[: (h - 20) // 14]]
        return [
            f'<text x="8" y="{32 + 14 * n}" fill="#ccccdc">{escape(text)}</text>'
            for n, text in enumerate(shown)
        ]
    if panel.kind == "state-timeline":
        return _states(series, w, h)
    return _lines(panel, series, w, h)


def _states(series: list[tuple[Query, Mapping[str, Any]]], w: int, h: int) -> list[str]:
    parts = []
    step = (h - 28) / len(series)
    for number, (query, one) in enumerate(series):
        values = _numbers(one)
        y, width = 22 + number * step, (w - 160) / len(values)
        parts.append(
            f'<text x="8" y="{y + step / 2 + 3:.0f}" fill="#ccccdc">{escape(_name(query, one)[:24])}</text>'
        )
        begin = 0
        for at in range(1, len(values) + 1):
            if at == len(values) or values[at] != values[begin]:
                colour = _COLOURS[0] if values[begin] else _COLOURS[5]
                parts.append(
                    f'<rect x="{150 + begin * width:.1f}" y="{y:.1f}" width="{(at - begin) * width:.1f}" '
                    f'height="{step * 0.8:.1f}" fill="{colour}"/>'
                )
                begin = at
    return parts


def _lines(panel: DashboardPanel, series: list[tuple[Query, Mapping[str, Any]]], w: int, h: int) -> list[str]:
    lists = [_numbers(one) for _, one in series]
    most = max(max(values) for values in lists) or 1.0
    top, bottom = 22, h - 22
    parts = [f'<text x="{w - 8}" y="14" fill="#888" text-anchor="end">{_words(most, panel)}</text>']
    times = [float(at) for _, one in series for at, _ in one["values"]]
    first, span = min(times), max(max(times) - min(times), 1e-9)
    for number, (_, one) in enumerate(series):
        points = " ".join(
            f"{8 + (float(at) - first) / span * (w - 16):.0f},"
            f"{bottom - _number(text) / most * (bottom - top):.0f}"
            for at, text in one["values"]
        )
        colour = _COLOURS[number % len(_COLOURS)]
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.3"/>')
    x = 8.0
    for number, (query, one) in enumerate(series[:_LEGENDS_MAX]):
        name = _name(query, one)[:24]
        parts.append(
            f'<text x="{x:.0f}" y="{h - 6}" fill="{_COLOURS[number % len(_COLOURS)]}">{escape(name)}</text>'
        )
        x += 14 + 5.2 * len(name)
    return parts


def _numbers(one: Mapping[str, Any]) -> list[float]:
    return [_number(text) for _, text in one["values"]]


def _number(text: str) -> float:
    value = float(text)
    return max(value, 0.0) if isfinite(value) else 0.0


def _words(value: float, panel: DashboardPanel) -> str:
    if panel.unit == "bool":
        return "yes" if value else "no"
    if panel.unit == "s" and value > 86_400:
        return f"{value / 86_400:.1f} days"
    factor, unit = _UNITS.get(panel.unit, (1.0, ""))
    return f"{value * factor:.3g}{unit}"


def _name(query: Query, one: Mapping[str, Any]) -> str:
    name = query.legend
    for key, value in one["metric"].items():
        name = name.replace(f"{{{{{key}}}}}", str(value))
    return name
