"""The soak's many light clients: their certificates, their addresses and their program."""

from __future__ import annotations

import json
import subprocess
from ipaddress import ip_address
from pathlib import Path

from tests.bench.churning_clients import __file__ as PROGRAM
from tests.bench.soak_watch import Check
from tests.lab.bridged_daemon import BRIDGED
from tests.lab.core import Lab
from tests.lab.namespace import Process
from tests.lab.openvpn import Profile
from tests.lab.pki import write_private
from tests.lab.topology import WAN_PORT, Hub, Site

HUB_ADDRESS, FIRST_ADDRESS, PREFIX = "198.18.255.1", "198.18.1.1", 16


class Visitors:
    """The program of the light clients at `site`; none where `peers` is 0."""

    def __init__(self, lab: Lab, hub: Hub, site: Site, profile: Profile, peers: int) -> None:
        self._peers = peers
        self._profile = profile
        self._space = site.namespace
        self._directory = lab.directory / "visitors"
        self._process: Process | None = None
        self._counts: dict[str, int] = {}
        first = ip_address(FIRST_ADDRESS)
        own = [str(first + number) for number in range(peers)]
        for space, addresses in ((hub.server.namespace, [HUB_ADDRESS]), (self._space, own)):
            lines = "".join(f"addr add {one}/{PREFIX} dev {WAN_PORT}\n" for one in addresses)
            space.run("ip", "-batch", "-", stdin=lines)
        for number in range(peers):
            identity = profile.authority.issue(f"visitor-{number:03}", "client")
            folder = self._directory / f"{number:04}"
            folder.mkdir(parents=True)
            write_private(folder / "ca.crt", profile.authority.certificate)
            write_private(folder / "own.crt", identity.certificate)
            write_private(folder / "own.key", identity.key)
            write_private(folder / "tls-crypt.key", profile.wrap_key)

    def start(self) -> None:
        if self._peers:
            python = str(Path(BRIDGED).with_name("python"))
            self._process = self._space.popen(
                *(python, PROGRAM, str(self._directory), HUB_ADDRESS, str(self._profile.port)),
                FIRST_ADDRESS,
                log="visitors",
                stdin=subprocess.PIPE,
            )
            self._process.wait_for_output("ready", 20)

    def end(self) -> None:
        if self._process is None:
            return
        assert self._process.popen.stdin is not None
        self._process.popen.stdin.close()
        if self._process.wait(20) == 0:
            self._counts = json.loads(self._process.output().splitlines()[-1])

    def verdict(self) -> Check:
        lost = [name for name in self._counts if name.startswith("lost")]
        good = not self._peers or (self._counts.get("connected", 0) >= self._peers // 4 and not lost)
        return Check(f"{self._peers} light clients", str(self._counts), good)
