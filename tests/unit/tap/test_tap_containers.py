"""Which container a program runs in, by the marks that systemd-detect-virt reads, and what to do there."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from bridged_tap.containers import container_kind, device_cure


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        ({}, ""),
        ({"run/systemd/container": "lxc\n"}, "lxc"),
        ({"run/host/container-manager": "systemd-nspawn", "run/systemd/container": "lxc"}, "systemd-nspawn"),
        ({"proc/1/environ": "PATH=/bin\0container=lxc\0X=1\0"}, "lxc"),
        ({"proc/1/environ": "xcontainer=lxc\0"}, ""),
        ({"run/.containerenv": "", ".dockerenv": ""}, "podman"),
        ({".dockerenv": ""}, "docker"),
        ({"run/systemd/container": "", ".dockerenv": ""}, "docker"),
        ({"proc/vz/version": ""}, "openvz"),
        ({"proc/vz/version": "", "proc/bc/resources": ""}, ""),
        ({"run/systemd/container": "a b\x1b[31m" + "c" * 99}, "ab31m" + "c" * 32),
    ],
)
def test_a_container_is_known_by_its_marks(tmp_path: Path, files: dict[str, str], kind: str) -> None:
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert container_kind(tmp_path) == kind


def test_here_it_is_what_systemd_says() -> None:
    done = subprocess.run(
        ["systemd-detect-virt", "--container"], capture_output=True, text=True, timeout=10, check=False
    )
    said = done.stdout.strip()
    assert container_kind() == ("" if said == "none" else said) or said == "container-other"


@pytest.mark.parametrize(
    ("kind", "parts"),
    [
        ("", ("modprobe tun",)),
        ("lxc", ("lxc.cgroup2.devices.allow = c 10:200 rwm", "lxc.mount.entry = /dev/net/tun dev/net/tun")),
        ("lxc-libvirt", ("lxc.mount.entry",)),
        ("docker", ("docker run --device /dev/net/tun --cap-add NET_ADMIN",)),
        ("podman", ("podman run --device /dev/net/tun",)),
        ("systemd-nspawn", ("--bind=/dev/net/tun",)),
        ("openvz", ("--devnodes net/tun:rw",)),
        ("pouch", ("pouch", "NET_ADMIN")),
    ],
)
def test_each_kind_has_its_lines(kind: str, parts: tuple[str, ...]) -> None:
    assert all(part in device_cure(kind) for part in parts)
