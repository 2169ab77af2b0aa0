"""The package's scripts on hosts that somebody has changed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.lab.processes import run
from tests.packaging.conftest import ROOT

pytestmark = pytest.mark.root

MOUNTED = """
set -e
for place in /etc /run /var/lib; do mount -t tmpfs none $place; done
mkdir -p /etc/bridged/conf.d /var/lib/bridged/backup
mount -t tmpfs none /var/lib/bridged/backup
touch /etc/bridged/bridged.yaml /var/lib/bridged/ca.key /var/lib/bridged/backup/precious
sh "$1" purge
find /etc/bridged /var/lib/bridged -type f
"""


LINKED = """
set -e
for place in /etc /run /var/lib /srv; do mount -t tmpfs none $place; done
mkdir -p /srv/state/pki /srv/conf /etc/systemd/system/multi-user.target.wants
touch /srv/state/pki/ca.key /srv/conf/bridged.yaml
ln -s /srv/state /var/lib/bridged
ln -s ../srv/conf /etc/bridged
ln -s /nowhere/bridged@.service /etc/systemd/system/multi-user.target.wants/bridged@branch.service
sh "$1" purge 2>&1 | grep ^bridged:
find /srv /var/lib /etc -not -type d | sort
"""

PROGRAMS = {
    "systemctl": """case "$*" in
    *ExecStart*) echo "{ path=/usr/bin/bridged ; argv[]=bridged run --config /etc/bridged/branch.yaml ; }" ;;
    *User*) echo root ;;
    list-units*) echo "bridged@branch.service loaded active running" ;;
    esac""",
    "timeout": 'shift; exec /usr/bin/timeout 0.5 "$@"',
    "deb-systemd-invoke": 'echo "$@"',
}
"""What the script finds of systemd, and a shorter patience."""


@pytest.mark.parametrize(
    ("check", "told"),
    [
        ("exit 0", None),
        ("sleep 60", "'bridged check /etc/bridged/branch.yaml' did not end within 300 seconds"),
        ("echo /etc/bridged/branch.yaml:1: wrong; sleep 60", "did not end within 300 seconds"),
        ("exit 3", "'bridged check /etc/bridged/branch.yaml' ended with status 3"),
        ("echo /etc/bridged/branch.yaml:1: wrong; exit 2", "/etc/bridged/branch.yaml:1: wrong"),
    ],
)
def test_a_service_goes_on_where_its_configuration_is_not_accepted_and_the_reason_is_told(
    tmp_path: Path, check: str, told: str | None
) -> None:
    for name, text in {**PROGRAMS, "bridged": check}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    functions = (ROOT / "deploy/debian/postinst").read_text().partition('case "$1" in\nconfigure)')[0]
    script = tmp_path / "functions"
    script.write_text(f"{functions}\nrestart_those_that_run 2>&1\ndeb-systemd-invoke went on\n")
    said = run("env", f"PATH={tmp_path}:{os.environ['PATH']}", "sh", str(script))
    assert "went on" in said
    if told is None:
        assert said == "went on\n"
        return
    assert told in said.splitlines()[0] and said.startswith("bridged: ")
    assert "bridged: NOT RESTARTED: bridged@branch.service runs on as the former version" in said
    assert "try-restart" not in said


def test_a_purge_takes_links_away_and_leaves_what_they_lead_to() -> None:
    script = ROOT / "deploy/debian/postrm"
    told = run("unshare", "--mount", "--propagation", "private", "sh", "-c", LINKED, "sh", str(script))
    assert told.splitlines() == [
        "bridged: /var/lib/bridged was a link: the files in /srv/state are left there",
        "bridged: /etc/bridged was a link: the files in ../srv/conf are left there",
        "/srv/conf/bridged.yaml",
        "/srv/state/pki/ca.key",
    ]


def test_a_purge_leaves_what_is_mounted_in_its_folders_and_succeeds() -> None:
    script = ROOT / "deploy/debian/postrm"
    left = run(
        "unshare", "--mount", "--propagation", "private", "sh", "-c", MOUNTED, "sh", str(script), check=False
    )
    assert left.splitlines() == ["/var/lib/bridged/backup/precious"]
