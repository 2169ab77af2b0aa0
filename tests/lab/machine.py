"""A site's gateway as a machine of its own: with /etc, /run, /var/lib and /var/log that nothing else sees.

So commands can be run as a page has them, with the paths, interfaces and names that stand there. The LAN port
is `eth1`, the WAN port `eth0`.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.lab.processes import COMMAND_SECONDS, Process
from tests.lab.topology import LAN_PORT, WAN_PORT, Site

PACKAGED = Path(__file__).parents[2] / "deploy" / "debian" / "bridged.yaml"
PROGRAMS = str(Path(sys.executable).parent)
_PRIVATE = (
    'mkdir -p "$0" && mount -t tmpfs -o mode=755 none "$0" && cp -a /etc "$0/etc" && '
    'mkdir "$0/home" && mount --bind "$0/etc" /etc && for folder in /run /var/lib /var/log; do '
    'mount -t tmpfs -o mode=755 none "$folder"; done && echo ready && exec sleep infinity'
)


class Machine:
    """Runs commands at a site until the lab ends. `names`: host name -> address, as in /etc/hosts."""

    def __init__(self, site: Site, names: Mapping[str, str] | None = None) -> None:
        self.site = site
        space = site.namespace
        for old, new in ((LAN_PORT, "eth1"), (WAN_PORT, "eth0")):
            addresses = space.ip("-o", "addr", "show", "dev", old, "scope", "global").splitlines()
            space.ip("link", "set", old, "down")
            space.ip("link", "set", old, "name", new)
            space.ip("link", "set", new, "up")
            for line in addresses:
                space.ip("addr", "replace", line.split()[3], "dev", new, "nodad")
        private = space.directory / f"{space.role}.machine"
        self._home = private / "home"
        self._holder = space.popen(
            "unshare", "--mount", "sh", "-ec", _PRIVATE, str(private), log=f"{space.role}-machine"
        )
        self._holder.wait_for_output("ready", 20)
        hosts = "".join(f"{address} {name}\n" for name, address in (names or {}).items())
        self.write("/etc/hosts", "127.0.0.1 localhost\n" + hosts)

    def install(self) -> Process:
        """What the package does: its configuration, without a tunnel, and a daemon that has it."""
        self.write("/etc/bridged/bridged.yaml", PACKAGED.read_text(encoding="utf-8"))
        self.run("mkdir /etc/bridged/conf.d")
        daemon = self.popen(
            "bridged run --config /etc/bridged/bridged.yaml", f"{self.site.namespace.role}-bridged"
        )
        daemon.wait_for_output("daemon_started", 30)
        return daemon

    def run(self, command: str, *, seconds: float = COMMAND_SECONDS, check: bool = True) -> str:
        """Run a shell command to its end, in an empty home; its standard output.

        Raises:
            CommandError: it failed, and `check` is set.
        """
        return self.site.namespace.run(*self._inside(command), seconds=seconds, check=check)

    def popen(self, command: str, log: str) -> Process:
        """Start a shell command, which must be a single program."""
        return self.site.namespace.popen(
            *self._inside(f"exec {command}"), log=log, env={"PYTHONUNBUFFERED": "1"}
        )

    def write(self, path: str, text: str) -> None:
        """Write a file, which only its owner may read; makes its folder."""
        self.site.namespace.run(
            *self._inside(
                f"umask 77; mkdir -p {shlex.quote(str(Path(path).parent))}; cat >{shlex.quote(path)}"
            ),
            stdin=text,
        )

    def _inside(self, command: str) -> tuple[str, ...]:
        path = f"PATH={PROGRAMS}:$PATH; cd {shlex.quote(str(self._home))}; "
        return ("nsenter", "--target", str(self._holder.pid), "--mount", "sh", "-ec", path + command)
