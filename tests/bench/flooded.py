"""New clients, and the traffic of a connected one, during many forged hard resets a second from everywhere.

Traffic is compared with that during the same flood to a closed port, in turn. With tls-crypt-v2 the stranger
invents keys, or repeats a packet that it has captured: of a client that can bring its key again, or of one of
OpenVPN 2.5.
"""

from __future__ import annotations

import argparse
import re
import secrets
import signal
import statistics
import time
from pathlib import Path
from typing import Any

from bridged.protocol.keys.client_wrap_key import ServerWrapKey
from bridged.protocol.packets.packet import ControlBody, ControlHeader, Opcode, serialize_body
from bridged.protocol.packets.wrap import TlsCryptV2Keys
from bridged.protocol.packets.wrap.tls_crypt_v2 import EARLY_PACKET_ID
from bridged.protocol.role import Role
from bridged.units import KeyId
from tests.bench.forged_resets import __file__ as FLOOD_FILE
from tests.bench.measures import Joined, tcp_stream
from tests.lab import bridged_daemon
from tests.lab.bridged_daemon import BRIDGED
from tests.lab.core import Lab
from tests.lab.openvpn import Profile
from tests.lab.processes import Process
from tests.lab.topology import Hub
from tests.lab.waiting import wait_for
from tests.system.daemon_lab import own_kibioctets

RATE = 20_000
CLOSED_PORT = 9
TRAFFIC_SECONDS = 5.0
CONNECT_SECONDS = 20.0
WRAPS = ("none", "tls-auth", "tls-crypt", "tls-crypt-v2", "captured", "captured-2.5")
CAPTURED = {"captured": EARLY_PACKET_ID, "captured-2.5": 1}
"""The first packet id of the client that was listened to."""
SERVER = ServerWrapKey(bytes(range(128)))


def captured(kind: str) -> str:
    """A client's hard reset, in hex."""
    client = SERVER.make_client_key(secrets.token_bytes, int(time.time()))
    keys = TlsCryptV2Keys(client.key, Role.CLIENT, client.wrapped)
    header = ControlHeader(Opcode.HARD_RESET_CLIENT_V3, KeyId(0), secrets.token_bytes(8))
    body = serialize_body(ControlBody(message_id=0))
    return keys.seal(header, CAPTURED[kind], int(time.time()), body).hex()


class FloodBench:
    """A server, a connected client with a LAN host, and a third site: the flood's and new clients'."""

    def __init__(self, lab: Lab, wrap: Any, dataplane: str = "auto", rate: int = RATE) -> None:
        self.hub = Hub(lab, 2)
        self._wrap = wrap
        self._rate = rate
        has_own_keys = wrap == "tls-crypt-v2" or wrap in CAPTURED
        self.profile = Profile(wrap="none" if has_own_keys else wrap, ciphers=("AES-256-GCM",))
        self._keys: dict[str, Any] = {"dataplane": dataplane}
        self._own_wrap: dict[str, Any] = {}
        if has_own_keys:
            client = SERVER.make_client_key(secrets.token_bytes, int(time.time()))
            self._keys["wrap"] = {"mode": "tls-crypt-v2", "key": SERVER.serialize()}
            self._own_wrap = {"wrap": {"mode": "tls-crypt-v2", "key": client.serialize()}}
        issue = self.profile.authority.issue
        identity = issue("server", "server")
        self.server = bridged_daemon.server(
            self.hub.server, self.profile, identity, tunnel=self._keys
        ).start()
        self.client = self._client(0, "first").start()
        self.client.wait_connected()
        # Answers go to where the flood says that it comes from.
        gateway = self.hub.clients[1].wan_ipv4
        self.hub.server.namespace.ip("route", "replace", "default", "via", gateway)

    def close(self) -> None:
        self.client.stop()
        self.server.stop()

    def _client(self, site: int, name: str) -> bridged_daemon.Bridged:
        identity = self.profile.authority.issue(name, "client")
        target = self.hub.server.wan_ipv4
        return bridged_daemon.client(
            self.hub.clients[site],
            self.profile,
            identity,
            target,
            tunnel=self._keys | self._own_wrap,
            name=name,
        )

    def flood(self, port: int, seconds: float) -> Process:
        """Under way once this returns."""
        process = self.hub.clients[1].namespace.popen(
            *(str(Path(BRIDGED).with_name("python")), FLOOD_FILE, self.hub.server.wan_ipv4, str(port)),
            *("--seconds", str(seconds), "--rate", str(self._rate)),
            *(("--packet", captured(self._wrap)) if self._wrap in CAPTURED else ("--wrap", self._wrap)),
            log=f"flood-{time.monotonic()}",
        )
        wait_for(lambda: "ready" in process.output(), "the forged resets", 60.0, 0.02)
        return process

    def connect(self, number: int, seconds: float = CONNECT_SECONDS) -> float:
        """Seconds from a new client's first packet until it is connected, during the flood."""
        flood = self.flood(self.profile.port, seconds)
        try:
            time.sleep(1.0)
            newcomer = self._client(1, f"new-{number}").start()
            newcomer.wait_connected(seconds=seconds)
            found = re.search(r"peer_connected .*?\bseconds=([0-9.]+)", newcomer.log)
            newcomer.stop()
            assert found is not None, newcomer.log
            return float(found[1])
        finally:
            flood.stop(signal.SIGKILL)

    def traffic(self, port: int) -> float:
        """Mbit/s of one TCP stream between the LANs, while the flood goes to `port`."""
        flood = self.flood(port, TRAFFIC_SECONDS + 4.0)
        try:
            joined = Joined(self.hub.clients[0].host, self.hub.server.host, (), "reno")
            return tcp_stream(joined, TRAFFIC_SECONDS).value
        finally:
            flood.stop(signal.SIGKILL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--connects", type=int, default=8)
    parser.add_argument("--wrap", choices=WRAPS, action="append")
    parser.add_argument("--dataplane", choices=("native", "portable"), default="native")
    parser.add_argument("--rate", type=int, default=RATE, help="forged resets a second")
    arguments = parser.parse_args()
    print(
        "| wrapping | connect, median s | connect, last s | traffic, closed port | server's port | ratio | "
        "memory, KiB more |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for wrap in arguments.wrap or WRAPS:
        with Lab("flooded") as lab:
            bench = FloodBench(lab, wrap, arguments.dataplane, arguments.rate)
            before = own_kibioctets(bench.server)
            times = sorted(bench.connect(number) for number in range(arguments.connects))
            pairs = [
                (bench.traffic(CLOSED_PORT), bench.traffic(bench.profile.port))
                for _ in range(arguments.pairs)
            ]
            grown = own_kibioctets(bench.server) - before
            bench.close()
        closed, ours = (statistics.median(side) for side in zip(*pairs, strict=True))
        ratio = statistics.median(mine / theirs for theirs, mine in pairs)
        print(
            f"| {wrap} | {statistics.median(times):.2f} | {times[-1]:.2f} | {closed:.0f} | {ours:.0f} | "
            f"{ratio:.2f} | {grown} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
