"""Writes what is generated from tables: docs/reference, docs/import.md and config/bridged.schema.json.

Run `python -m bridged.telemetry.reference` in the project's folder. A test finds outdated pages.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from bridged.catalogue import counters
from bridged.catalogue.error_codes import ERROR_CODES
from bridged.catalogue.figures import OFFLOADS, QUEUES
from bridged.configuration import schema_json
from bridged.configuration.reference import configuration_page
from bridged.profiles.reference import import_page
from bridged.telemetry.metrics_table import EXTERNAL_FAMILIES, METRICS

_INTRODUCTION: Final = """\
# Metrics

Generated from `bridged/telemetry/metrics_table.py` and `bridged/catalogue/counters.py` by
`python -m bridged.telemetry.reference`; edit those.

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


_ERRORS: Final = """\
# Error codes

Generated from `bridged/catalogue/error_codes.py` by `python -m bridged.telemetry.reference`; edit that.

Every error carries a code. A code never changes its meaning, while the text beside it may. The admin API
answers with `{"detail": {"code": …, "text": …}}`; logs have it as the field `code`. `bridged explain CODE`
prints the meaning of a code, and of the drop reasons and other values of [the metrics](metrics.md).

What a peer does wrong has a drop reason or a handshake outcome as its code. What the kernel refuses by
netlink has the name of the errno, for example `enodev`.
"""


def _builds(sources: Iterable[str]) -> str:
    return ", ".join(sorted(sources))


def metrics_page() -> str:
    """The page docs/reference/metrics.md."""
    lines = [_INTRODUCTION, "## Table", "", "| name | type | labels | meaning |", "| --- | --- | --- | --- |"]
    for row in METRICS:
        labels = ", ".join(f"`{label}`" for label in row.labels)
        lines.append(f"| `{row.full_name}` | {row.type} | {labels} | {row.help} |")
    lines += [f"| `{name}` |  |  | {text} |" for name, text in EXTERNAL_FAMILIES]
    lines += ["", "## Triggers of a renegotiation", ""]
    lines += [", ".join(f"`{value}`" for value in counters.RENEGOTIATION_TRIGGERS) + "."]
    lines += [
        "",
        "## Offloads",
        "",
        "| offload | data plane | meaning | fallbacks |",
        "| --- | --- | --- | --- |",
    ]
    for offload in OFFLOADS:
        causes = ", ".join(f"`{cause}`" for cause in offload.fallbacks)
        lines.append(f"| `{offload.name}` | {_builds(offload.sources)} | {offload.meaning} | {causes} |")
    lines += ["", "## Queues", "", "| queue | data plane | meaning |", "| --- | --- | --- |"]
    lines += [f"| `{queue.name}` | {_builds(queue.sources)} | {queue.meaning} |" for queue in QUEUES]
    lines += ["", "## Handshake outcomes", "", "| outcome | meaning |", "| --- | --- |"]
    lines += [f"| `{name}` | {text} |" for name, text in counters.HANDSHAKE_OUTCOMES.items()]
    lines += ["", "## Reasons of a disconnect", "", "| reason | meaning |", "| --- | --- |"]
    lines += [f"| `{name}` | {text} |" for name, text in counters.DISCONNECT_REASONS.items()]
    lines += ["", "## Hazards of the host", "", "| kind | meaning |", "| --- | --- |"]
    lines += [f"| `{name}` | {text} |" for name, text in counters.HOST_WARNINGS.items()]
    for family in counters.FAMILIES:
        lines += ["", f"## Values of `{family.label}` in `bridged_{family.name}_total`", ""]
        lines += [f"| {family.label} | data plane | meaning |", "| --- | --- | --- |"]
        lines += [
            f"| `{count.name}` | {_builds(count.sources)} | {count.meaning} |"
            for count in counters.COUNTS
            if count.family == family.name
        ]
    lines += ["", "## Drop reasons", ""]
    lines += ["Reasons may be added; none changes its meaning.", ""]
    lines += ["| class | reason | meaning |", "| --- | --- | --- |"]
    for reason in counters.DROP_REASONS:
        lines.append(f"| `{reason.group}` | `{reason.name}` | {reason.meaning} |")
    return "\n".join(lines) + "\n"


def errors_page() -> str:
    """The page docs/reference/errors.md."""
    lines = [_ERRORS, "| code | about | meaning |", "| --- | --- | --- |"]
    lines += [f"| `{code.name}` | {code.group} | {code.meaning} |" for code in ERROR_CODES]
    return "\n".join(lines) + "\n"


def pages() -> dict[str, str]:
    """Path below the project's folder -> content, for everything that is generated here."""
    return {
        "docs/reference/metrics.md": metrics_page(),
        "docs/reference/configuration.md": configuration_page(),
        "docs/reference/errors.md": errors_page(),
        "docs/import.md": import_page(),
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
