"""A daemon where the compiled module cannot be loaded: `auto` takes portable, and says why."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import bridged
from tests.lab import BRIDGED, Lab, Profile, TwoSites, bridged_daemon
from tests.system.daemon_lab import stop_all

pytestmark = pytest.mark.root
PACKAGE = Path(bridged.__file__).parent
# The mount goes away with the daemon's mount namespace.
INSTEAD = 'mount --bind "$0" "$1" && shift && exec "$@"'


@pytest.mark.parametrize("reason", ["it is not built", "it cannot be loaded here"])
def test_auto_goes_on_with_portable_and_warns(tmp_path: Path, reason: str) -> None:
    package = tmp_path / "bridged"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("_native*.so"))
    if reason == "it cannot be loaded here":
        (package / "_native.abi3.so").touch()
    with Lab("nonative") as lab:
        site = TwoSites(lab, bridges=False).a
        profile = Profile()
        identity = profile.authority.issue("server", "server")
        daemon = bridged_daemon.server(site, profile, identity, tunnel={"dataplane": "auto"})
        command = (BRIDGED, "run", "--config", str(daemon.file))
        daemon.process = site.namespace.popen("sh", "-c", INSTEAD, str(package), str(PACKAGE), *command)
        daemon.started.wait_for_output("daemon_started", 20)
        (line,) = [line for line in daemon.log.splitlines() if "dataplane_chosen" in line]
        assert "[warning" in line and "dataplane=portable" in line and reason in line
        assert daemon.metric("bridged_dataplane_info", dataplane="portable") == 1
        assert daemon.metric("bridged_dataplane_info") == 1
        stop_all(daemon)
