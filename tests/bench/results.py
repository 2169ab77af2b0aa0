"""What the bench has found: pairs, ratios, bars; as JSON for programs and as a table for people."""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Table

from tests.bench.measures import Measure, Reading
from tests.lab.host_settings import CONGESTION_ALWAYS
from tests.lab.openvpn import openvpn_version

Pairs = list[tuple[float, float]]
GENERATOR_MARGIN = 1.1


@dataclass(slots=True)
class Result:
    """All pairs (ours, theirs) of one measure, against one peer, at one WAN MTU.

    `judge` decides by the pairs instead of the ratio's median, where that is not the point; `judged_by` is
    its wording for the table. `details` are further figures of each pair.
    """

    measure: Measure
    dataplane: str
    peer: str
    wan_mtu: int
    pairs: Pairs = field(default_factory=list)
    wan_offload: str = "on"
    details: list[dict[str, dict[str, float]]] = field(default_factory=list)
    judge: Callable[[Pairs], bool] | None = None
    judged_by: str = ""
    extra: dict[str, Any] = field(default_factory=dict)

    def add(self, ours: Reading, theirs: Reading) -> None:
        self.pairs.append((ours.value, theirs.value))
        self.details.append({"ours": dict(ours.details), "theirs": dict(theirs.details)})

    @property
    def ratios(self) -> list[float]:
        return [ours / theirs if theirs else float("inf") for ours, theirs in self.pairs]

    @property
    def ratio_median(self) -> float:
        return statistics.median(self.ratios)

    @property
    def bar(self) -> float | None:
        return self.measure.bar_for(self.dataplane, self.peer)

    @property
    def passes(self) -> bool:
        """Also where there is no bar."""
        if self.judge is not None:
            return self.judge(self.pairs)
        return self.bar is None or self.measure.reaches(self.ratio_median, self.bar)

    @property
    def verdict(self) -> str:
        """The bar, and whether it is met."""
        word = "met" if self.passes else "MISSED"
        if self.judge is not None:
            return f"{self.judged_by} {word}"
        if self.bar is None:
            return ""
        return f"{'≥' if self.measure.higher_is_better else '≤'} {self.bar:.3g} {word}"

    def generator_limited(self) -> list[str]:
        """Whose figure may be the load generator's own limit: offered was never well above what arrived."""
        found = []
        for position, side in enumerate(("ours", "theirs")):
            for pair, detail in zip(self.pairs, self.details, strict=False):
                most = detail[side].get("offered_most")
                arrived = detail[side].get("packets", pair[position])
                if most is not None and most < GENERATOR_MARGIN * arrived:
                    found.append(side)
                    break
        return found

    def document(self) -> dict[str, Any]:
        digits = max(1, self.measure.digits)
        document = {
            "measure": self.measure.name,
            "unit": self.measure.unit,
            "dataplane": self.dataplane,
            "peer": self.peer,
            "wan_mtu": self.wan_mtu,
            "pairs": [[_kept(ours, digits), _kept(theirs, digits)] for ours, theirs in self.pairs],
            "ratio_median": round(self.ratio_median, 3),
            "wan_offload": self.wan_offload,
            **self.extra,
        }
        if self.bar is not None or self.judge is not None:
            document |= {"bar": self.bar if self.judge is None else self.judged_by, "met": self.passes}
        if any(part for detail in self.details for part in detail.values()):
            document["details"] = [_rounded(detail) for detail in self.details]
        if any("offered_most" in side for detail in self.details for side in detail.values()):
            document["generator_limited"] = self.generator_limited()
        return document


def _kept(value: float, digits: int) -> float:
    """Rounded, but to no less than three significant digits: others divide pairs by each other."""
    return round(value, max(digits, 2 - math.floor(math.log10(value)))) if value > 0 else value


def _rounded(detail: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    return {side: {name: round(value, 3) for name, value in part.items()} for side, part in detail.items()}


def exit_status(results: list[Result], *, enforce: bool) -> int:
    """1 where a bar is missed and bars are enforced."""
    return 1 if enforce and not all(result.passes for result in results) else 0


def table_of(results: list[Result]) -> Table:
    tcp = " ".join(sorted({result.extra["tcp"] for result in results if "tcp" in result.extra}))
    title = f"ours : theirs (OpenVPN {openvpn_version()}), {machine()}"
    table = Table(title=f"{title}, TCP {tcp}" if tcp else title)
    for name in (
        *("measure", "data plane", "peer", "WAN MTU", "WAN offload", "ours", "theirs"),
        *("ratio of each pair", "median", "bar"),
    ):
        table.add_column(name)
    for result in results:
        measure = result.measure
        ours = statistics.median(pair[0] for pair in result.pairs)
        theirs = statistics.median(pair[1] for pair in result.pairs)
        table.add_row(
            measure.name,
            result.dataplane,
            result.peer,
            str(result.wan_mtu),
            result.wan_offload,
            f"{ours:,.{measure.digits}f} {measure.unit}",
            f"{theirs:,.{measure.digits}f} {measure.unit}",
            " ".join(f"{ratio:.2f}" for ratio in result.ratios),
            f"{result.ratio_median:.2f}",
            result.verdict,
        )
    return table


def notes_on(results: list[Result]) -> list[str]:
    """What a reader of the table must know beside it."""
    wanted = sorted({result.extra["tcp_wanted"] for result in results if "tcp_wanted" in result.extra})
    return [f"this kernel has no TCP {name}: all figures are with {CONGESTION_ALWAYS}" for name in wanted] + [
        f"{result.measure.name} at WAN MTU {result.wan_mtu}, offload {result.wan_offload}, against "
        f"{result.peer}: the generator may have been the limit of {' and '.join(limited)}"
        for result in results
        if (limited := result.generator_limited())
    ]


def machine() -> str:
    """Processor, cores and kernel: without them a number says nothing."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown"
    )
    return f"{os.cpu_count()} × {model}, Linux {os.uname().release}"
