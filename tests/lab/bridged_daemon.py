"""The daemon under test: its YAML, `bridged run` in a namespace, and what it says of itself."""

from __future__ import annotations

import http.client
import json
import shutil
import signal
import socket
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import yaml

from tests.lab.openvpn import Profile
from tests.lab.pki import Identity, write_private
from tests.lab.prepared import prepared
from tests.lab.processes import Process, run
from tests.lab.topology import LAN_PORT, Site
from tests.lab.waiting import PATIENCE, LabError, NotInTime, wait_for

BRIDGED = str(Path(sys.executable).with_name("bridged"))
REFUSING_KERNEL = str(Path(__file__).with_name("refusing_kernel.py"))
TUNNEL = "lab"
METRICS_PORT = 9743
START_SECONDS = 20.0


class Bridged:
    """One daemon at a site, from a configuration of plain values (what the YAML file says).

    Its state folder, admin socket and files are in the lab's directory: several daemons do not meet. A
    new object begins without what an earlier one of its name has remembered, addresses and servers.
    `state` and `admin` are filled in where the configuration has none. `file`: an existing YAML instead.
    `refusals`: what the kernel shall refuse this daemon (tests/lab/refusing_kernel.py).
    `program`: another `bridged` than that of this environment.
    `under`: the program that it runs under. `environment`: variables for it.
    """

    def __init__(self, site: Site, configuration: Mapping[str, Any], *, name: str = "bridged") -> None:
        self.site = site
        self.name = name
        self.stem = f"{site.namespace.role}-{name}"
        directory = site.namespace.directory
        own = directory / f"{self.stem}.state"
        shutil.rmtree(own, ignore_errors=True)
        self.state_directory = Path(configuration.get("state_directory", own))
        self.socket = Path(configuration.get("admin", {}).get("socket", directory / f"{self.stem}.sock"))
        self.configuration: dict[str, Any] = {
            "state_directory": str(self.state_directory),
            "admin": {"socket": str(self.socket)},
            "log": {"format": "console"},
            # Also on a host that has the package's user.
            "user": "root",
            **configuration,
        }
        self.file = directory / f"{self.stem}.yaml"
        self.process: Process | None = None
        self.refusals: tuple[str, ...] = ()
        self.program = BRIDGED
        self.under: tuple[str, ...] = ()
        self.environment: dict[str, str] = {}
        self.write()

    def write(self) -> None:
        """Write the configuration file anew, e.g. after a change of `configuration`."""
        write_private(self.file, yaml.safe_dump(self.configuration, sort_keys=False))

    @property
    def started(self) -> Process:
        if self.process is None:
            raise LabError("the daemon was not started")
        return self.process

    @property
    def log(self) -> str:
        return self.started.output()

    def start(self, *options: str, wait: bool = True, seconds: float = START_SECONDS) -> Bridged:
        """`bridged run --config FILE` (and options), until its bridges are made."""
        arguments = ("run", "--config", str(self.file), *options)
        variables = {"PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1", **self.environment}
        space, source = self.site.namespace, None if self._is_special else prepared()
        if source is not None:
            self.process = space.fork_daemon(source, *arguments, log=self.name, env=variables)
        else:
            under = (sys.executable, REFUSING_KERNEL, ",".join(self.refusals)) if self.refusals else ()
            command = (*self.under, *under, self.program, *arguments)
            self.process = space.popen(*command, log=self.name, env=variables)
        if wait:
            bridges = len(self.configuration["bridges"])
            self.wait_until(lambda status: len(status["bridges"]) == bridges, "the daemon's bridges", seconds)
        return self

    @property
    def _is_special(self) -> bool:
        """Only as a program of its own."""
        other = self.program != BRIDGED or bool(self.site.namespace.cpus)
        return other or bool(self.refusals or self.under or self.environment)

    def stop(self, number: int = signal.SIGTERM, seconds: float = 20.0) -> int:
        """Ask the daemon to end; its exit status. See `Process.stop`."""
        return self.started.stop(number, seconds)

    def status(self) -> dict[str, Any]:
        """GET /v1/status: the same document as `bridged status --json`, without starting a program.

        Raises:
            OSError: the daemon does not answer (yet, or any more).
        """
        return self.api("/v1/status")

    def stations(self, tunnel: str = TUNNEL) -> dict[str, str | None]:
        """Address -> name of the peer it was learned behind (None: the LAN)."""
        found = self.api(f"/v1/fdb?tunnel={tunnel}")["stations"]
        return {station["address"]: station["peer"] for station in found}

    def api(self, path: str) -> dict[str, Any]:
        """What the admin API answers to GET.

        Raises:
            OSError: no answer, or a refusal.
        """
        connection = _UnixConnection(self.socket)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read()
        except http.client.HTTPException as error:
            raise ConnectionError(str(error)) from error
        finally:
            connection.close()
        if answer.status != 200:
            raise ConnectionError(f"{path}: {answer.status}")
        document: dict[str, Any] = json.loads(body)
        return document

    def tunnel(self, name: str = TUNNEL) -> dict[str, Any]:
        """One tunnel's part of the status."""
        for tunnel in self.status()["tunnels"]:
            if tunnel["name"] == name:
                found: dict[str, Any] = tunnel
                return found
        raise LabError(f"no tunnel {name!r} in the status")

    def drops(self, tunnel: str = TUNNEL) -> dict[str, int]:
        """What the data plane dropped so far, by "direction reason"."""
        found: dict[str, dict[str, int]] = self.tunnel(tunnel)["dataplane"]["drops"]
        return {
            f"{direction} {reason}": count
            for direction, reasons in found.items()
            for reason, count in reasons.items()
        }

    def connected_peers(self, tunnel: str = TUNNEL) -> list[dict[str, Any]]:
        return [peer for peer in self.tunnel(tunnel)["peers"] if peer["connected"]]

    def wait_connected(self, peers: int = 1, seconds: float = 20.0, tunnel: str = TUNNEL) -> Bridged:
        """Until that many peers of the tunnel are connected.

        Raises:
            LabError: not in time, or the daemon ended; with the end of its log.
        """

        def enough(status: dict[str, Any]) -> bool:
            mine = [item for item in status["tunnels"] if item["name"] == tunnel]
            return bool(mine) and sum(peer["connected"] for peer in mine[0]["peers"]) >= peers

        self.wait_until(enough, f"{peers} connected peers", seconds)
        return self

    def wait_until(self, condition: Any, what: str, seconds: float = 10.0) -> dict[str, Any]:
        """Until `condition(status)` holds; that status. An unanswered request counts as: not yet."""

        def asked() -> dict[str, Any] | None:
            if not self.started.running:
                code = self.started.popen.returncode
                raise LabError(f"{self.stem} ended ({code}) before {what}\n{self.started.tail()}")
            try:
                status = self.status()
            except OSError:
                return None
            return status if condition(status) else None

        try:
            status = wait_for(asked, f"{self.stem}: {what}", seconds)
        except NotInTime as error:
            raise NotInTime(f"{error}\n{self.started.tail()}") from None
        assert status is not None
        return status

    def reload(self) -> str:
        """Write the configuration file anew and have the daemon become what it says; the outcome in words."""
        self.write()
        return self.command("reload", "--config", str(self.file)).strip()

    def command(self, *arguments: str, check: bool = True) -> str:
        """Any `bridged …` command in the daemon's namespace; its standard output."""
        return self.site.namespace.run(BRIDGED, *arguments, check=check)

    def metrics(self) -> str:
        """The text of /metrics, fetched inside the daemon's namespace."""
        listen = self.configuration.get("metrics", {}).get("listen", f":{METRICS_PORT}")
        return self.site.namespace.call(partial(_fetch_metrics, int(listen.rpartition(":")[2])))

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that have all these labels; 0 where there is none."""
        total = 0.0
        for line in self.metrics().splitlines():
            head, _, value = line.rpartition(" ")
            if head.split("{")[0] == name and all(f'{key}="{text}"' in head for key, text in labels.items()):
                total += float(value)
        return total


def server(
    site: Site,
    profile: Profile,
    identity: Identity,
    *,
    tunnel: Mapping[str, Any] | None = None,
    bridge: Mapping[str, Any] | None = None,
    listen: str = "",
    top: Mapping[str, Any] | None = None,
    name: str = "bridged",
) -> Bridged:
    """A daemon as server; `tunnel`, `bridge` and `top` override or add keys of the YAML."""
    keys = {"listen": listen or f"0.0.0.0:{profile.port}", "transport": profile.transport}
    return _daemon(site, "server", profile, identity, keys | dict(tunnel or {}), bridge, top, name)


def client(
    site: Site,
    profile: Profile,
    identity: Identity,
    remote: str,
    *,
    tunnel: Mapping[str, Any] | None = None,
    bridge: Mapping[str, Any] | None = None,
    top: Mapping[str, Any] | None = None,
    name: str = "bridged",
) -> Bridged:
    """A daemon as client of `remote` (host or host:port)."""
    where = remote if ":" in remote else f"{remote}:{profile.port}"
    if profile.transport == "tcp" and "/" not in where:
        where += "/tcp"
    keys = {"remotes": [where]} | dict(tunnel or {})
    return _daemon(site, "client", profile, identity, keys, bridge, top, name)


def bridged_pair(
    server_site: Site,
    client_site: Site,
    profile: Profile | None = None,
    *,
    server_tunnel: Mapping[str, Any] | None = None,
    client_tunnel: Mapping[str, Any] | None = None,
    bridge: Mapping[str, Any] | None = None,
    remote: str = "",
    refusals: tuple[str, ...] = (),
) -> tuple[Bridged, Bridged]:
    """Two of our daemons, connected; the kernel refuses both of them the same."""
    profile = profile or Profile()
    issue = profile.authority.issue
    first = server(server_site, profile, issue("server", "server"), tunnel=server_tunnel, bridge=bridge)
    far = remote or server_site.wan_ipv4
    second = client(client_site, profile, issue("client", "client"), far, tunnel=client_tunnel, bridge=bridge)
    first.refusals = second.refusals = refusals
    first.start()
    second.start().wait_connected()
    first.wait_connected()
    return first, second


def _daemon(
    site: Site,
    role: Literal["server", "client"],
    profile: Profile,
    identity: Identity,
    keys: Mapping[str, Any],
    bridge: Mapping[str, Any] | None,
    top: Mapping[str, Any] | None,
    name: str,
) -> Bridged:
    tls = {"ca": profile.authority.certificate, "certificate": identity.certificate, "key": identity.key}
    wrap: dict[str, Any] = {"mode": profile.wrap}
    if profile.wrap != "none":
        wrap["key"] = profile.wrap_key
    if profile.wrap == "tls-auth":
        wrap |= {"direction": 0 if role == "server" else 1, "digest": profile.digest}
    tunnel: dict[str, Any] = {
        "role": role,
        "bridge": "br0",
        "tap": {"name": "tap0"},
        "tls": {**tls, "version_max": profile.tls_max},
        "wrap": wrap,
        "ciphers": list(profile.ciphers),
        "keepalive": {"ping_seconds": profile.ping_seconds, "restart_seconds": profile.restart_seconds},
        "renegotiate": {"seconds": profile.reneg_seconds},
        "mtu": profile.tap_mtu,
        "point_to_point": profile.point_to_point,
    }
    tunnel |= keys
    document = {"bridges": {"br0": {"ports": [LAN_PORT], **(bridge or {})}}, "tunnels": {TUNNEL: tunnel}}
    return Bridged(site, document | dict(top or {}), name=name)


def _fetch_metrics(port: int) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5 * PATIENCE)
    try:
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode()
    finally:
        connection.close()


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("bridged", timeout=5 * PATIENCE)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def status_of(file: Path) -> dict[str, Any]:
    """`bridged status --json --config FILE`, the program itself."""
    document: dict[str, Any] = json.loads(run(BRIDGED, "status", "--json", "--config", str(file)))
    return document
