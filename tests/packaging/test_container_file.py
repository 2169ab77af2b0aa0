"""The container file's steps in a real Debian, and its daemon with the rights that podman and Docker leave.

`make test-container` builds and runs the image itself, with podman and with Docker.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.lab import wait_for
from tests.lab.containers import DOCKER_CAPABILITIES
from tests.lab.processes import Process
from tests.packaging.conftest import ROOT
from tests.packaging.machine import Machine

pytestmark = pytest.mark.root

CONTAINERFILE = ROOT / "deploy/container/Containerfile"
PODMAN = re.findall(r"--cap-add (\S+)", CONTAINERFILE.read_text(encoding="utf-8"))[0].split(",")
"""`--cap-drop all`, and these."""


@pytest.mark.parametrize("rights", [PODMAN, DOCKER_CAPABILITIES], ids=["podman", "docker"])
def test_the_daemon_starts_reloads_and_stops_with_the_rights_of_the_documented_command(
    rights: Sequence[str], package, tmp_path: Path
) -> None:
    place = tmp_path / "machine"
    place.mkdir()
    with Machine(Path("/"), place) as machine:
        machine.put(package.file, "/tmp/bridged.deb")
        machine.run("dpkg", "--no-triggers", "--install", "/tmp/bridged.deb")
        (own,) = re.findall(r"&& (chown .*)", CONTAINERFILE.read_text(encoding="utf-8"))
        machine.run("sh", "-c", own)
        init = ("bridged", "init", "--state", "/var/lib/bridged", "--remote", "vpn.example.net")
        machine.run(*init, "--output", "/etc/bridged/conf.d/site.yaml")
        bounding = f"-all,{','.join(f'+{name}' for name in rights)}"
        under = ("setpriv", "--inh-caps=-all", f"--bounding-set={bounding}")
        command = machine.inside(*under, "bridged", "run", "--config", "/etc/bridged/bridged.yaml")
        log = tmp_path / "log"
        daemon = Process(
            subprocess.Popen(command, stdout=log.open("wb"), stderr=subprocess.STDOUT), command, log
        )
        try:
            wait_for(lambda: is_up(machine, daemon), "the daemon of the container", 30)
            assert "runs_as_root" in daemon.output() and "warning" not in daemon.output()
            assert machine.run(*under, "bridged", "reload") == "applied\n"
            assert daemon.stop() == 0, daemon.tail()
        finally:
            daemon.popen.kill()


def is_up(machine: Machine, daemon: Process) -> bool:
    assert daemon.running, daemon.tail()
    return "server" in machine.run("bridged", "status", check=False)


def test_a_user_that_this_root_may_not_become_is_refused_with_the_cure(tmp_path: Path) -> None:
    place = tmp_path / "machine"
    place.mkdir()
    with Machine(Path("/"), place) as machine:
        machine.write("/tmp/site.yaml", "user: daemon\nbridges: {br0: {}}\ntunnels: {}\n")
        under = ("setpriv", "--inh-caps=-all", "--bounding-set=-all,+net_admin,+setuid,+setgid")
        program = str(ROOT / ".venv/bin/bridged")
        status, said = run(machine, *under, program, "run", "--config", "/tmp/site.yaml")
        assert status == 2
        assert (
            "user: root may not become daemon here, without chown, dac_read_search, setpcap: set `user: root`"
            in said
        )


def run(machine: Machine, *command: str) -> tuple[int, str]:
    done = subprocess.run(
        machine.inside(*command), capture_output=True, encoding="utf-8", timeout=60, check=False
    )
    return done.returncode, done.stdout + done.stderr
