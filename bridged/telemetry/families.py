"""Metric families of one scrape, built from the table. A wrong name or label raises a KeyError.

Pure: no I/O.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate

from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Sample

from bridged.dataplane.contract import Histogram
from bridged.telemetry.exposition import WrittenMetric
from bridged.telemetry.metrics_table import METRICS, ROWS, MetricRow


class Families:
    """Collects samples. Repeated series are summed: they never fail a scrape."""

    def __init__(self) -> None:
        self._series: dict[str, dict[tuple[str, ...], float]] = {}
        self._written: dict[str, Sequence[str]] = {}
        self._histograms: dict[str, dict[tuple[str, ...], Histogram]] = {}

    def add(self, name: str, values: tuple[str, ...], number: float) -> None:
        """Add to one series. `values` are in the order of the table's labels."""
        series = self._series_of(name, values)
        series[values] = series.get(values, 0) + number

    def set(self, name: str, values: tuple[str, ...], number: float) -> None:
        """Set one series without summing, for `_info` gauges and timestamps."""
        self._series_of(name, values)[values] = number

    def set_written(self, name: str, lines: Sequence[str]) -> None:
        """Give a family lines of other series, written already (500 peers have 27,000 series)."""
        self._written[ROWS[name].name] = lines

    def observe(self, name: str, values: tuple[str, ...], histogram: Histogram) -> None:
        if ROWS[name].type != "histogram" or len(values) != len(ROWS[name].labels):
            raise KeyError(f"{name} is no histogram with {len(values)} labels")
        self._histograms.setdefault(name, {})[values] = histogram

    def _series_of(self, name: str, values: tuple[str, ...]) -> dict[tuple[str, ...], float]:
        if len(values) != len(ROWS[name].labels):
            raise KeyError(f"{name} has labels {ROWS[name].labels}, not {len(values)} of them")
        return self._series.setdefault(name, {})

    def metrics(self) -> Iterator[Metric]:
        """The families in the table's order, without empty ones."""
        for row in METRICS:
            lines = self._written.get(row.name, ())
            metric = WrittenMetric(row.full_name.removesuffix("_total"), row.help, row.type, lines)
            metric.samples = self._plain_samples(row)
            for values, histogram in self._histograms.get(row.name, {}).items():
                metric.samples += _histogram_samples(
                    row, dict(zip(row.labels, values, strict=True)), histogram
                )
            if metric.samples or lines:
                yield metric

    def _plain_samples(self, row: MetricRow) -> list[Sample]:
        name, labels = row.full_name, row.labels
        return [
            Sample(name, dict(zip(labels, values, strict=True)), number)
            for values, number in self._series.get(row.name, {}).items()
        ]


def _histogram_samples(row: MetricRow, labels: dict[str, str], histogram: Histogram) -> list[Sample]:
    name = row.full_name
    running = list(accumulate(histogram.counts))
    edges = [*(repr(float(bound)) for bound in histogram.bounds), "+Inf"]
    samples = [
        Sample(f"{name}_bucket", {**labels, "le": edge}, count)
        for edge, count in zip(edges, running, strict=True)
    ]
    samples.append(Sample(f"{name}_count", labels, running[-1]))
    samples.append(Sample(f"{name}_sum", labels, histogram.total))
    return samples
