"""Two offices that are joined as docs/guides/join-two-offices.md says, command by command."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.lab.core import Lab
from tests.lab.machine import Machine
from tests.lab.processes import Process
from tests.lab.topology import TwoSites
from tests.lab.waiting import LabError, wait_for
from tests.unit.documents.guides import Block, guide


@dataclass(slots=True)
class Offices:
    """Both machines, with bridged installed, and the daemon that runs on each."""

    sites: TwoSites
    machines: dict[str, Machine]
    daemons: dict[str, Process] = field(default_factory=dict)

    def follow(self, block: Block) -> str:
        """Run a block where it belongs; what its last command printed."""
        return [self.machines[block.place].run(command) for command in block.commands][-1]

    def copy(self, name: str) -> None:
        """What scp does: a file from the first office to the second."""
        text = self.machines["office-a"].run(f"cat {name}")
        self.machines["office-b"].run(f"umask 77; cat >{name} <<'END'\n{text}\nEND")

    def wait_reach(self) -> None:
        host, other = self.sites.b.host, self.sites.a.host
        wait_for(lambda: host.reaches(other.ipv4), "one office to reach the other", 60)


@contextmanager
def joined_offices() -> Iterator[Offices]:
    """Two machines with the package's files and daemons, joined; frames cross."""
    with Lab("guides") as lab:
        sites = TwoSites(lab, bridges=False)
        for site in sites.sites:
            # As on a machine, and not on a veth: nothing is wrong with this host.
            site.namespace.run("ethtool", "-K", "wan0", "gro", "on")
        names = {"vpn.example.net": sites.a.wan_ipv4}
        both = Offices(sites, {"office-a": Machine(sites.a, names), "office-b": Machine(sites.b, names)})
        both.daemons = {place: machine.install() for place, machine in both.machines.items()}
        first, second = (block for block in guide("join-two-offices") if block.kind == "sh")
        both.follow(first)
        both.copy("warehouse.ovpn")
        both.follow(second)
        both.wait_reach()
        yield both
        for place, daemon in both.daemons.items():
            if status := daemon.stop():
                raise LabError(f"the daemon of {place} ended with {status}")
