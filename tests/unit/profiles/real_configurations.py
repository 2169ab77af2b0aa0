"""Synthetic files from `real_configurations.txt`: real configurations with values of our own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bridged.profiles.not_yet import Ability

TABLE = Path(__file__).with_name("real_configurations.txt")
ADDRESSES = "10.8.0.1 255.255.255.0 10.8.0.50 10.8.0.100"

VALUES = {
    "auth": "SHA256",
    "ca": "ca.crt",
    "cd": "/etc/openvpn",
    "cert": "own.crt",
    "chroot": "/var/empty",
    "client-config-dir": "ccd",
    "client-connect": "/etc/openvpn/connect.sh",
    "client-disconnect": "/etc/openvpn/disconnect.sh",
    "crl-verify": "crl.pem",
    "data-ciphers": "AES-256-GCM:AES-128-GCM:CHACHA20-POLY1305",
    "data-ciphers-fallback": "AES-256-CBC",
    "dev-node": "tap-bridge",
    "dev-type": "tap",
    "dh": "dh2048.pem",
    "down": '"/etc/openvpn/down.sh br0"',
    "engine": "dynamic",
    "fragment": "0",
    "group": "nogroup",
    "ifconfig": "10.8.0.2 255.255.255.0",
    "ifconfig-pool": "10.8.0.50 10.8.0.100 255.255.255.0",
    "ifconfig-pool-persist": "ipp.txt",
    "inactive": "3600",
    "keepalive": "10 120",
    "key": "own.key",
    "key-direction": "1",
    "learn-address": "/etc/openvpn/learn.sh",
    "link-mtu": "1600",
    "local": "192.0.2.1",
    "log": "/var/log/openvpn.log",
    "log-append": "/var/log/openvpn.log",
    "management": "localhost 7505",
    "max-clients": "20",
    "max-routes-per-client": "10",
    "mode": "server",
    "mssfix": "1400",
    "mtu-disc": "yes",
    "mute": "20",
    "ns-cert-type": "server",
    "ping": "10",
    "ping-restart": "120",
    "pkcs12": "own.p12",
    "plugin": "/usr/lib/openvpn/openvpn-plugin-auth-pam.so login",
    "port": "1194",
    "proto": "udp",
    "redirect-gateway": "def1",
    "remote": "vpn.example.net 1194",
    "remote-cert-ku": "80 08 88",
    "reneg-sec": "3600",
    "resolv-retry": "infinite",
    "route": "192.0.2.0 255.255.255.0",
    "route-delay": "2",
    "route-method": "exe",
    "script-security": "2",
    "secret": "static.key",
    "server": "10.8.0.0 255.255.255.0",
    "stale-routes-check": "60",
    "status": "status.log 10",
    "status-version": "2",
    "tcp-queue-limit": "256",
    "tls-auth": "ta.key 1",
    "tmp-dir": "/tmp",
    "topology": "subnet",
    "tun-mtu": "1500",
    "tun-mtu-extra": "32",
    "up": '"/etc/openvpn/up.sh br0"',
    "user": "nobody",
    "verb": "3",
    "verify-x509-name": "server name",
}
PUSHED = {
    "dhcp-option": "dhcp-option DNS 192.0.2.53",
    "redirect-gateway": "redirect-gateway def1",
    "route": "route 192.0.2.0 255.255.255.0",
    "route-gateway": "route-gateway 10.8.0.1",
    "topology": "topology subnet",
}
ABILITIES: dict[Ability, frozenset[str]] = {
    "vlans": frozenset({"vlan-tagging"}),
}
BLOCKS = {"ca": "ca.crt", "cert": "own.crt", "key": "own.key", "tls-auth": "ta.key"}


@dataclass(frozen=True, slots=True)
class Row:
    """One configuration: `role` is server, client or link (point to point)."""

    role: str
    number: int
    entries: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.role}-{self.number}"

    @property
    def secures_nothing(self) -> bool:
        """No encryption, no authentication, or neither certificates nor a key: refused for good."""
        return "cipher none" in self.entries or not self._names & {"ca", "secret", "pkcs12"}

    @property
    def abilities(self) -> set[Ability]:
        """What a program must be able to do for it, as far as not every one can."""
        return {ability for ability, names in ABILITIES.items() if self._names & names}

    @property
    def transport(self) -> str:
        return "tcp" if any(entry.startswith("proto tcp") for entry in self.entries) else "udp"

    @property
    def wrap(self) -> str:
        kinds = {"secret": "static-key", "tls-auth": "tls-auth", "tls-crypt": "tls-crypt"}
        return next((kind for name, kind in kinds.items() if name in self._names), "none")

    @property
    def compression(self) -> str:
        """`comp-lzo`, `compress` with its argument, or nothing: all forms of `comp-lzo` frame the same."""
        line = next((entry for entry in self.entries if entry.startswith("comp")), "")
        return "comp-lzo" if line.startswith("comp-lzo") else line

    @property
    def digest(self) -> str:
        """Of `auth`; OpenVPN's own where there is no such line."""
        line = next((entry for entry in self.entries if entry.startswith("auth ")), "auth SHA1")
        return line.partition(" ")[2]

    @property
    def has_fragments(self) -> bool:
        """A bare `fragment` had some size; that of another tells nothing of 0, which switches it off."""
        return "fragment" in self.entries

    @property
    def cipher(self) -> str:
        """What `cipher` says; `data-ciphers` where that stands alone; or nothing.

        With a static key: what the import says that both ends must have.
        """
        found = [entry.partition(" ")[2] for entry in self.entries if entry.startswith("cipher ")]
        unset = "data-ciphers" if "data-ciphers" in self._names else ""
        cipher = found[-1] if found else unset
        return cipher or "AES-256-CBC" if self.wrap == "static-key" else cipher

    @property
    def _names(self) -> set[str]:
        return {entry.strip("<>").split()[0] for entry in self.entries}

    @property
    def release(self) -> str:
        """The oldest OpenVPN that we have and that would have written it; 2.5 stands for all before it.

        A link of 2.5 negotiates no cipher: without a line it means BF-CBC, which 2.6 no longer does.
        """
        is_modern = self.cipher.endswith(("-GCM", "-POLY1305", "data-ciphers"))
        return "2.6" if is_modern or (self.role == "link" and not self.cipher) else "2.5"

    def text(self, files: dict[str, str]) -> str:
        """The file. `files`: the texts for inline blocks, by file name."""
        return "".join(self._lines(entry, files) for entry in self.entries)

    def _lines(self, entry: str, files: dict[str, str]) -> str:
        if entry == "<connection>":
            # Its remote is the next entry.
            return "<connection>\nremote vpn.example.net 1194 udp\n</connection>\n"
        if entry.startswith("<"):
            name = entry.strip("<>")
            return f"<{name}>\n{files.get(BLOCKS.get(name, ''), 'text')}\n</{name}>\n"
        name, _, value = entry.partition(" ")
        if name == "push":
            return f'push "{PUSHED.get(value, value)}"\n'
        if name == "remote" and "<connection>" in self.entries:
            return ""
        if name == "server-bridge":
            return f"server-bridge {ADDRESSES if value == '4' else value}\n"
        if name == "remote-cert-tls":
            value = "client" if self.role == "server" else "server"
        if value == "file":
            value = "password.txt"
        if name == "mode" and self.role == "link":
            value = "p2p"
        return f"{name} {value or VALUES.get(name, '')}".rstrip() + "\n"


def rows() -> list[Row]:
    """The whole table."""
    found = []
    for line in TABLE.read_text().splitlines():
        if line and not line.startswith("#"):
            head, _, rest = line.partition(": ")
            role, number = head.split()
            found.append(Row(role, int(number), tuple(rest.split(", "))))
    return found
