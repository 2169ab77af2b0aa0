"""The package's life in a real Debian system: install, configure, upgrade, remove, purge. Nothing is left."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import wait_for
from tests.lab.processes import Process, run
from tests.packaging.conftest import ROOT, VERSION, Package
from tests.packaging.machine import Machine

pytestmark = pytest.mark.root
NEWER = "0.1.0~test2-1"
AS_SERVICE = (
    *("setpriv", "--reuid=bridged", "--regid=bridged", "--init-groups"),
    *(
        "--inh-caps=-all,+net_admin,+net_bind_service,+net_raw",
        "--ambient-caps=-all,+net_admin,+net_bind_service,+net_raw",
    ),
    *("--bounding-set=-all,+net_admin,+net_bind_service,+net_raw", "--no-new-privs"),
)
"""As the unit runs it."""
RECORDS = re.compile(
    r"/(etc/(\.pwd\.lock|(group|gshadow|passwd|shadow|subuid|subgid)-?)"
    r"|var/lib/dpkg/(lock|lock-frontend|status|status-old|triggers/(Lock|Unincorp|File)|updates|info)"
    r"|var/log/dpkg\.log)"
)
"""What dpkg and the user tools write about every package."""


SYSTEMS = os.environ.get("BRIDGED_PACKAGE_SUITES", "this").split()
"""Debian's suites to install into (`make test-package`); by default this machine's own system."""


@pytest.fixture(params=SYSTEMS)
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Machine]:
    place = tmp_path / "machine"
    place.mkdir()
    below = Path("/") if request.param == "this" else fresh_system(request.param)
    with Machine(below, place) as machine:
        assert "bridged" not in machine.run("dpkg-query", "-W", "-f", "${Package}\n").split()
        yield machine


def fresh_system(suite: str) -> Path:
    """A minimal system of the suite, made once."""
    folder = ROOT / "build/chroots" / suite
    if not (folder / "complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        include = "--include=python3,systemd"
        run("mmdebstrap", "--variant=minbase", include, suite, str(folder), seconds=600)
        (folder / "complete").touch()
    return folder


def dpkg(machine: Machine, *arguments: str) -> str:
    # Triggers, such as that of manual pages, would work on the whole machine.
    return machine.run("dpkg", "--no-triggers", *arguments)


def newer(package: Package, folder: Path) -> Path:
    """The same with a later version."""
    run("dpkg-deb", "--raw-extract", str(package.file), str(folder / "newer"))
    control = folder / "newer/DEBIAN/control"
    control.write_text(control.read_text().replace(VERSION, NEWER))
    run("dpkg-deb", "-Znone", "--build", str(folder / "newer"), str(folder / "newer.deb"))
    return folder / "newer.deb"


# A fresh system is made first.
@pytest.mark.timeout(1200)
def test_install_configure_upgrade_remove_purge(package, machine, tmp_path):
    machine.put(package.file, "/tmp/bridged.deb")
    dpkg(machine, "--install", "/tmp/bridged.deb")
    check_installed(machine)
    configure(machine)
    check_daemon(machine, tmp_path / "log")

    machine.put(newer(package, tmp_path), "/tmp/newer.deb")
    dpkg(machine, "--install", "/tmp/newer.deb")
    assert machine.run("dpkg-query", "-W", "-f", "${Version}", "bridged") == NEWER
    assert "level: debug" in machine.run("cat", "/etc/bridged/bridged.yaml")
    assert "tunnel server" in machine.run("bridged", "check")
    assert "-----BEGIN" in machine.run("cat", "/var/lib/bridged/pki/ca.key")
    assert bytecode(machine) == "bytecode is there"

    dpkg(machine, "--remove", "bridged")
    left = {path for path in machine.changes() if "bridged" in path}
    assert "/etc/bridged/bridged.yaml" in left and "/var/lib/bridged/pki/ca.key" in left
    assert not {path for path in left if path.startswith("/usr/")}

    dpkg(machine, "--purge", "bridged")
    check_purged(machine)


def check_installed(machine: Machine) -> None:
    assert machine.run("bridged", "--version").endswith(", native data plane\n")
    assert machine.run("bridged", "check") == "OK\n"
    user = machine.run("getent", "passwd", "bridged").split(":")
    assert user[5:] == ["/var/lib/bridged", "/usr/sbin/nologin\n"]
    modes = machine.run(
        "stat",
        "-c",
        "%a %U %G %n",
        *("/etc/bridged", "/etc/bridged/conf.d"),
        "/etc/bridged/bridged.yaml",
        "/var/lib/bridged",
        "/run/bridged",
    )
    assert modes.splitlines() == [
        "2750 root bridged /etc/bridged",
        "2750 root bridged /etc/bridged/conf.d",
        "640 root bridged /etc/bridged/bridged.yaml",
        "700 bridged bridged /var/lib/bridged",
        "750 bridged bridged /run/bridged",
    ]
    assert machine.run("readlink", "/etc/systemd/system/multi-user.target.wants/bridged.service")
    assert bytecode(machine) == "bytecode is there"


def bytecode(machine: Machine) -> str:
    found = machine.run("find", "/usr/lib/bridged", "-name", "entry.cpython-*.pyc")
    return "bytecode is there" if found else "no bytecode"


def configure(machine: Machine) -> None:
    """As an operator: an edit of the conffile, and a server by `bridged init`."""
    machine.run("sed", "-i", "1i log: {level: debug}", "/etc/bridged/bridged.yaml")
    drop_in = "/etc/bridged/conf.d/server.yaml"
    machine.run(
        "bridged", "init", "--state", "/var/lib/bridged", "--remote", "vpn.example.net", "--output", drop_in
    )
    assert machine.run("stat", "-c", "%G", drop_in) == "bridged\n"
    assert "listens on" in machine.run("bridged", "check")
    shown = machine.run("bridged", "show-config")
    assert f"# {drop_in}:" in shown and "level: debug  # /etc/bridged/bridged.yaml:1" in shown


def check_daemon(machine: Machine, log: Path) -> None:
    """The daemon runs as the unit's user, reads what root wrote, and stops without a trace."""
    command = machine.inside(*AS_SERVICE, "bridged", "run", "--config", "/etc/bridged/bridged.yaml")
    daemon = Process(subprocess.Popen(command, stdout=log.open("wb"), stderr=subprocess.STDOUT), command, log)
    try:
        wait_for(lambda: is_up(machine, daemon), "the installed daemon", 30)
        assert machine.run("bridged", "complete-names", "tunnels") == "server\n"
        assert machine.run("bridged", "reload") == "applied\n"
        assert daemon.stop() == 0, daemon.tail()
    finally:
        daemon.popen.kill()
    assert "Traceback" not in daemon.output() and "may be read by others" not in daemon.output()
    assert machine.run("bridged", "complete-names", "tunnels") == ""
    report = machine.run("sh", "-c", "/usr/share/bug/bridged 3>&1", check=False)
    assert "native data plane" in report and "tls-crypt" in report and "PRIVATE KEY" not in report


def is_up(machine: Machine, daemon: Process) -> bool:
    assert daemon.running, daemon.tail()
    return "server" in machine.run("bridged", "status", check=False)


def check_purged(machine: Machine) -> None:
    left = {path for path in machine.changes() if not RECORDS.fullmatch(path)}
    # Folders whose content changed, and is now as before.
    left -= set(
        machine.run(
            "sh", "-c", 'for path; do [ ! -d "$path" ] || echo "$path"; done', "sh", *sorted(left)
        ).splitlines()
    )
    assert left == set()
    assert [path for path in machine.changes() if "bridged" in path] == []
    for file in ("/etc/passwd", "/etc/group", "/etc/shadow", "/etc/gshadow"):
        assert "bridged" not in machine.run("cat", file)
