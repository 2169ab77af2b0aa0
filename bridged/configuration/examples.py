"""An example of each key as a line of YAML, which errors show.

Pure: no I/O. `tests/unit/configuration/test_reasons.py` checks every example against the schema.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from bridged.configuration.document import KeyPath
from bridged.configuration.keys import PLACEHOLDER, all_keys

_EXAMPLES: Final = {
    "bridges": "{br0: {ports: [eth1]}}",
    "bridges.NAME": "{ports: [eth1]}",
    "bridges.NAME.ports": "[eth1]",
    "bridges.NAME.addresses": "[192.0.2.1/24]",
    "bridges.NAME.mtu": "1500",
    "bridges.NAME.mac": "02:00:5e:10:00:01",
    "bridges.NAME.stp": "false",
    "bridges.NAME.ageing_seconds": "300",
    "bridges.NAME.forward_delay_seconds": "15",
    "bridges.NAME.group_forward_mask": "16384",
    "bridges.NAME.vlans": "[1 untagged, 20, 100-199]",
    "tunnels": "{main: {role: server, bridge: br0, tls: {embedded: true}}}",
    "tunnels.NAME": "{role: server, bridge: br0, tls: {embedded: true}}",
    "tunnels.NAME.role": "server",
    "tunnels.NAME.bridge": "br0",
    "tunnels.NAME.listen": '"[::]:1194"',
    "tunnels.NAME.listen_tcp": '"[::]:443"',
    "tunnels.NAME.proxy": '{url: "http://proxy.example.net:3128"}',
    "tunnels.NAME.proxy.url": '"socks5://proxy.example.net:1080"',
    "tunnels.NAME.proxy.credentials_file": "/etc/bridged/proxy.credentials",
    "tunnels.NAME.port_share": '"127.0.0.1:8443"',
    "tunnels.NAME.local": '"192.0.2.2:1194"',
    "tunnels.NAME.remotes": "[vpn.example.net:1194]",
    "tunnels.NAME.remotes_order": "shuffled",
    "tunnels.NAME.remote_sizes": '{"vpn.example.net:1194": {wan_mtu: 1400}}',
    "tunnels.NAME.remote_sizes.NAME": "{wan_mtu: 1400}",
    "tunnels.NAME.remote_sizes.NAME.wan_mtu": "1400",
    "tunnels.NAME.remote_sizes.NAME.mss": "1300",
    "tunnels.NAME.peers": "[site-b]",
    "tunnels.NAME.status": "{file: /run/bridged/status.log, interval_seconds: 60, version: 2}",
    "tunnels.NAME.status.file": "/run/bridged/status.log",
    "tunnels.NAME.push": '["dhcp-option DNS 192.0.2.53"]',
    "tunnels.NAME.fallback_cipher": "AES-256-CBC",
    "tunnels.NAME.auth": "SHA256",
    "tunnels.NAME.compression_framing": "auto",
    "tunnels.NAME.fragment": "1300",
    "tunnels.NAME.mss": "1300",
    "tunnels.NAME.tap": "{name: tap0}",
    "tunnels.NAME.tap.name": "tap0",
    "tunnels.NAME.tap.mtu": "1500",
    "tunnels.NAME.tls": "{embedded: true}",
    "tunnels.NAME.tls.ca": "ca.crt",
    "tunnels.NAME.tls.certificate": "site.crt",
    "tunnels.NAME.tls.key": "site.key",
    "tunnels.NAME.tls.verify_command": "[/usr/local/bin/check-certificate]",
    "tunnels.NAME.tls.crl": "crl.pem",
    "tunnels.NAME.tls.peer_fingerprints": "[" + "ab" * 32 + "]",
    "tunnels.NAME.tls.peer_name": "hub",
    "tunnels.NAME.tls.peer_name_prefix": "site-",
    "tunnels.NAME.tls.peer_subject": '"C=NL, O=Example, CN=vpn"',
    "tunnels.NAME.tls.version_min": '"1.2"',
    "tunnels.NAME.tls.version_max": '"1.3"',
    "tunnels.NAME.wrap": "{mode: tls-crypt, key: tls-crypt.key}",
    "tunnels.NAME.wrap.key": "tls-crypt.key",
    "tunnels.NAME.wrap.old_clients_key": "tls-crypt.key",
    "tunnels.NAME.wrap.old_clients_mode": "tls-auth",
    "tunnels.NAME.wrap.verify_command": "[/usr/local/bin/check-key]",
    "tunnels.NAME.wrap.max_age_days": "730",
    "tunnels.NAME.wrap.direction": "1",
    "tunnels.NAME.authentication": "{password_file: passwords}",
    "tunnels.NAME.authentication.password_file": "passwords",
    "tunnels.NAME.authentication.command": "[/usr/local/bin/check-password]",
    "tunnels.NAME.clients": "{site-b: {address: 192.0.2.20}}",
    "tunnels.NAME.clients.NAME": "{address: 192.0.2.20}",
    "tunnels.NAME.clients.NAME.until": '"2027-12-31"',
    "tunnels.NAME.clients.NAME.address": "192.0.2.20",
    "tunnels.NAME.clients.NAME.push": '["dhcp-option DNS 192.0.2.53"]',
    "tunnels.NAME.clients.NAME.sessions_max": "2",
    "tunnels.NAME.address_pool": "{first: 192.0.2.100, last: 192.0.2.200, prefix: 24}",
    "tunnels.NAME.address_pool.first": "192.0.2.100",
    "tunnels.NAME.address_pool.last": "192.0.2.200",
    "tunnels.NAME.address_pool.gateway": "192.0.2.1",
    "tunnels.NAME.login": "{password: login.txt}",
    "tunnels.NAME.login.username": "alice",
    "tunnels.NAME.login.password": "password.txt",
    "tunnels.NAME.login.totp_secret": "totp.txt",
    "tunnels.NAME.keepalive": "{ping_seconds: 10, restart_seconds: 60}",
    "tunnels.NAME.renegotiate": "{seconds: 3600}",
    "user": "bridged",
    "log": "{level: info}",
    "metrics": '{listen: "127.0.0.1:9743"}',
    "metrics.bearer_token_file": "/etc/bridged/metrics.token",
    "metrics.web_config_file": "/etc/bridged/web-config.yml",
    "admin": "{socket: /run/bridged/bridged.sock}",
}

_SECTIONS_BY_NAME: Final = ("bridges", "tunnels")


def pattern_of(path: KeyPath) -> str:
    """`("tunnels", "main", "remotes", 0)` as `tunnels.NAME.remotes`."""
    names = [element for element in path if isinstance(element, str)]
    if len(names) > 1 and names[0] in _SECTIONS_BY_NAME:
        names[1] = PLACEHOLDER
    if len(names) > 3 and names[2] in ("remote_sizes", "clients"):
        names[3] = PLACEHOLDER
    return ".".join(names)


def example_value(pattern: str) -> str | None:
    """A valid value of the key in YAML; None for an unknown key, or without an example."""
    if pattern in _EXAMPLES:
        return _EXAMPLES[pattern]
    for key in all_keys():
        if key.path == pattern:
            return _of_default(key.default)
    return None


def example_line(path: KeyPath) -> str | None:
    """`ports: [eth1]` for a path that leads to `ports` or inside it."""
    names = [element for element in path if isinstance(element, str)]
    value = example_value(pattern_of(path))
    return None if value is None or not names else f"{names[-1]}: {value}"


def _of_default(default: Any) -> str | None:
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, tuple) and default:
        return f"[{', '.join(map(str, default))}]"
    if isinstance(default, str) and ":" in default:
        return f'"{default}"'
    return str(default) if isinstance(default, (str, int, float, Path)) and default != "" else None
