"""Which kernel releases are trusted with UDP super-frames."""

from __future__ import annotations

import pytest

from bridged.runtime.kernel_release import find_udp_fault, parse_release


@pytest.mark.parametrize(
    ("text", "release"),
    [
        ("6.8.5", (6, 8, 5)),
        ("6.1.0-18-amd64", (6, 1, 0)),
        ("5.10.0-28-cloud-arm64", (5, 10, 0)),
        ("6.8.4-060804-generic", (6, 8, 4)),
        ("7.1-rc5", (7, 1, 0)),
        ("6.12", (6, 12, 0)),
        ("5.15.153.1-microsoft-standard-WSL2", (5, 15, 153)),
        ("2.6.78-example", (2, 6, 78)),
        ("", None),
        ("linux", None),
        ("6", None),
        ("v6.8.5", None),
        ("6.123456789", None),
    ],
)
def test_a_release_is_read_from_what_uname_says(text: str, release: tuple[int, int, int] | None) -> None:
    assert parse_release(text) == release


@pytest.mark.parametrize(
    ("text", "sound"),
    [
        ("5.10.0", False),
        ("6.2.0", False),
        ("6.8.4", False),
        ("6.8.5", True),
        ("6.8.12-generic", True),
        ("6.9-rc1", True),
        ("6.18.3", True),
        ("7.0-rc1", False),
        ("7.0.14-pve", False),
        ("7.1.4", False),
        ("7.1.5", True),
        ("10.0.0", True),
        ("custom", False),
    ],
)
def test_udp_super_frames_are_trusted_but_for_known_faults(text: str, sound: bool) -> None:
    fault = find_udp_fault(text)
    assert (fault == "") is sound
    assert sound or text in fault
