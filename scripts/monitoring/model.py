"""What an alert and a recording rule are, and how durations are scaled. Pure: no I/O."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

Severity = Literal["critical", "warning", "info"]
Series = Mapping[str, str]
"""A series -> its values, one a minute, in the notation of `promtool test rules`."""

MINUTE: Final = 60
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR
_UNITS: Final = {"s": 1, "m": MINUTE, "h": HOUR, "d": DAY}
_RANGE = re.compile(r"(\[|offset )(\d+)([smhd])")


@dataclass(frozen=True, slots=True)
class Trial:
    """How the unit test makes an alert fire and end.

    `series`: what Prometheus scrapes. It fires with `labels` after `fires` minutes, and is over after `ends`.
    """

    series: Series
    labels: Mapping[str, str]
    fires: int
    ends: int


@dataclass(frozen=True, slots=True)
class Alert:
    """One alerting rule. `wait`: seconds that the trouble must last. `summary` may use `{{ $labels.X }}`."""

    name: str
    expression: str
    wait: int
    severity: Severity
    summary: str
    trial: Trial

    @property
    def runbook(self) -> str:
        """The page's name under docs/runbooks, without its ending. `…Soon` shares it."""
        words = re.findall(r"[A-Z][a-z]*", self.name.removeprefix("Bridged").removesuffix("Soon"))
        return "-".join(words).lower()


@dataclass(frozen=True, slots=True)
class Recording:
    """One recording rule."""

    name: str
    expression: str
    labels: Mapping[str, str] = field(default_factory=dict)


def scaled(expression: str, scale: float, haste: float = 1) -> str:
    """The expression with ranges and offsets made shorter by `scale`, those of an hour also by `haste`."""
    if scale == 1:
        return expression

    def shorter(found: re.Match[str]) -> str:
        seconds = int(found[2]) * _UNITS[found[3]]
        return found[1] + duration(seconds, scale * haste if seconds >= HOUR else scale)

    return _RANGE.sub(shorter, expression)


def duration(seconds: int, scale: float = 1) -> str:
    """As Prometheus writes it: `5m`, or whole milliseconds where it is scaled."""
    if scale != 1:
        return f"{max(1, round(seconds * 1000 / scale))}ms"
    for unit in ("d", "h", "m"):
        if seconds and seconds % _UNITS[unit] == 0:
            return f"{seconds // _UNITS[unit]}{unit}"
    return f"{seconds}s"
