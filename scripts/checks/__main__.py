"""Run every check in the project's folder. Exit status 1 and one line for each finding, or 0."""

from __future__ import annotations

import gc
import sys
from pathlib import Path

from scripts.checks import endings, metric_families, names, only_in_tests, producers, sizes, time_bounds
from scripts.checks.sources import Sources


def main() -> int:
    gc.disable()
    sources = Sources.read(Path())
    findings = [
        *sizes.check(sources),
        *names.check(sources),
        *endings.check(sources),
        *producers.check(sources),
        *metric_families.check(sources),
        *only_in_tests.check(sources),
        *time_bounds.check(sources),
    ]
    for finding in findings:
        print(finding, file=sys.stderr)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
