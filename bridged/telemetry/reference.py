"""Writes the reference pages from the tables: docs/reference/metrics.md, docs/reference/configuration.md
and config/bridged.schema.json.

Run `python -m bridged.telemetry.reference` in the project's folder. A test finds outdated pages.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Final

from bridged.configuration import schema_json
from bridged.configuration.reference import configuration_page
from bridged.telemetry.labels import (
    DISCONNECT_REASONS,
    DROP_REASONS,
    FDB_CHANGES,
    HANDSHAKE_OUTCOMES,
    MTU_EVENTS,
)
from bridged.telemetry.metrics_table import EXTERNAL_FAMILIES, METRICS

_INTRODUCTION: Final = """\
# Metrics

Generated from `bridged/telemetry/metrics_table.py` by `python -m bridged.telemetry.reference`; edit that.

Prometheus reads them at `metrics.listen` (default: http://127.0.0.1:9743/metrics). Except on loopback, every
scrape needs `Authorization: Bearer` with the token of `metrics.bearer_token_file`.
[Troubleshooting](../troubleshooting.md) says which metrics show which problem. [Glossary](../glossary.md)

- `direction`: `receive`: decrypted from the peer; `transmit`: encrypted for the peer.
- A frame is one Ethernet frame of the LAN, counted after segmentation and before coalescing, without FCS and
  overhead.
- Counters continue over reconnects and never fall while the process lives. Fixed label values start at 0;
  unknown values are absent.
- `peer` is the configured name, or the name in the authenticated certificate (`metrics.peer_label`). Peers
  beyond `metrics.max_peers` are summed in `peer="_other"`: gauges are sums, ratios and timestamps are maxima.
"""


def metrics_page() -> str:
    """The page docs/reference/metrics.md."""
    lines = [_INTRODUCTION, "## Table", "", "| name | type | labels | meaning |", "| --- | --- | --- | --- |"]
    for row in METRICS:
        labels = ", ".join(f"`{label}`" for label in row.labels)
        lines.append(f"| `{row.full_name}` | {row.type} | {labels} | {row.help} |")
    lines += [f"| `{name}` |  |  | {text} |" for name, text in EXTERNAL_FAMILIES]
    lines += ["", "## Label values", ""]
    for title, values in (
        ("Handshake outcomes", HANDSHAKE_OUTCOMES),
        ("Reasons of a disconnect", DISCONNECT_REASONS),
        ("Changes of the forwarding database", FDB_CHANGES),
        ("MTU events", MTU_EVENTS),
    ):
        lines.append(f"- {title}: {', '.join(f'`{value}`' for value in values)}.")
    lines += ["", "## Drop reasons by class", ""]
    lines += ["Reasons may be added; none changes its meaning.", "", "| class | reasons |", "| --- | --- |"]
    for name, reasons in DROP_REASONS.items():
        lines.append(f"| `{name}` | {', '.join(f'`{reason}`' for reason in reasons)} |")
    return "\n".join(lines) + "\n"


def pages() -> dict[str, str]:
    """Path below the project's folder -> content, for everything that is generated here."""
    return {
        "docs/reference/metrics.md": metrics_page(),
        "docs/reference/configuration.md": configuration_page(),
        "config/bridged.schema.json": json.dumps(schema_json(), indent=2) + "\n",
    }


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path()
    for name, content in pages().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
        print(path)


if __name__ == "__main__":
    main()
