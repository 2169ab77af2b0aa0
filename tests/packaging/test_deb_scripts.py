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


def test_a_purge_leaves_what_is_mounted_in_its_folders_and_succeeds() -> None:
    script = ROOT / "deploy/debian/postrm"
    left = run(
        "unshare", "--mount", "--propagation", "private", "sh", "-c", MOUNTED, "sh", str(script), check=False
    )
    assert left.splitlines() == ["/var/lib/bridged/backup/precious"]
