"""The steps of a package's life, in their order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from tests.appliance import site
from tests.appliance.host import Host, HostError
from tests.lab.waiting import NotInTime, wait_for

# Every file, what lists users and packages, links and addresses; not what apt writes for any package.
_EVERYTHING: Final = r"""
find / -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /run -o -path /tmp -o -path /var/tmp \
    -o -path /var/log -o -path /var/cache/apt -o -path /var/cache/debconf \
    -o -path /var/lib/apt -o -path /var/lib/dpkg -o -path /root \
    -o -path /var/lib/systemd \) \
    -prune -o -print | grep -v -e '-$' -e '/etc/.pwd.lock$' -e __pycache__ | sort
grep -h bridged /etc/passwd /etc/group /etc/shadow /etc/gshadow /var/lib/dpkg/status || true
find /run /tmp /var/tmp /var/lib/systemd /var/lib/dpkg /var/cache -xdev 2>/dev/null \
    | grep bridged | grep -v /var/lib/dpkg/alternatives | sort || true
ip -o -d link show; ip -o address show | sed -e 's/valid_lft.*//' -e 's/ tentative//'; ip route show
"""

INSTALL_SECONDS: Final = 1200.0
"""For one package, on an emulated processor that this machine shares with others."""
SETTLE_SECONDS: Final = 120.0
"""A minute after a handshake the daemon gives back what that has loaded."""
IDLE_KILOBYTES_MAX: Final = 64 * 1024
RELOADED_KILOBYTES_MAX: Final = 96 * 1024
"""After many restarts of a tunnel the allocators keep some of what it had; it does not grow further."""

Step = Callable[[], object]
FILES: Final = tuple(Path(__file__).with_name(name) for name in ("network.sh", "reloads.py"))
"""What the system needs beside the packages."""


class Life:
    """`steps` in order; each returns what it measured, and raises HostError where something is wrong."""

    def __init__(self, host: Host, reloads: int, seed: int) -> None:
        self._host = host
        self._reloads = reloads
        self._seed = seed
        self._before = ""

    def steps(self, reboot: Callable[[], None]) -> Iterator[tuple[str, Step]]:
        """`reboot`: of the system, which a container has not."""
        yield "network", self.prepare
        yield "a list of all files", self._list
        yield "install", self.install
        yield "configure two sites", self.configure
        yield "restart under a 5 ms ping", self.restart
        yield "upgrade under a 5 ms ping", self.upgrade
        yield "an upgrade that refuses a configuration", self.refuse
        yield "memory", lambda: self.memory(IDLE_KILOBYTES_MAX)
        yield f"{self._reloads} reloads, seed {self._seed}", self.reload
        yield "memory after reloads", lambda: self.memory(RELOADED_KILOBYTES_MAX)
        yield "remove, and install again", self.install_again
        yield "reboot", lambda: self._reboot(reboot)
        yield "remove", self._remove
        yield "purge", self._purge

    def short_steps(self, reboot: Callable[[], None]) -> Iterator[tuple[str, Step]]:
        """Without what tests/packaging does at real speed: restart, refusal, memory, removal and return."""
        yield "network", self.prepare
        yield "a list of all files", self._list
        yield "install", self.install
        yield "configure two sites", self.configure
        yield "upgrade under a 50 ms ping", lambda: self.upgrade(site.SELDOM_SECONDS)
        yield f"{self._reloads} reloads, seed {self._seed}", self.reload
        yield "reboot", lambda: self._reboot(reboot)
        yield "remove", self._remove
        yield "purge", self._purge

    def prepare(self) -> None:
        site.make_network(self._host)

    def _list(self) -> None:
        self._before = self._host.run(_EVERYTHING)

    def install(self) -> str:
        self._host.run(f"{self._host.install} /run/lab/previous.deb", seconds=INSTALL_SECONDS)
        self._host.run("dpkg --audit && dpkg --verify bridged")
        self._hold_active("bridged.service")
        version = self._host.run("bridged --version").strip()
        if not version.endswith(", native data plane"):
            raise HostError(version)
        return version

    def configure(self) -> None:
        site.configure(self._host)
        site.ping_across(self._host)
        self._hold_active("bridged.service", "bridged@branch.service")

    def restart(self) -> site.Loss:
        watch, process = site.Watch(self._host), self._process()
        self._host.run("systemctl restart bridged")
        return self._ended(watch, process)

    def upgrade(self, ping_seconds: float = site.PING_SECONDS) -> site.Loss:
        configuration = self._host.run("cd /etc/bridged && sha256sum $(find . -type f | sort)")
        state = self._host.run("find /var/lib/bridged | sort")
        watch, process = site.Watch(self._host, ping_seconds), self._process()
        self._host.run(f"{self._host.install} /run/lab/bridged.deb", seconds=INSTALL_SECONDS)
        loss = self._ended(watch, process)
        if self._host.run("cd /etc/bridged && sha256sum $(find . -type f | sort)") != configuration:
            raise HostError("the upgrade changed the configuration")
        if self._host.run("find /var/lib/bridged | sort") != state:
            raise HostError(f"the upgrade changed the state: {state}")
        self._hold_active("bridged.service", "bridged@branch.service")
        return loss

    def refuse(self) -> None:
        """An upgrade leaves a service alone that it could not start again, and restarts the other."""
        wrong, branch = "/etc/bridged/branch.d/wrong.yaml", "bridged@branch"
        site.write(self._host, wrong, "tunnels: {client: {mtu: none}}\n")
        before = self._process(), self._process(branch)
        told = self._host.run(f"{self._host.install} /run/lab/bridged.deb", seconds=INSTALL_SECONDS)
        after = self._process(), self._process(branch)
        if "NOT RESTARTED: bridged@branch.service" not in told or f"bridged: {wrong}:1: " not in told:
            raise HostError(f"the upgrade did not say what it refused:\n{told}")
        if after[1] != before[1] or after[0] == before[0]:
            raise HostError(f"processes {before} became {after}")
        site.ping_across(self._host)
        self._host.run(f"rm -r /etc/bridged/branch.d && systemctl restart {branch}")
        self._hold_active("bridged.service", "bridged@branch.service")

    def reload(self) -> str:
        process = self._process()
        # Every tenth one starts two programs; each start takes some seconds.
        told = self._host.run(
            f"python3 /run/lab/reloads.py {self._reloads} {self._seed}", seconds=300 + self._reloads * 15
        )
        if self._process() != process:
            raise HostError("a reload restarted the daemon")
        self._hold_active("bridged.service")
        site.ping_across(self._host)
        return told.strip()

    def install_again(self) -> None:
        self._host.run(f"{self._host.remove} bridged", seconds=INSTALL_SECONDS)
        self._host.run(f"{self._host.install} /run/lab/bridged.deb", seconds=INSTALL_SECONDS)
        self._hold_active("bridged.service", "bridged@branch.service")
        site.ping_across(self._host)

    def _reboot(self, reboot: Callable[[], None]) -> None:
        reboot()
        site.ping_across(self._host, 180)
        self._hold_active("bridged.service", "bridged@branch.service")

    def _remove(self) -> None:
        self._host.run(f"{self._host.remove} bridged", seconds=INSTALL_SECONDS)
        self._host.run(
            "test -e /etc/bridged/bridged.yaml && test -d /var/lib/bridged/pki && ! test -e /run/bridged"
        )
        if "br0" in (found := self._host.run("ip -o link show")):
            raise HostError(f"the bridge is still there:\n{found}")
        self._hold_no_failure()

    def _purge(self) -> None:
        self._host.run(f"{self._host.purge} bridged", seconds=INSTALL_SECONDS)
        before, after = self._before.splitlines(), self._host.run(_EVERYTHING).splitlines()
        left = [line for line in after if line not in set(before)]
        lost = [line for line in before if line not in set(after)]
        if left or lost:
            raise HostError("left behind:\n" + "\n".join(left) + "\ngone:\n" + "\n".join(lost))
        self._hold_no_failure()

    def memory(self, kilobytes_max: int) -> str:
        """Hold the resident memory of this site's daemon, once it has settled.

        Raises:
            HostError: it stays larger.
        """
        try:
            wait_for(lambda: self._resident() <= kilobytes_max, "memory", SETTLE_SECONDS, 1.0)
        except NotInTime as error:
            raise HostError(f"{self._resident()} kB resident, {kilobytes_max} allowed") from error
        return f"{self._resident()} kB resident"

    def _resident(self) -> int:
        return int(self._host.run(f"grep VmRSS: /proc/{self._process()}/status").split()[1])

    def _ended(self, watch: site.Watch, process: str) -> site.Loss:
        loss = watch.end()
        if self._process() == process:
            raise HostError("the daemon was not restarted")
        return loss

    def _process(self, unit: str = "bridged") -> str:
        return self._host.run(f"systemctl show -P MainPID {unit}").strip()

    def _hold_active(self, *units: str) -> None:
        for unit in units:
            restarts = self._host.run(f"systemctl is-active {unit} && systemctl show -P NRestarts {unit}")
            if restarts.split() != ["active", "0"]:
                raise HostError(f"{unit}: {restarts}")

    def _hold_no_failure(self) -> None:
        failed = self._host.run("systemctl list-units --failed --no-legend --plain")
        if failed.strip():
            raise HostError(f"failed units:\n{failed}")
