"""Two sites where everything on the troubleshooting page goes wrong at once, in two daemons.

The server's daemon cannot join super-frames and has four tunnels. The client's daemon has no native data
plane and a tunnel for each mistake. Daemons that refuse to start are started beside them, and one at the
client's site on an odd machine: in a container without /dev/net/tun, with an old kernel and a wrong clock.
"""

from __future__ import annotations

import re
import secrets
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import bridged
from bridged.pki import refused_keys_path
from bridged.protocol.keys.cipher import Cipher
from bridged.protocol.keys.client_wrap_key import ServerWrapKey
from bridged.protocol.keys.key_derivation import static_data_key
from bridged.protocol.keys.static_key import parse_static_key
from bridged.protocol.packets.cbc_packet import CbcHmac
from bridged.protocol.packets.occ import PING
from bridged.protocol.packets.static_packet import seal_static
from bridged.runtime.server.password_file import hash_password
from tests.lab import BRIDGED, Bridged, Lab, OpenVpn, Process, Profile, TwoSites, wait_for
from tests.lab.frames import send_frames
from tests.lab.odd_machine import odd_machine
from tests.lab.pki import Authority, Identity, static_key, write_private

PACKAGE = Path(bridged.__file__).parent
# The mount goes away with the daemon's mount namespace.
WITHOUT_NATIVE = 'mount --bind "$0" "$1" && shift && exec "$@"'
FULL_DISK = 'mount -t tmpfs -o size=16k none "$0" && head -c 64k /dev/zero >"$0/full"; exec "$@"'
IN_CONTAINER = (
    "mount -t tmpfs -o mode=755 none /run && mkdir /run/systemd && echo lxc >/run/systemd/container && "
    'mount -t tmpfs -o mode=755 none /dev/net && $0; exec "$@"'
)
WITH_TUN = "mknod -m 666 /dev/net/tun c 10 200"
CLOSED = f'mount -t tmpfs none /dev/net && {WITH_TUN} && mount -t tmpfs -o mode=700 none "$0"; exec "$@"'
# As the unit runs it, with a key that only root may reach.
CLOSED_KEY = (
    "mount -t tmpfs -o mode=755 none /mnt && mkdir -m 700 /mnt/keys && touch /mnt/keys/site.key && "
    'install -d -o daemon /mnt/state && install -o daemon "$0" /mnt/bridged.yaml && '
    'exec setpriv --reuid=daemon --regid=daemon --clear-groups "$1" run --config /mnt/bridged.yaml'
)
HAS_BRIDGE_FILTER = Path("/proc/sys/net/bridge/bridge-nf-call-iptables").exists()
SILENT_PORT, CLOSED_PORT = 4000, 4001
LARGE = b"\xff" * 6 + bytes.fromhex("02005e770001") + b"\x88\xb6" + bytes(1480)
"""To everybody, and larger than the path with all that is put around it."""
OLD_KEY_PORT = 1201
COMPRESSING = ("comp-lzo yes", "allow-compression yes", 'pull-filter ignore "comp-lzo"')


@dataclass(slots=True)
class Evidence:
    """What a daemon says: its log, `bridged status` and /metrics as `ask` got them.

    `tunnel` is a pattern: what is about other tunnels is left out.
    """

    daemon: Bridged
    _status: str = ""
    _metrics: str = ""

    def log(self, tunnel: str) -> list[str]:
        """Lines, each with single spaces."""
        lines = [" ".join(line.split()) for line in self.daemon.log.splitlines()]
        return [line for line in lines if "tunnel=" not in line or re.search(rf"tunnel={tunnel}( |$)", line)]

    def status(self, tunnel: str) -> list[str]:
        """The warnings, each bridge, and the tunnels; each on one line."""
        parts = [" ".join(part.split()) for part in self._status.split("\n\n")]
        return [
            part for part in parts if not part.startswith("tunnel ") or re.match(f"tunnel {tunnel}:", part)
        ]

    def metrics(self, tunnel: str) -> list[str]:
        """Samples."""
        lines = self._metrics.splitlines()
        return [line for line in lines if 'tunnel="' not in line or re.search(f'tunnel="{tunnel}"', line)]

    def ask(self) -> None:
        """Ask the daemon for its status and metrics; before that both are empty."""
        self._status = self.daemon.command("status", "--config", str(self.daemon.file))
        self._metrics = self.daemon.metrics()


@dataclass(slots=True)
class TroubledSites:
    """`server`, `client` and `odd` are at work; `refused`: name -> a daemon that would not start."""

    server: Evidence
    client: Evidence
    odd: Evidence
    refused: dict[str, Process]


class Cast:
    """Who takes part: one CA, one wrap key, and whoever has something else."""

    def __init__(self, sites: TwoSites) -> None:
        self.sites = sites
        self.profile = Profile()
        authority = self.profile.authority
        self.foreign = Authority("Another CA").issue("foreign", "client")
        self.revoked = authority.issue("revoked", "client")
        authority.revoke(self.revoked)
        self.wrap_server = ServerWrapKey.generate(secrets.token_bytes)
        names = ("stolen", "unasked")
        self.wrap_clients = {
            name: self.wrap_server.make_client_key(secrets.token_bytes, int(time.time())) for name in names
        }

    def tunnel(self, role: str, bridge: str, identity: Identity, **more: Any) -> dict[str, Any]:
        """A tunnel's configuration; `more` overrides keys, in `tls` key by key."""
        authority = self.profile.authority
        tls = {"ca": authority.certificate, "certificate": identity.certificate, "key": identity.key}
        return {
            "role": role,
            "bridge": bridge,
            "wrap": {"mode": self.profile.wrap, "key": self.profile.wrap_key},
            **more,
            "tls": tls | more.get("tls", {}),
        }

    def server(self) -> Bridged:
        issue = self.profile.authority.issue
        address = self.sites.a.wan_ipv4
        own = issue("server", "server")
        tls = {"crl": self.profile.authority.revocation_list()}
        ports = {
            "main": 1194,
            "full": 1195,
            "ring": 1196,
            "wraps": 1197,
            "certificates": 1198,
            "asking": 1199,
            "unsure": 1200,
            "old-key": OLD_KEY_PORT,
            "keys": 1202,
        }
        bridges: dict[str, Any] = {f"br{number}": {} for number in range(1, len(ports))}
        bridges = {"br0": {"ports": ["lan0"]}} | bridges
        tunnels = {
            name: self.tunnel("server", bridge, own, listen=f"{address}:{port}", tls=tls)
            for (name, port), bridge in zip(ports.items(), bridges, strict=True)
        }
        tunnels["main"]["mtu"] = "auto"
        tunnels["full"]["peers_max"] = 1
        users = self.sites.a.namespace.directory / "passwords"
        write_private(users, f"alice:{hash_password('right')}\n")
        tunnels["unsure"]["authentication"] = {"password_file": str(users.with_name("missing"))}
        tunnels["asking"]["authentication"] = {"password_file": str(users)}
        tunnels["wraps"]["compression_framing"] = "comp-lzo"
        wrap = {"mode": "static-key", "key": self.profile.wrap_key, "digest": "SHA256"}
        more = {"wrap": wrap, "ciphers": ["AES-256-CBC"], "tls": {}, "point_to_point": True}
        tunnels["old-key"] |= more
        tunnels["keys"]["wrap"] = {
            "mode": "tls-crypt-v2",
            "key": self.wrap_server.serialize(),
            "verify_command": ["/usr/local/bin/missing"],
        }
        document = {"bridges": bridges, "tunnels": tunnels}
        daemon = Bridged(self.sites.a, document, name="troubled")
        daemon.refusals = ("super_frames",)
        daemon.state_directory.mkdir(mode=0o700)
        lines = f"{self.wrap_clients['stolen'].identifier} laptop\nlaptop\n"
        write_private(refused_keys_path(daemon.state_directory), lines)
        return daemon

    def client(self) -> Bridged:
        issue = self.profile.authority.issue
        address = self.sites.a.wan_ipv4
        remotes = (f"{address}:{port}" for port in (*range(1194, 1201), 1202))
        main, full, ring, wraps, trust, asking, unsure, keys = remotes

        def tunnel(remote: str, bridge: str = "lost", identity: Identity | None = None, **more: Any) -> Any:
            return self.tunnel(
                "client", bridge, identity or issue("lost", "client"), remotes=[remote], **more
            )

        twin = issue("twin", "client")
        tunnels = {
            "good": tunnel(main, "br0", issue("good", "client")),
            "silent": tunnel(f"203.0.113.1:{SILENT_PORT}", "large"),
            "closed": tunnel(f"203.0.113.1:{CLOSED_PORT}"),
            "nameless": tunnel("vpn.example.invalid:1194"),
            "other-key": tunnel(wraps, wrap={"mode": "tls-crypt", "key": static_key()}),
            "unwrapped": tunnel(wraps, wrap={"mode": "none"}),
            "foreign": tunnel(trust, identity=self.foreign),
            "expired": tunnel(trust, identity=issue("expired", "client", expired=True)),
            "revoked": tunnel(trust, identity=self.revoked),
            "misnamed": tunnel(trust, tls={"peer_name": "vpn.example.net"}),
            "wrong-role": tunnel(trust, identity=issue("wrong-role", "server")),
            "wrong-password": tunnel(
                asking,
                identity=issue("wrong-password", "client"),
                login={"username": "alice", "password": "wrong\n"},
            ),
            "unchecked": tunnel(
                unsure,
                identity=issue("unchecked", "client"),
                login={"username": "alice", "password": "right\n"},
            ),
            "full1": tunnel(full, identity=issue("full1", "client")),
            "full2": tunnel(full, identity=issue("full2", "client")),
            "twin1": tunnel(main, identity=twin),
            "twin2": tunnel(main, identity=twin),
            "ring1": tunnel(ring, "ring", issue("ring1", "client")),
            "ring2": tunnel(ring, "ring", issue("ring2", "client")),
        }
        for name, key in self.wrap_clients.items():
            tunnels[name] = tunnel(keys, wrap={"mode": "tls-crypt-v2", "key": key.serialize()})
        bridges = {"br0": {"ports": ["lan0", "lan9"]}, "lost": {}, "large": {"ports": ["big0"]}, "ring": {}}
        return Bridged(self.sites.b, {"bridges": bridges, "tunnels": tunnels}, name="troubled")

    def refused(self) -> dict[str, Bridged]:
        """Daemons that cannot start beside those two: what they are refused for -> the daemon."""
        identity = self.profile.authority.issue("second", "server")

        def daemon(name: str, bridge: str, ports: list[str], at_b: bool = True, **more: Any) -> Bridged:
            tunnel = self.tunnel("server", bridge, identity, **{"listen": "127.0.0.1:4002"} | more)
            document = {"bridges": {bridge: {"ports": ports}}, "tunnels": {name: tunnel}}
            # The port of the metrics is taken, and asked for first.
            document["metrics"] = {"listen": None}
            return Bridged(self.sites.b if at_b else self.sites.a, document, name=name)

        address = f"{self.sites.a.wan_ipv4}:1194"
        found = [
            daemon("bridge-held", "br0", []),
            daemon("adapter-held", "br8", [], tap={"name": "tap-good"}),
            daemon("port-held", "br8", ["held0"]),
            daemon("address-taken", "br28", [], at_b=False, listen=address),
            daemon("disk-full", "br9", []),
            daemon("tun-missing", "br8", []),
            daemon("state-closed", "br9", []),
            daemon("file-closed", "br9", []),
        ]
        return {daemon.name: daemon for daemon in found}

    def odd(self) -> Bridged:
        """The daemon on the odd machine, beside the client's daemon, which has the usual port."""
        lone = self.tunnel(
            "client",
            "br7",
            self.profile.authority.issue("lone", "client"),
            remotes=[f"{self.sites.a.wan_ipv4}:1194"],
        )
        document = {
            "bridges": {"br7": {}},
            "tunnels": {"lone": lone},
            "metrics": {"listen": "127.0.0.1:9744"},
        }
        return Bridged(self.sites.b, document, name="odd")


def prepare(sites: TwoSites) -> None:
    """What is amiss on the client's host itself, before the daemon comes."""
    space = sites.b.namespace
    for name in ("big0", "held0"):
        space.ip("link", "add", name, "type", "veth", "peer", "name", f"{name}-x")
        space.ip("link", "set", f"{name}-x", "up")
    space.ip("link", "set", "big0", "mtu", "9000", "up")
    space.ip("link", "add", "vm0", "link", "held0", "type", "macvlan")
    if HAS_BRIDGE_FILTER:
        space.sysctl("net.bridge.bridge-nf-call-iptables", 1)
    space.run("ethtool", "-K", "wan0", "gro", "off", "tx-udp-segmentation", "off")
    space.run("nft", "add table ip filter")
    space.run("nft", "add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }")


def lose_tun(daemon: Bridged, folder: Path) -> None:
    """Start the daemon on the odd machine, and take /dev/net/tun from its container."""
    environment = odd_machine(folder, release="6.6.45", today=datetime(2020, 2, 2, tzinfo=UTC))
    start(daemon, IN_CONTAINER, WITH_TUN, environment=environment)
    daemon.wait_until(lambda status: len(status["bridges"]) == 1, "the odd daemon's bridge", 20.0)
    daemon.site.namespace.run("nsenter", "-t", str(daemon.started.pid), "-m", "rm", "/dev/net/tun")


def without_native(daemon: Bridged, folder: Path) -> None:
    """Start the daemon from a copy of the package that has no compiled module."""
    package = folder / "bridged"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("_native*.so", "__pycache__"))
    start(daemon, WITHOUT_NATIVE, str(package), str(PACKAGE))


def start(
    daemon: Bridged, script: str = 'exec "$@"', *arguments: str, environment: dict[str, str] | None = None
) -> None:
    """Start it under a shell script, and do not wait."""
    command = (BRIDGED, "run", "--config", str(daemon.file))
    daemon.process = daemon.site.namespace.popen(
        "sh", "-c", script, *(arguments or ("sh",)), *command, log=daemon.name, env=environment
    )


def claim_an_address(sites: TwoSites, server: Bridged) -> None:
    """A station at the client's site sends with the address of one at the server's, which goes on."""
    thief, owner = sites.b.host, sites.a.host
    rest = bytes.fromhex(owner.mac.replace(":", "")) + b"\x88\xb6" + bytes(50)
    # To the bridge itself: the client's site must not hear of the owner, or it drops what the thief sends.
    bridge = bytes.fromhex(server.status()["bridges"][0]["mac"].replace(":", ""))

    def told() -> bool:
        for host, target in ((owner, bridge), (thief, b"\xff" * 6), (owner, bridge)):
            send_frames(host, [target + rest])
            time.sleep(0.05)
        return "station_contested" in server.log

    wait_for(told, "station_contested", 15)


@contextmanager
def troubled_sites(folder: Path) -> Iterator[TroubledSites]:
    """All that goes wrong, at work."""
    with Lab("trouble") as lab, ExitStack() as stack:
        sites = TwoSites(lab, wan="switch", bridges=False)
        prepare(sites)
        with sites.wan_namespace.entered():
            silent = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        silent.bind(("203.0.113.1", SILENT_PORT))
        cast = Cast(sites)
        server, client, odd, refused = cast.server(), cast.client(), cast.odd(), cast.refused()
        server.start()
        without_native(client, folder)
        client.wait_connected(tunnel="good", seconds=40)
        lose_tun(odd, folder)
        for name, daemon in refused.items():
            disk = folder / f"{name}.disk"
            disk.mkdir()
            if name in ("disk-full", "state-closed"):
                daemon.configuration["state_directory"] = str(disk / "state")
                if name == "state-closed":
                    daemon.configuration |= {
                        "user": "daemon",
                        "admin": {"socket": str(disk / "run" / "admin")},
                    }
                daemon.write()
                start(daemon, FULL_DISK if name == "disk-full" else CLOSED, str(disk))
            elif name == "file-closed":
                daemon.configuration["state_directory"] = "/mnt/state"
                daemon.configuration["admin"] = {"socket": "/mnt/state/admin"}
                daemon.configuration["tunnels"][name]["tls"]["key"] = "/mnt/keys/site.key"
                daemon.write()
                start(daemon, CLOSED_KEY, str(daemon.file))
            elif name == "tun-missing":
                start(daemon, IN_CONTAINER, "true")
            else:
                start(daemon)
        with visitor(cast, "framed", "fragment 1300"), visitor(cast, "squeezing", *COMPRESSING):
            send_compressible(sites, server)
            go_back_in_time(sites, cast.profile)
            claim_an_address(sites, server)
            send_frames(sites.a.host, [LARGE])
            reload_wrongly(server, client)
            yield TroubledSites(
                Evidence(server),
                Evidence(client),
                Evidence(odd),
                {name: daemon.started for name, daemon in refused.items()},
            )
        for daemon in (odd, client, server):
            assert daemon.stop() == 0, daemon.started.tail()


def go_back_in_time(sites: TwoSites, profile: Profile) -> None:
    """A peer with a static key is started, and started again with its clock set back."""
    now = int(time.time())
    key = static_data_key(parse_static_key(profile.wrap_key, "key"), None, Cipher.AES_256_CBC, "SHA256", now)
    sealer = CbcHmac(key.send_key, "SHA256", key.send_hmac)
    with sites.b.namespace.entered():
        peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with peer:
        for number, seconds in ((1, 0), (2, 0), (1, -3600), (2, -3600)):
            sealed = seal_static(sealer, bytes(16), number, now + seconds, PING)
            peer.sendto(sealed, (sites.a.wan_ipv4, OLD_KEY_PORT))
            # Each is taken before the next one comes.
            time.sleep(0.1)


def send_compressible(sites: TwoSites, server: Bridged) -> None:
    """A station says what compression makes smaller, until the server has said that a peer compresses."""
    host = sites.b.host
    frame = b"\xff" * 6 + bytes.fromhex(host.mac.replace(":", "")) + b"\x88\xb6" + bytes(500)

    def told() -> bool:
        send_frames(host, [frame])
        return "peer_compresses" in server.log

    wait_for(told, "peer_compresses", 20)


@contextmanager
def visitor(cast: Cast, name: str, *options: str) -> Iterator[OpenVpn]:
    """OpenVPN with a framing that the server does not speak."""
    site = cast.sites.b
    identity = cast.profile.authority.issue(name, "client")
    extra = ("connect-retry 1 1", *options)
    remote = cast.sites.a.wan_ipv4
    profile = replace(cast.profile, port=1197)
    end = OpenVpn(site, "client", profile, identity, remote=remote, extra=extra, tap=f"o-{name}")
    end.start()
    try:
        yield end
    finally:
        end.stop(signal.SIGKILL)


def reload_wrongly(server: Bridged, client: Bridged) -> None:
    """A mistake in the server's file, and at the client a port that carries the tunnel."""
    server.configuration["tunnels"]["main"]["listen"] = "1194"
    client.configuration["bridges"]["br0"]["ports"].append("wan0")
    for daemon in (server, client):
        daemon.write()
        daemon.started.send_signal(signal.SIGHUP)
        daemon.started.wait_for_output("reload_rejected", 20)
