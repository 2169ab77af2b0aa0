"""A thousand clients that come to one server at the same moment: how long until all are up.

Server and clients are whole programs in namespaces of their own. What the clients cost counts against the
same processors.
"""

from __future__ import annotations

import argparse
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from tests.bench.clients_program import ClientsProgram, add_addresses, write_identities
from tests.bench.processor import Stopwatch
from tests.bench.returning_clients import __file__ as CLIENTS_FILE
from tests.lab import bridged_daemon
from tests.lab.bridged_daemon import Bridged
from tests.lab.core import Lab
from tests.lab.openvpn import Profile
from tests.lab.pki import write_private
from tests.lab.topology import Hub

ANSWER_SECONDS = 120.0


class Clients(ClientsProgram):
    """The program of all clients."""

    def __init__(self, bench: ReturnBench, *, nat: bool) -> None:
        options = ["--clients", str(bench.clients), "--wrap", bench.profile.wrap]
        if nat:
            options.append("--nat")
        if bench.key is not None:
            options += ["--key", str(bench.key)]
        space = bench.hub.clients[0].namespace
        super().__init__(space, CLIENTS_FILE, bench.identities, bench.profile.port, *options)
        self.answer(ANSWER_SECONDS)


class ReturnBench:
    """One server's site and one with all clients."""

    def __init__(self, lab: Lab, clients: int, wrap: Any, dataplane: str = "auto") -> None:
        self.clients = clients
        self.hub = Hub(lab, 1, wan="direct")
        self.profile = Profile(wrap=wrap, ciphers=("AES-256-GCM",))
        self.identities = lab.directory / "clients"
        self.key: Path | None = None
        if wrap != "none":
            self.key = lab.directory / "wrap.key"
            write_private(self.key, self.profile.wrap_key)
        write_identities(self.identities, self.profile, clients, "client")
        add_addresses(self.hub.server.namespace, self.hub.clients[0].namespace, clients)
        identity = self.profile.authority.issue("server", "server")
        keys = {"dataplane": dataplane, "peers_max": 2 * clients}
        self.server = bridged_daemon.server(self.hub.server, self.profile, identity, tunnel=keys)

    @contextmanager
    def running(self) -> Iterator[Bridged]:
        self.server.start()
        try:
            yield self.server
        finally:
            self.server.stop()

    def connect(self, *, nat: bool) -> dict[str, Any]:
        """All clients at once to a fresh server."""
        with self.running() as server:
            clients = Clients(self, nat=nat)
            try:
                watch = Stopwatch([server.started.pid])
                clients.say("connect")
                found = clients.answer(ANSWER_SECONDS)
                (found["server_cpu"],) = watch.used()
                drops = server.tunnel()
                found["drops"] = {"control": drops["control_drops"], "data": drops["dataplane"]["drops"]}
                return found
            finally:
                clients.close()

    def after_kill(self, *, nat: bool) -> dict[str, Any]:
        """The figures of the return alone."""
        return self.killed(nat=nat)[1]

    def killed(self, *, nat: bool) -> tuple[dict[str, Any], dict[str, Any]]:
        """All clients connect, and are idle; the server dies (SIGKILL), and is started again at once.

        The second figures count from the kill; `started`: when the server was ready again.
        """
        self.server.start()
        clients = Clients(self, nat=nat)
        try:
            clients.say("connect")
            first = clients.answer(ANSWER_SECONDS)
            clients.say("come back")
            self.server.stop(signal.SIGKILL)
            killed = time.monotonic()
            self.server.start()
            started = time.monotonic() - killed
            found = clients.answer(ANSWER_SECONDS)
            found["started"] = started
            return first, found
        finally:
            clients.close()
            self.server.stop()


WRAPS = ("none", "tls-auth", "tls-crypt")


def rows(clients: int, rounds: int, wraps: Iterable[str]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(what, wrapping, figures) of all scenes; the median round of each, by the last client."""
    for wrap in wraps:
        with Lab("return") as lab:
            bench = ReturnBench(lab, clients, wrap)
            for what, scene in (
                ("at once", partial(bench.connect, nat=False)),
                ("at once, one NAT address", partial(bench.connect, nat=True)),
                ("after kill -9", partial(bench.after_kill, nat=False)),
            ):
                found = sorted((scene() for _ in range(rounds)), key=lambda figures: figures["last"])
                yield what, wrap, found[len(found) // 2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--wrap", choices=WRAPS, action="append", help="default: all")
    arguments = parser.parse_args()
    print("| scene | wrapping | up | median s | last s | server CPU s | clients CPU s | failures |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for what, wrap, found in rows(arguments.clients, arguments.rounds, arguments.wrap or WRAPS):
        server = f"{found['server_cpu']:.1f}" if "server_cpu" in found else ""
        print(
            f"| {what} | {wrap} | {found['up']} | {found['median']:.1f} | {found['last']:.1f} | {server} | "
            f"{found['cpu']:.1f} | {found['failures']} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
