"""The systemd units, judged by systemd's own tools."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

UNITS = Path(__file__).parents[2] / "deploy" / "systemd"
EXPOSURE_MOST = 2.0


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", *arguments], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("unit", ["bridged.service", "bridged@.service"])
def test_the_service_exposes_at_most_two(unit: str) -> None:
    judged = analyze("security", "--no-pager", "--offline=true", str(UNITS / unit))
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", judged.stdout)
    assert found, judged.stdout + judged.stderr
    assert float(found[1]) <= EXPOSURE_MOST


def test_systemd_understands_every_line_of_the_units(tmp_path: Path) -> None:
    # The program has to exist: the only thing that is not the unit's own business.
    for unit in UNITS.iterdir():
        text = unit.read_text(encoding="ascii").replace("/usr/bin/bridged", "/usr/bin/true")
        (tmp_path / unit.name).write_text(text, encoding="ascii")
    judged = analyze("verify", "--man=no", "--recursive-errors=no", *map(str, sorted(tmp_path.iterdir())))
    assert (judged.returncode, judged.stdout + judged.stderr) == (0, "")


def test_both_services_differ_in_name_and_configuration_only() -> None:
    single = (UNITS / "bridged.service").read_text(encoding="ascii").splitlines()
    template = (UNITS / "bridged@.service").read_text(encoding="ascii").splitlines()
    assert len(single) == len(template)
    for one, other in zip(single, template, strict=True):
        plain = other.replace(" (%i)", "").replace("/etc/bridged/%i.yaml", "/etc/bridged/bridged.yaml")
        assert one == plain
