"""The package's scripts on hosts that somebody has changed."""

from __future__ import annotations

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
