"""Write what watches bridged.

Without options: into deploy/ (`make generate`). `--rules FILE` writes only the rules:

- `--runbooks URL`: where the pages of docs/runbooks are, for the annotation `runbook_url`.
- `--scale N`: every range and waiting time N times shorter, for tests. 60 makes a day last 24 minutes; scrape
  60 times as often, too. Moments (`ends within 7 days`) are not scaled.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from scripts.monitoring.grafana import DATASOURCE_FILE, PROVIDER_FILE, dashboard_files
from scripts.monitoring.rules import RULES, RUNBOOKS, rules_text, runbooks_page, tests_text


def files() -> dict[str, str]:
    """Path below the project's folder -> content, for everything that is written here."""
    return {
        f"deploy/prometheus/{RULES}": rules_text(),
        "deploy/prometheus/bridged.rules_test.yml": tests_text(),
        "docs/runbooks/README.md": runbooks_page(),
        "deploy/grafana/provisioning/datasources/bridged.yaml": DATASOURCE_FILE,
        "deploy/grafana/provisioning/dashboards/bridged.yaml": PROVIDER_FILE,
        **{f"deploy/grafana/dashboards/{name}": text for name, text in dashboard_files().items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rules", type=Path, metavar="FILE")
    parser.add_argument("--runbooks", default=RUNBOOKS, metavar="URL")
    parser.add_argument("--scale", type=float, default=1.0, metavar="N")
    chosen = parser.parse_args()
    if chosen.rules is not None:
        chosen.rules.write_text(rules_text(chosen.scale, chosen.runbooks), encoding="utf-8")
        return
    for name, content in files().items():
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
        print(path)


if __name__ == "__main__":
    main()
