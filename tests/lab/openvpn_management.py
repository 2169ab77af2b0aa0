"""OpenVPN's management interface on a Unix socket: what a server's operator says to its clients.

Source: doc/management-notes.txt of OpenVPN 2.6. `client-kill CID TEXT` sends TEXT in place of RESTART.
"""

from __future__ import annotations

import re
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.lab.waiting import PATIENCE, LabError, NotInTime, wait_for

ANSWER_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Login:
    """A client that asks to be let in; `at` is monotonic, `address` its own."""

    client: str
    key: str
    address: str
    at: float


class Management:
    """Of one server, whose configuration has the lines of `lines`. Reads what comes only when asked."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.logins: list[Login] = []
        self._socket: socket.socket | None = None
        self._unread = b""

    def lines(self, *, judges: bool = False) -> tuple[str, ...]:
        """For the configuration. `judges`: each login waits for `admit` or `deny`."""
        own = (f"management {self.path} unix",)
        return (*own, "management-client-auth", "auth-user-pass-optional") if judges else own

    def open(self) -> Management:
        def connected() -> socket.socket | None:
            made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                made.connect(str(self.path))
            except OSError:
                made.close()
                return None
            return made

        self._socket = wait_for(connected, f"the management interface at {self.path}")
        return self

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()

    def kill(self, text: str = "") -> None:
        """End the client that came last; `text` is what it hears. Those that it heard before may linger."""
        client = max(self._clients(), key=int)
        self._say(f'client-kill {client} "{text}"' if text else f"client-kill {client}")

    def next_login(self, seconds: float = 15.0) -> Login:
        """The next client that asks to be let in."""
        before = len(self.logins)
        deadline = time.monotonic() + seconds * PATIENCE
        while len(self.logins) == before:
            if time.monotonic() > deadline:
                raise NotInTime(f"nobody asked to be let in within {seconds} s")
            self._read_line(0.2)
        return self.logins[before]

    def admit(self, login: Login) -> None:
        self._say(f"client-auth-nt {login.client} {login.key}")

    def deny(self, login: Login, text: str) -> None:
        """`text` follows AUTH_FAILED, and a comma."""
        self._say(f'client-deny {login.client} {login.key} "denied" "{text}"')

    def _clients(self) -> list[str]:
        self._send("status 3")
        found: list[str] = []
        header: list[str] = []
        deadline = time.monotonic() + ANSWER_SECONDS * PATIENCE
        while time.monotonic() < deadline:
            line = self._read_line(0.2)
            if line == "END":
                return found
            fields = (line or "").split("\t")
            if fields[:2] == ["HEADER", "CLIENT_LIST"]:
                header = fields[1:]
            elif fields[0] == "CLIENT_LIST":
                found.append(fields[header.index("Client ID")])
        raise NotInTime("no list of clients")

    def _say(self, command: str) -> None:
        self._send(command)
        deadline = time.monotonic() + ANSWER_SECONDS * PATIENCE
        while time.monotonic() < deadline:
            line = self._read_line(0.2) or ""
            if line.startswith("SUCCESS:"):
                return
            if line.startswith("ERROR:"):
                raise LabError(f"{command}: {line}")
        raise NotInTime(f"no answer to {command}")

    def _send(self, command: str) -> None:
        assert self._socket is not None
        self._socket.sendall(f"{command}\n".encode())

    def _read_line(self, seconds: float) -> str | None:
        """One line; None where none came. Notes each login on the way."""
        assert self._socket is not None
        self._socket.settimeout(seconds)
        while b"\n" not in self._unread:
            try:
                more = self._socket.recv(65536)
            except TimeoutError:
                return None
            if not more:
                raise LabError("the management interface was closed")
            self._unread += more
        line, _, self._unread = self._unread.partition(b"\n")
        text = line.decode(errors="replace").rstrip("\r")
        self._note(text)
        return text

    def _note(self, text: str) -> None:
        if found := re.fullmatch(r">CLIENT:CONNECT,(\d+),(\d+)", text):
            self._asking = (found[1], found[2], time.monotonic())
            self._address = ""
        elif found := re.fullmatch(r">CLIENT:ENV,untrusted_ip6?=(.+)", text):
            self._address = found[1]
        elif text == ">CLIENT:ENV,END" and self._asking is not None:
            client, key, at = self._asking
            self.logins.append(Login(client, key, self._address, at))
            self._asking = None

    _asking: tuple[str, str, float] | None = None
    _address = ""
