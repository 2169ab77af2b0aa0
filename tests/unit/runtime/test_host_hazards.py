"""Old clocks and kernels with known faults, and the page that lists them."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridged import WRITTEN_AFTER
from bridged.catalogue.counters import HOST_WARNINGS
from bridged.runtime.kernel_release import HOST_FAULTS, find_host_fault, upstream_release, written
from bridged.runtime.watchers.host_hazards import clock_fault, kernel_fault
from bridged.units import UnixSeconds

PAGE = (Path(__file__).parents[3] / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
DEBIAN = "#1 SMP PREEMPT_DYNAMIC Debian 6.1.106-3 (2024-08-26)"


@pytest.mark.parametrize(
    ("release", "of"),
    [
        ("6.1.102", ""),
        ("6.1.103", "tap"),
        ("6.1.110", "tap"),
        ("6.1.111", ""),
        ("6.1.0-25-amd64", ""),
        ("6.6.45-arch", "tap"),
        ("6.6.46", ""),
        ("6.10.4", "tap"),
        ("6.12.9", ""),
        ("7.0.2-6-pve", "wan"),
        ("7.1.5", ""),
        ("custom", ""),
    ],
)
def test_a_kernel_with_a_known_fault_is_found(release: str, of: str) -> None:
    fault = find_host_fault(release)
    assert (fault.of if fault else "") == of
    assert bool(kernel_fault(release)) == bool(of)
    assert not of or (release in kernel_fault(release) and "https://" in kernel_fault(release))


def test_debian_says_the_sublevel_elsewhere() -> None:
    assert upstream_release("6.1.0-25-amd64", DEBIAN) == "6.1.106-3"
    assert kernel_fault(upstream_release("6.1.0-25-amd64", DEBIAN))
    assert upstream_release("6.6.45", "#1 SMP") == "6.6.45"


def test_the_page_lists_every_fault_with_its_source() -> None:
    rows = [line for line in PAGE.splitlines() if " to before " in line]
    assert len(rows) == len(HOST_FAULTS)
    for row, fault in zip(rows, HOST_FAULTS, strict=True):
        assert row.startswith(f"| {written(fault.first)} to before {written(fault.repaired)} | ")
        assert fault.source in row and (fault.text in row or "the same" in row)


def test_a_clock_is_old_before_the_program_was_made() -> None:
    made = WRITTEN_AFTER.timestamp()
    assert clock_fault(UnixSeconds(made)) == ""
    assert "the clock shows 1970-01-01" in clock_fault(UnixSeconds(5.0))
    assert "Set the clock" in clock_fault(UnixSeconds(made - 1))


def test_every_hazard_has_its_entry_in_the_troubleshooting_page() -> None:
    assert [kind for kind in HOST_WARNINGS if f'bridged_host_warning{{kind="{kind}"}}' not in PAGE] == []
