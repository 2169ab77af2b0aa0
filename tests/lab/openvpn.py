"""Real OpenVPN in TAP mode: configuration files, start, and the moment it is connected.

OpenVPN 2.6 cannot be told to derive data keys by the PRF: two 2.6 ends always use the exporter. PRF is used
when the other end does not offer (IV_PROTO bit 3, a client) or does not choose (`key-derivation tls-ekm`,
`protocol-flags tls-ekm`, a server) the exporter; so it is ours to force, by `key_derivation: prf`.
"""

from __future__ import annotations

import functools
import re
import shutil
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tests.lab.pki import Authority, Identity, static_key, write_private
from tests.lab.processes import Process, run
from tests.lab.topology import Site
from tests.lab.waiting import LabError, wait_for

WrapMode = Literal["none", "tls-auth", "tls-crypt"]
INSTALLED = ""
RELEASES = ("2.5", "2.6", "2.7")
"""Those that `scripts/interop.sh` brings beside the installed one, which is INSTALLED."""
RELEASES_FOLDER = Path(__file__).parents[2] / "build" / "interop"
CIPHERS = ("AES-256-GCM", "AES-128-GCM", "CHACHA20-POLY1305")
COMPLETED = "Initialization Sequence Completed"


@dataclass(frozen=True, slots=True)
class Profile:
    """What both ends agree on. `wrap_key` is OpenVPN's static key text; `tls_max` is 1.2 or 1.3.

    `reneg_seconds`: 0 never (OpenVPN draws a server's interval from 90–100 % of it).
    """

    authority: Authority = field(default_factory=Authority)
    wrap: WrapMode = "tls-crypt"
    wrap_key: str = field(default_factory=static_key, repr=False)
    ciphers: tuple[str, ...] = CIPHERS
    digest: str = "SHA1"
    tls_max: str = "1.3"
    reneg_seconds: int = 0
    ping_seconds: int = 2
    restart_seconds: int = 12
    port: int = 1194
    tap_mtu: int = 1500
    transport: Literal["udp", "tcp"] = "udp"
    point_to_point: bool = False


class OpenVpn:
    """One OpenVPN process at a site, on a TAP of its own in the site's bridge `br0`.

    The TAP is made by the lab (persistent), so that there is no moment without it in the bridge.
    `extra` are further configuration lines, after ours, e.g. `("float",)`. `release`: INSTALLED or one of
    RELEASES.
    """

    def __init__(
        self,
        site: Site,
        role: Literal["server", "client"],
        profile: Profile,
        identity: Identity,
        *,
        remote: str = "",
        extra: tuple[str, ...] = (),
        tap: str = "tap0",
        make_tap: bool = True,
        release: str = INSTALLED,
    ) -> None:
        self.site = site
        self.role = role
        self.profile = profile
        self.identity = identity
        self.remote = remote
        self.extra = extra
        self.tap = tap
        self.program = openvpn_program(release)
        self._names_data_channel = release != "2.5"
        self.process: Process | None = None
        self._has_port = make_tap
        if make_tap:
            site.make_tap(tap, mtu=profile.tap_mtu)

    @property
    def started(self) -> Process:
        if self.process is None:
            raise LabError("OpenVPN was not started")
        return self.process

    @property
    def log(self) -> str:
        return self.started.output()

    def configuration(self) -> str:
        """The whole configuration file, keys inside."""
        profile = self.profile
        lines = [f"dev {self.tap}", "dev-type tap", "verb 4", "nobind" if self.role == "client" else ""]
        lines += [f"tun-mtu {profile.tap_mtu}"] if profile.tap_mtu != 1500 else []
        lines += self._role_lines()
        lines += [f"reneg-sec {profile.reneg_seconds}", "tls-version-min 1.2"]
        lines += ["explicit-exit-notify 1"] if profile.transport == "udp" else ["tcp-nodelay"]
        lines += [f"tls-version-max {profile.tls_max}"] if profile.tls_max != "1.3" else []
        lines += [f"data-ciphers {':'.join(profile.ciphers)}", f"auth {profile.digest}"]
        lines += self.extra
        lines += _inline("ca", profile.authority.certificate)
        lines += _inline("cert", self.identity.certificate)
        lines += _inline("key", self.identity.key)
        if profile.wrap != "none":
            lines += _inline(profile.wrap, profile.wrap_key)
        if profile.wrap == "tls-auth":
            lines.append(f"key-direction {0 if self.role == 'server' else 1}")
        return "\n".join(line for line in lines if line) + "\n"

    def _role_lines(self) -> list[str]:
        profile = self.profile
        family = f"{profile.transport}6" if ":" in self.remote else profile.transport
        if profile.transport == "tcp":
            family += f"-{self.role}"
        if profile.point_to_point:
            keepalive = f"keepalive {profile.ping_seconds} {profile.restart_seconds}"
            if self.role == "server":
                return ["tls-server", f"proto {family}", f"port {profile.port}", "dh none", keepalive]
            remote = f"remote {self.remote} {profile.port}"
            return ["tls-client", f"proto {family}", remote, "remote-cert-tls server", keepalive]
        if self.role == "server":
            keepalive = f"keepalive {profile.ping_seconds} {profile.restart_seconds}"
            return [
                "mode server",
                "tls-server",
                f"proto {family}",
                f"port {profile.port}",
                "dh none",
                keepalive,
            ]
        return [
            "client",
            f"proto {family}",
            f"remote {self.remote} {profile.port}",
            "remote-cert-tls server",
            "connect-retry 1 2",
            "server-poll-timeout 10",
        ]

    def start(self) -> OpenVpn:
        """Start the program; does not wait until it is connected."""
        directory = self.site.namespace.directory
        file = directory / f"{self.site.namespace.role}-{self.tap}.ovpn"
        write_private(file, self.configuration())
        log = f"openvpn-{self.role}"
        self.process = self.site.namespace.popen(self.program, "--config", str(file), log=log)
        if self.role == "server" and not self.profile.point_to_point:
            self.process.wait_for_output(COMPLETED, 10)
            self._wait_for_port()
        return self

    def wait_connected(self, seconds: float = 20.0, times: int = 1) -> OpenVpn:
        """Until a client is through its handshake (or a server has seen `times` of them through).

        Raises:
            LabError: not in time; with the end of the log.
        """
        text = COMPLETED if self.role == "client" else "Peer Connection Initiated"
        self.started.wait_for_output(text, seconds, occurrences=times)
        self._wait_for_port()
        return self

    @property
    def starts(self) -> int:
        """How often it said that it is up: once more after each restart."""
        return self.log.count(COMPLETED)

    def wait_up(self, starts: int, seconds: float = 20.0) -> OpenVpn:
        """Until it is up for the `starts`th time, and frames pass its bridge port.

        Our end may have the session earlier: it knows nothing of an adapter that OpenVPN opens anew.

        Raises:
            LabError: not in time; with the end of the log.
        """
        self.started.wait_for_output(COMPLETED, seconds, occurrences=starts)
        self._wait_for_port()
        return self

    def _wait_for_port(self) -> None:
        """Until frames pass its bridge port: the bridge hears some time later that the adapter was opened."""
        if not self._has_port:
            return
        show = ("-d", "link", "show", "dev", self.tap)
        wait_for(lambda: "state forwarding" in self.site.namespace.ip(*show), f"{self.tap} to forward", 10)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End the program (SIGTERM sends the exit notice first); its exit status."""
        return self.started.stop(number)

    def restart_soft(self) -> None:
        """SIGUSR1: reconnect without rereading the configuration."""
        self.started.send_signal(signal.SIGUSR1)

    def data_cipher(self) -> str:
        """The cipher of the newest data channel, from the log; empty before there is one."""
        words = "Data Channel: cipher" if self._names_data_channel else "Outgoing Data Channel: Cipher"
        found = re.findall(rf"{words} '([^']+)'", self.log)
        return found[-1] if found else ""

    def key_derivations(self) -> list[str]:
        """For each data channel so far what the log says of its keys: `exporter` or `prf`.

        OpenVPN prints "protocol-flags: … tls-ekm …" beside the cipher where the exporter is used.
        """
        if not self._names_data_channel:
            # 2.5 has no exporter.
            return ["prf" for _ in re.findall(r"Outgoing Data Channel: Cipher", self.log)]
        if self.profile.point_to_point:
            exports = re.findall(r"P2P mode NCP negotiation result: TLS_export=(\d)", self.log)
            return ["exporter" if number == "1" else "prf" for number in exports]
        lines = re.findall(r"Data Channel: cipher .*", self.log)
        flags = re.findall(r"protocol-flags?:? .*|Protocol options: .*", self.log)
        return ["exporter" if "tls-ekm" in line else "prf" for line in (flags or lines)]

    def renegotiations(self) -> int:
        """How often a TLS session was set up after the first one of this process."""
        return max(0, len(re.findall(r"Control Channel: TLSv1", self.log)) - 1)


def openvpn_pair(
    server_site: Site,
    client_site: Site,
    profile: Profile | None = None,
    *,
    server_extra: tuple[str, ...] = (),
    client_extra: tuple[str, ...] = (),
    remote: str = "",
) -> tuple[OpenVpn, OpenVpn]:
    """Two OpenVPN ends, connected. `remote`: the server as the client sees it (default: its WAN address)."""
    profile = profile or Profile()
    authority = profile.authority
    server = OpenVpn(server_site, "server", profile, authority.issue("server", "server"), extra=server_extra)
    client = OpenVpn(
        client_site,
        "client",
        profile,
        authority.issue("client", "client"),
        remote=remote or server_site.wan_ipv4,
        extra=client_extra,
    )
    server.start()
    client.start().wait_connected()
    wait_for(lambda: "Peer Connection Initiated" in server.log, "the server to see its client")
    return server, client


def openvpn_program(release: str = INSTALLED) -> str:
    """The command of a release.

    Raises:
        LabError: it is missing, with what to do.
    """
    if release == INSTALLED:
        if shutil.which("openvpn") is None:
            raise LabError("openvpn is not installed")
        return "openvpn"
    program = RELEASES_FOLDER / f"openvpn-{release}" / "run"
    if not program.exists():
        raise LabError(f"{program} is missing: bash scripts/interop.sh openvpn-{release}")
    return str(program)


@functools.cache
def openvpn_version(release: str = INSTALLED) -> str:
    """Such as `2.6.14`.

    Raises:
        LabError: the program is missing.
    """
    return run(openvpn_program(release), "--version", check=False).split()[1]


def names_tls_alerts() -> bool:
    """Whether the log says which TLS alerts come and go: that of 2.6.14 does, and that of 2.6.3 does not."""
    return [int(part) for part in re.findall(r"\d+", openvpn_version())] >= [2, 6, 14]


def _inline(name: str, text: str) -> list[str]:
    return [f"<{name}>", text.strip(), f"</{name}>"]


def write_profile(path: Path, vpn: OpenVpn) -> Path:
    """The configuration as a file of its own, e.g. for `bridged join`."""
    write_private(path, vpn.configuration())
    return path
