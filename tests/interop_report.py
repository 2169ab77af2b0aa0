"""The report of the interop matrix: what was tried with which OpenVPN, and the result, as a table.

A plugin of the process that the test workers belong to. It writes nothing where no cell ran.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.interop.matrix import heading

FILE = Path(__file__).parents[1] / "build" / "interop-matrix.md"
PROPERTY = "interop cell"


class InteropReport:
    """Collects the cells that ran; `record` in a test names them."""

    def __init__(self) -> None:
        self.rows: dict[str, tuple[list[str], str]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        words = dict(report.user_properties).get(PROPERTY)
        if words is None or (report.passed and report.when != "call"):
            return
        result = "**failed**" if report.failed else f"passed, {report.duration:.1f} s"
        self.rows[report.nodeid] = (str(words).split("|"), result)

    def text(self) -> str:
        """The table in Markdown."""
        failed = sum(result.startswith("**") for _, result in self.rows.values())
        names = [*heading(), "version", "result"]
        lines = ["# Interop matrix", "", f"{len(self.rows)} cells, {failed} failed.", ""]
        lines += [f"| {' | '.join(names)} |", f"|{' --- |' * len(names)}"]
        lines += [f"| {' | '.join([*words, result])} |" for words, result in sorted(self.rows.values())]
        return "\n".join(lines) + "\n"

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.rows:
            FILE.parent.mkdir(exist_ok=True)
            FILE.write_text(self.text())
            terminalreporter.write_line(f"interop matrix: {len(self.rows)} cells, see {FILE}")
