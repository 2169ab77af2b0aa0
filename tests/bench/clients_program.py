"""A program that holds many clients of one server: its certificates, its addresses, and talking to it.

Commands are lines on its standard input, answers are lines of JSON.
"""

from __future__ import annotations

import json
import signal
import subprocess
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from tests.lab.bridged_daemon import BRIDGED
from tests.lab.namespace import Namespace
from tests.lab.openvpn import Profile
from tests.lab.pki import write_private
from tests.lab.processes import Process
from tests.lab.topology import WAN_PORT
from tests.lab.waiting import LabError, wait_for

SERVER_ADDRESS, FIRST_CLIENT, PREFIX = "198.18.255.1", "198.18.1.1", 16


class ClientsProgram:
    """The program `file`, started in `space` for the clients whose certificates are in `identities`."""

    def __init__(self, space: Namespace, file: str, identities: Path, port: int, *options: str) -> None:
        python = str(Path(BRIDGED).with_name("python"))
        self._process: Process = space.popen(
            *(python, file, str(identities), SERVER_ADDRESS, str(port), FIRST_CLIENT, *options),
            log="clients",
            stdin=subprocess.PIPE,
        )
        self._answers = 0

    def say(self, line: str) -> None:
        stream = self._process.popen.stdin
        assert stream is not None
        stream.write(f"{line}\n".encode())
        stream.flush()

    def answer(self, seconds: float) -> dict[str, Any]:
        """The next one.

        Raises:
            LabError: not in time, or the program ended.
        """
        self._answers += 1
        lines = wait_for(self._lines, f"answer {self._answers} of the clients", seconds, 0.002)
        answer: dict[str, Any] = json.loads(lines[self._answers - 1])
        return answer

    def close(self) -> None:
        try:
            self.say("end")
            self._process.wait(10)
        except (LabError, OSError):
            self._process.stop(signal.SIGKILL)

    def _lines(self) -> list[str]:
        running = self._process.running
        lines = [line for line in self._process.output().splitlines(keepends=True) if line.endswith("\n")]
        lines = [line for line in lines if line.startswith("{")]
        if not running and len(lines) < self._answers:
            raise LabError(f"the clients' program ended\n{self._process.tail()}")
        return lines if len(lines) >= self._answers else []


def write_identities(folder: Path, profile: Profile, count: int, name: str) -> None:
    """A folder with certificates for each of `count` clients, in it, and tls-crypt.key where that wraps."""
    for number in range(count):
        identity = profile.authority.issue(f"{name}-{number + 1:03}", "client")
        own = folder / f"{number:04}"
        own.mkdir(parents=True)
        write_private(own / "ca.crt", profile.authority.certificate)
        write_private(own / "own.crt", identity.certificate)
        write_private(own / "own.key", identity.key)
        if profile.wrap == "tls-crypt":
            write_private(own / "tls-crypt.key", profile.wrap_key)


def add_addresses(server: Namespace, clients: Namespace, count: int) -> None:
    """The server's address, and one for each client, on the WAN."""
    first = ip_address(FIRST_CLIENT)
    for space, addresses in ((server, [SERVER_ADDRESS]), (clients, [str(first + n) for n in range(count)])):
        lines = "".join(f"addr add {address}/{PREFIX} dev {WAN_PORT}\n" for address in addresses)
        space.run("ip", "-batch", "-", stdin=lines)
