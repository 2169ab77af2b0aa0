"""What a soak looks at: samples of the daemons, pings, logs; and what it makes of them.

The judgements take plain values, so that they can be tested without a soak.
"""

from __future__ import annotations

import json
import re
import signal
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.lab.processes import Process
from tests.lab.topology import Host

MEBIOCTET = 1 << 20
SLOPE_MOST = 1.0
"""Mebioctets of resident memory that ten minutes may add, by a straight line through the samples."""
SLOPE_SPAN_SECONDS = 480.0
"""Over less than this a line says nothing, and only GROWTH_MOST is judged."""
GROWTH_MOST = 8.0
"""Mebioctets more than at the first sample, where the run is too short for a slope."""
OUTAGE_MOST = 1.0

_ANSWER = re.compile(r"^\[(\d+\.\d+)\] .*icmp_seq=(\d+) .*time=", re.MULTILINE)
_MISSING = re.compile(r"^\[(\d+\.\d+)\] no answer yet for icmp_seq=(\d+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the verdict."""

    name: str
    seen: str
    good: bool


@dataclass(frozen=True, slots=True)
class Sample:
    """A daemon at one moment: `at` seconds after the begin, resident bytes, descriptors, threads."""

    at: float
    rss: int
    descriptors: int
    threads: int


def sample_of(pid: int, at: float) -> Sample:
    """Raises OSError where the process is gone."""
    found: dict[str, int] = {}
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name in ("VmRSS", "Threads"):
            found[name] = int(value.split()[0])
    descriptors = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return Sample(at, found["VmRSS"] * 1024, descriptors, found["Threads"])


def slope_per_ten_minutes(samples: Sequence[Sample]) -> float:
    """Mebioctets that a least-squares line through the samples gains in ten minutes; 0 for less than two."""
    if len(samples) < 2:
        return 0.0
    mean_at = sum(sample.at for sample in samples) / len(samples)
    mean_rss = sum(sample.rss for sample in samples) / len(samples)
    spread = sum((sample.at - mean_at) ** 2 for sample in samples)
    common = sum((sample.at - mean_at) * (sample.rss - mean_rss) for sample in samples)
    return common / spread * 600 / MEBIOCTET if spread else 0.0


def judge_samples(name: str, samples: Sequence[Sample], warm_up: float) -> list[Check]:
    """Memory, descriptors and threads of one daemon after `warm_up` seconds."""
    settled = [sample for sample in samples if sample.at >= warm_up]
    if len(settled) < 3:
        return [Check(f"{name}: samples", f"only {len(settled)} after the warm-up", False)]
    span = settled[-1].at - settled[0].at
    first, last = settled[0].rss / MEBIOCTET, settled[-1].rss / MEBIOCTET
    seen = f"{first:.1f} → {last:.1f} MiB in {span / 60:.1f} min"
    if span >= SLOPE_SPAN_SECONDS:
        slope = slope_per_ten_minutes(settled)
        memory = Check(f"{name}: memory", f"{seen}, {slope:+.2f} MiB per 10 min", slope < SLOPE_MOST)
    else:
        memory = Check(f"{name}: memory", f"{seen} (too short for a slope)", last - first < GROWTH_MOST)
    descriptors = [sample.descriptors for sample in settled]
    threads = [sample.threads for sample in settled]
    return [
        memory,
        Check(f"{name}: descriptors", _range_of(descriptors), not has_grown(descriptors)),
        Check(f"{name}: threads", _range_of(threads), not has_grown(threads)),
    ]


def has_grown(values: Sequence[int]) -> bool:
    """The last third is above all of the first third: not a passing peak, but a leak."""
    third = max(1, len(values) // 3)
    return min(values[-third:]) > max(values[:third])


def _range_of(values: Sequence[int]) -> str:
    return f"{values[0]} first, {min(values)} to {max(values)}, {values[-1]} last"


class Ping:
    """A ping that runs beside the soak. `moves`: the site in its way whose address changes, or nothing."""

    def __init__(self, name: str, host: Host, target: str, interval_seconds: float, moves: bool) -> None:
        self.name = name
        self.moves = moves
        self.interval_seconds = interval_seconds
        self._process: Process = host.namespace.popen(
            *("ping", "-n", "-D", "-O", "-i", str(interval_seconds), target), log="ping"
        )

    def stop(self) -> None:
        if self._process.running:
            self._process.stop(signal.SIGINT)

    def answered(self) -> int:
        return len({number for _, number in _ANSWER.findall(self._process.output())})

    def lost(self) -> list[float]:
        """Unix times at which questions without an answer were noticed, after `stop`."""
        return lost_in(self._process.output())


def lost_in(output: str) -> list[float]:
    """Of `ping -D -O`: when each question was missed that nobody answered later either."""
    answered = {number for _, number in _ANSWER.findall(output)}
    return [float(at) for at, number in _MISSING.findall(output) if number not in answered]


def stray_losses(lost: Iterable[float], changes: Iterable[float], late: float) -> list[float]:
    """Losses that are not within `late` seconds after one of the changes; all are Unix times."""
    allowed = list(changes)
    return [at for at in lost if not any(change <= at <= change + late for change in allowed)]


def judge_pings(ping: Ping, changes: Iterable[float]) -> Check:
    """Lost ones are by design only within OUTAGE_MOST of a change of the address in the ping's way."""
    lost, allowed = ping.lost(), list(changes) if ping.moves else []
    # A question counts as missed one interval after it was asked.
    stray = stray_losses(lost, allowed, OUTAGE_MOST + ping.interval_seconds)
    answered = ping.answered()
    seen = f"{answered} answered, {len(lost)} lost"
    if allowed:
        seen += f" ({len(lost) - len(stray)} by {len(allowed)} changes of address)"
    if stray:
        seen += f"; not by design at {', '.join(f'{at:.1f}' for at in stray[:5])}"
    return Check(f"ping {ping.name}", seen, answered > 0 and not stray)


def judge_log(name: str, text: str, expected: frozenset[str]) -> Check:
    """Of a daemon that logs JSON lines: warnings and worse whose event is not `expected`; other lines."""
    found: Counter[str] = Counter()
    by_design: Counter[str] = Counter()
    for line in text.splitlines():
        try:
            entry = json.loads(line)
            level, event = str(entry["level"]), str(entry["event"])
        except (ValueError, KeyError, TypeError):
            found[f"not a log line: {line[:120]}"] += 1
            continue
        if level in ("warning", "error", "critical"):
            (by_design if event in expected else found)[f"{level} {event}"] += 1
    parts = [f"{count} × {what}" for what, count in found.most_common(6)] or ["nothing"]
    if by_design:
        parts.append("by design: " + ", ".join(f"{count} × {what}" for what, count in by_design.items()))
    return Check(f"{name}: log", "; ".join(parts), not found)
