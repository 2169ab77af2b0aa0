"""Rules over several keys: conflicts, which are refused, and warnings.

`find_conflicts` is pure; `find_warnings` checks whether the named files exist.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

from bridged.addresses import Endpoint, Remote
from bridged.configuration.document import KeyPath
from bridged.configuration.schema import Configuration
from bridged.configuration.tunnel import Tunnel, tap_name
from bridged.configuration.values import DEFAULT_PORT
from bridged.files import unreadable
from bridged.protocol.packets.framing_choice import is_framing_option

Conflict = tuple[KeyPath, str]

DEFAULT_LISTEN: Final = Endpoint("::", DEFAULT_PORT)
SOCKET_PATH_OCTETS_MAX: Final = 107
PUSH_OPTION_CHARACTERS_MAX: Final = 256
TCP_MTU_MAX: Final = 65_400
"""A packet's length has 16 bits: Ethernet header, tags and the longest HMAC must fit as well."""

_FINGERPRINT = re.compile(r"[0-9a-fA-F]{64}|[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){31}")
# A line of Base64, which may have slashes, or of a static key, in place of a path.
_KEY_LINE = re.compile(
    r"(.*/)?(?=[^/]*[a-z])(?=[^/]*[A-Z])(?=[^/]*[0-9+])[A-Za-z0-9+]{24,}(/[A-Za-z0-9+/]*)?={0,2}"
    r"|(.*/)?[0-9a-f]{32}",
    re.DOTALL,
)
_KEY_TEXT = (
    "looks like the key itself, not its file: write `key: |`, and below it all lines from BEGIN to END"
)
_WILDCARDS = frozenset(("::", "0.0.0.0"))
_MULTI_CLIENT = ("peers_max", "duplicate_names", "forward_between_peers", "push", "clients", "address_pool")
_SERVER_ONLY = (
    *("peers_max", "duplicate_names", "peers", "forward_between_peers", "push"),
    *("clients", "only_known_clients", "address_pool"),
)


def find_conflicts(configuration: Configuration) -> list[Conflict]:
    """Everything in the file that conflicts: (path of the key, reason)."""
    found = [
        *_interface_conflicts(configuration),
        *_address_conflicts(configuration),
        *_listen_conflicts(configuration),
        *_outside_conflicts(configuration),
        *own_servers(configuration, is_loopback),
    ]
    for name, tunnel in configuration.tunnels.items():
        base: KeyPath = ("tunnels", name)
        of_tls = _no_tls_conflicts if tunnel.wrap.mode == "static-key" else _tls_conflicts
        found += [((*base, *path), reason) for path, reason in of_tls(tunnel)]
        found += [((*base, *path), reason) for path, reason in _tunnel_conflicts(tunnel)]
    return found


def find_warnings(configuration: Configuration) -> list[Conflict]:
    """Allowed settings that are probably mistakes: (path of the key, text)."""
    found: list[Conflict] = []
    if not configuration.tunnels:
        found.append((("tunnels",), "no tunnel: the daemon will only manage the bridges"))
    for name, tunnel in configuration.tunnels.items():
        found += [(("tunnels", name, *path), text) for path, text in _tunnel_warnings(tunnel)]
        mtu = configuration.bridges[tunnel.bridge].mtu
        if mtu is not None and tunnel.tap.mtu is None and mtu != tunnel.tun_mtu:
            text = f"the bridge has mtu {mtu}, the tunnel {tunnel.tun_mtu}: larger frames will not cross"
            found.append((("tunnels", name, "mtu"), text))
    for name in ("bearer_token_file", "web_config_file"):
        file = getattr(configuration.metrics, name)
        if file is not None and configuration.metrics.listen and (reason := unreadable(str(file))):
            found.append((("metrics", name), reason))
    return found


def is_inline(value: str) -> bool:
    """Whether a value of `ca`, `certificate`, `key` or `crl` is the text itself, not a file's path."""
    return "\n" in value or value.startswith("-----BEGIN")


def is_loopback(endpoint: Endpoint) -> bool:
    """Whether only this machine can reach the endpoint."""
    try:
        return ipaddress.ip_address(endpoint.host).is_loopback
    except ValueError:
        return endpoint.host == "localhost"


def _interface_conflicts(configuration: Configuration) -> Iterator[Conflict]:
    owners: dict[str, str] = {}
    for name in configuration.bridges:
        if _is_bad_name(name):
            yield ("bridges", name), "the kernel does not accept this interface name"
        owners[name] = f"bridge {name}"
    for bridge_name, bridge in configuration.bridges.items():
        for index, port in enumerate(bridge.ports):
            path: KeyPath = ("bridges", bridge_name, "ports", index)
            if _is_bad_name(port):
                yield path, f"{port} cannot be a port of a bridge"
            elif port in owners:
                yield path, f"{port} is already {_owned(owners[port], bridge_name)}"
            owners.setdefault(port, f"a port of bridge {bridge_name}")
    for tunnel_name, tunnel in configuration.tunnels.items():
        adapter = tap_name(tunnel_name, tunnel)
        path = ("tunnels", tunnel_name, "tap", "name")
        if _is_bad_name(adapter):
            yield path, f"the kernel does not accept the interface name {adapter}"
        elif adapter in owners:
            yield path, f"the adapter {adapter} is already {owners[adapter]}; choose another name"
        owners.setdefault(adapter, f"the adapter of tunnel {tunnel_name}")


def _owned(owner: str, bridge_name: str) -> str:
    return "in this list" if owner == f"a port of bridge {bridge_name}" else owner


def _is_bad_name(name: str) -> bool:
    """`.` and `..` are folders in sysfs; the kernel replaces `%d` by a number."""
    return name in (".", "..", "all", "default", "lo") or "%" in name


def _address_conflicts(configuration: Configuration) -> Iterator[Conflict]:
    seen: dict[str, str] = {}
    for bridge_name, bridge in configuration.bridges.items():
        for index, text in enumerate(bridge.addresses):
            address = str(ipaddress.ip_interface(text).ip)
            if address in seen:
                where = f"bridge {seen[address]}" if seen[address] != bridge_name else "this list"
                yield ("bridges", bridge_name, "addresses", index), f"{address} is already in {where}"
            seen.setdefault(address, bridge_name)


def _listen_conflicts(configuration: Configuration) -> Iterator[Conflict]:
    taken: list[tuple[str, Endpoint]] = []
    for name, tunnel in configuration.tunnels.items():
        for key, endpoint in bound_by(tunnel):
            for other, earlier in taken:
                if _overlap(endpoint, earlier):
                    reason = f"tunnel {other} already uses {earlier}; give this one another port or address"
                    yield ("tunnels", name, key), reason
                    break
            taken.append((name, endpoint))


def bound_by(tunnel: Tunnel) -> Iterator[tuple[str, Endpoint]]:
    """What a tunnel binds: the key that says so, and where."""
    if tunnel.role == "client":
        if tunnel.local:
            yield "local", _endpoint(tunnel.local)
        return
    if tunnel.transport != "tcp":
        yield "listen", _endpoint(tunnel.listen)
    if tunnel.transport != "udp":
        key = "listen_tcp" if tunnel.listen_tcp else "listen"
        yield key, replace(_endpoint(tunnel.listen_tcp or tunnel.listen), transport="tcp")


def _endpoint(text: str | None) -> Endpoint:
    return Endpoint.parse(text, DEFAULT_PORT) if text else DEFAULT_LISTEN


def _overlap(one: Endpoint, other: Endpoint) -> bool:
    """Whether both cannot be bound: `::` includes IPv4, `0.0.0.0` all IPv4 addresses."""
    if (one.port, one.transport) != (other.port, other.transport):
        return False
    if one.host == other.host or "::" in (one.host, other.host):
        return True
    return bool(_WILDCARDS & {one.host, other.host}) and not (one.is_ipv6 or other.is_ipv6)


def own_servers(configuration: Configuration, is_ours: Callable[[Endpoint], bool]) -> Iterator[Conflict]:
    """Clients whose remote is a server of the same bridge: frames would loop for ever.

    `is_ours` says whether an endpoint's address belongs to this machine.
    """
    servers = [
        (name, tunnel.bridge, endpoint)
        for name, tunnel in configuration.tunnels.items()
        if tunnel.role == "server"
        for _, endpoint in bound_by(tunnel)
    ]
    for name, tunnel in configuration.tunnels.items():
        for index, text in enumerate(tunnel.remotes):
            remote = Remote.parse(text, DEFAULT_PORT).server
            for server, bridge, listen in servers:
                is_same_port = (remote.port, remote.transport) == (listen.port, listen.transport)
                if bridge != tunnel.bridge or not is_same_port:
                    continue
                if remote.host == listen.host or (listen.host in _WILDCARDS and is_ours(remote)):
                    reason = (
                        f"{remote} is tunnel {server} of this configuration, on the same bridge: frames "
                        "would loop for ever. Name the other site's server"
                    )
                    yield ("tunnels", name, "remotes", index), reason


def _outside_conflicts(configuration: Configuration) -> Iterator[Conflict]:
    metrics = configuration.metrics
    needs_token = metrics.listen is not None and not is_loopback(Endpoint.parse(metrics.listen))
    if needs_token and metrics.bearer_token_file is None and metrics.web_config_file is None:
        reason = (
            "is not a loopback address: set metrics.bearer_token_file or metrics.web_config_file, or listen "
            "on 127.0.0.1"
        )
        yield ("metrics", "listen"), reason
    if len(str(configuration.admin.socket).encode()) > SOCKET_PATH_OCTETS_MAX:
        yield ("admin", "socket"), f"the path of a Unix socket has at most {SOCKET_PATH_OCTETS_MAX} bytes"
    paths = (
        (("state_directory",), configuration.state_directory),
        (("admin", "socket"), configuration.admin.socket),
        (("metrics", "bearer_token_file"), metrics.bearer_token_file),
        (("metrics", "web_config_file"), metrics.web_config_file),
    )
    for key, path in paths:
        if path is not None and ("\0" in str(path) or str(path) in ("", ".")):
            yield key, "is not a path"


def _is_key_text(value: str | None) -> bool:
    """Whether a key was pasted where its path belongs: no message or log may repeat it."""
    return bool(value and not is_inline(value) and _KEY_LINE.fullmatch(value))


def _no_tls_conflicts(tunnel: Tunnel) -> Iterator[Conflict]:
    for name in sorted(tunnel.tls.model_fields_set):
        yield ("tls", name), "has no meaning with a static key; remove it"


def _tls_conflicts(tunnel: Tunnel) -> Iterator[Conflict]:
    tls = tunnel.tls
    if _is_key_text(tls.key):
        yield ("tls", "key"), _KEY_TEXT
    own = [name for name in ("ca", "certificate", "key") if getattr(tls, name)]
    for name in ("ca", "certificate", "key", "crl"):
        value = getattr(tls, name)
        if value is not None and ("\0" in value or not value.strip()):
            yield ("tls", name), "is empty; name a file, or write the PEM text itself"
    if tls.embedded:
        for name in own:
            yield ("tls", name), f"`embedded` has its own {name}; remove one of the two"
    else:
        yield from _identity_conflicts(tunnel, own)
    for index, text in enumerate(tls.peer_fingerprints):
        if not _FINGERPRINT.fullmatch(text):
            yield ("tls", "peer_fingerprints", index), "not a SHA-256 fingerprint (64 hex digits)"
    if tls.verify_command and tunnel.role == "client":
        yield ("tls", "verify_command"), "is for servers; a client has `peer_name` and `peer_fingerprints`"
    if tls.version_min > tls.version_max:
        yield ("tls", "version_min"), "is above version_max"
    if tls.peer_name is not None and tls.peer_name_prefix is not None:
        yield ("tls", "peer_name_prefix"), "`peer_name` is stricter; remove one of the two"


def _identity_conflicts(tunnel: Tunnel, own: list[str]) -> Iterator[Conflict]:
    tls, asking = tunnel.tls, tunnel.authentication
    needed = ("certificate", "key")
    # A server may ask for a password alone.
    is_without = tunnel.login is not None and not set(needed).intersection(own)
    for name in () if is_without else needed:
        if name not in own:
            yield ("tls",), f"needs `{name}` (or `embedded: true`)"
    shows_none = asking is not None and asking.client_certificate == "none"
    if "ca" not in own and not tls.peer_fingerprints and not shows_none:
        yield ("tls",), "needs `ca: FILE` or `peer_fingerprints`, to know which peers to trust"
    if tls.crl and "ca" not in own:
        yield ("tls", "crl"), "a revocation list needs the `ca` that signed it"


def _wrap_key_conflicts(tunnel: Tunnel) -> Iterator[Conflict]:
    wrap = tunnel.wrap
    for name in ("key", "old_clients_key"):
        value = getattr(wrap, name)
        if _is_key_text(value):
            yield ("wrap", name), _KEY_TEXT.replace("`key: |`", f"`{name}: |`")
        if value is not None and ("\0" in value or not value.strip()):
            yield ("wrap", name), "is empty; name a file, or write the key text itself"
    if wrap.key is not None and wrap.key == wrap.old_clients_key:
        yield ("wrap", "old_clients_key"), "is the same as `key`; old clients share a static key"
    if tunnel.role == "client":
        for name in ("old_clients_key", "max_age_days", "verify_command"):
            if getattr(wrap, name):
                yield ("wrap", name), "is a server's: a client has one key of its own"


def _wrap_conflicts(tunnel: Tunnel) -> Iterator[Conflict]:
    wrap = tunnel.wrap
    yield from _wrap_key_conflicts(tunnel)
    if wrap.mode == "static-key":
        if not tunnel.ciphers[0].endswith("-CBC"):
            yield ("ciphers",), "a static key needs a CBC cipher, for example `ciphers: [AES-256-CBC]`"
        if tunnel.transport == "both":
            yield ("transport",), "a static key is for one peer: write `udp` or `tcp`"
        if not tunnel.point_to_point:
            yield ("point_to_point",), "a static key is for two ends only; remove the line"
    elif wrap.mode != "tls-auth" and not (wrap.old_clients_key and wrap.old_clients_mode == "tls-auth"):
        for name in ("direction", "digest"):
            if name in wrap.model_fields_set and getattr(wrap, name) is not None:
                yield ("wrap", name), f"works with mode tls-auth only, not {wrap.mode}"


def _tunnel_conflicts(tunnel: Tunnel) -> Iterator[Conflict]:
    yield from _wrap_conflicts(tunnel)
    if len(set(tunnel.ciphers)) != len(tunnel.ciphers):
        yield ("ciphers",), "names a cipher twice"
    if len(set(tunnel.peers)) != len(tunnel.peers):
        yield ("peers",), "names a peer twice"
    has_tcp = tunnel.transport != "udp" or any("/tcp" in remote for remote in tunnel.remotes)
    if has_tcp and not tunnel.fragment and tunnel.adapter_mtu > TCP_MTU_MAX:
        path: KeyPath = ("tap", "mtu") if tunnel.tap.mtu else ("mtu",)
        yield path, f"is more than {TCP_MTU_MAX}, the most that a packet over TCP carries"
    if tunnel.mtu == "auto" and tunnel.fragment:
        yield ("fragment",), "remove it, or write `mtu: 1500`: packets of one fixed size need no measuring"
    yield from _push_conflicts(("push",), tunnel.push)
    yield from _client_conflicts(tunnel)


def _push_conflicts(path: KeyPath, options: tuple[str, ...]) -> Iterator[Conflict]:
    for index, option in enumerate(options):
        if "," in option or not option.strip() or len(option) > PUSH_OPTION_CHARACTERS_MAX:
            yield (*path, index), "must be one OpenVPN option, without comma, of at most 256 characters"
        elif is_framing_option(option):
            yield (*path, index), "`compression_framing` decides what is pushed; remove this option"
        elif not option.isprintable() or not option.isascii():
            yield (*path, index), "must be printable ASCII"


def _client_conflicts(tunnel: Tunnel) -> Iterator[Conflict]:
    pool = tunnel.address_pool
    owners: dict[ipaddress.IPv4Address, str] = {}
    for name, client in tunnel.clients.items():
        path: KeyPath = ("clients", name)
        yield from _push_conflicts((*path, "push"), client.push)
        address = client.address
        if address is None:
            continue
        if pool is None:
            yield (*path, "address"), "needs `address_pool`, whose prefix length goes with it"
        elif address not in pool.network:
            yield (*path, "address"), f"is not in the network of `address_pool`, {pool.network}"
        if address in owners:
            yield (*path, "address"), f"is that of {owners[address]}, too"
        owners[address] = name


def _kind_warnings(tunnel: Tunnel) -> Iterator[Conflict]:
    if tunnel.point_to_point:
        for name in sorted(tunnel.model_fields_set.intersection(_MULTI_CLIENT)):
            yield (name,), "has no effect on a point-to-point tunnel"
    if tunnel.wrap.mode == "static-key":
        text = (
            "a static key has no forward secrecy: who gets it can read all that was ever sent; "
            "`bridged init` makes certificates for both ends"
        )
        yield ("wrap", "mode"), text
        if tunnel.wrap.direction is None:
            text = (
                "both ends seal with the same key: whoever sees a packet of OpenVPN's end can send it back, "
                "and end the tunnel with it (this end knows its own); write 0 at one end and 1 at the other "
                "(`secret FILE 1` in OpenVPN)"
            )
            yield ("wrap", "direction"), text
        return
    old = [name for name in tunnel.ciphers if name.endswith("-CBC")]
    if old:
        yield ("ciphers",), f"{', '.join(old)}: slow and old; remove it once all peers have OpenVPN 2.4"
    fallback = tunnel.fallback_cipher
    if fallback is not None and fallback.endswith("-CBC"):
        text = f"peers that negotiate no cipher get {fallback}; remove it once all have OpenVPN 2.4"
        yield ("fallback_cipher",), text
    elif not old and tunnel.auth is not None:
        yield ("auth",), "works with CBC ciphers only, and none is named; AEAD ciphers need no digest"


def _size_warnings(tunnel: Tunnel) -> Iterator[Conflict]:
    if tunnel.answer_too_big and tunnel.fragment:
        yield ("answer_too_big",), "has no effect beside `fragment`, which cuts what is too large"


def _tunnel_warnings(tunnel: Tunnel) -> Iterator[Conflict]:
    yield from _kind_warnings(tunnel)
    if tunnel.role == "server" and tunnel.wrap.mode == "none":
        text = "without wrapping, anybody can start a handshake; use tls-crypt if all peers can"
        yield ("wrap", "mode"), text
    yield from _size_warnings(tunnel)
    if tunnel.role == "client":
        for name in sorted(tunnel.model_fields_set.intersection(_SERVER_ONLY)):
            yield (name,), "has no effect on a client"
        if tunnel.tls.embedded:
            text = "only servers that share this embedded CA will trust this client"
            yield ("tls", "embedded"), text
    files = (
        ("tls", ("ca", "certificate", "key", "crl")),
        ("wrap", ("key", "old_clients_key")),
        ("login", ("password", "totp_secret")),
        ("proxy", ("credentials_file",)),
    )
    if tunnel.authentication is not None and tunnel.authentication.password_file is not None:
        users = unreadable(str(tunnel.authentication.password_file))
        if users is not None:
            yield ("authentication", "password_file"), f"nobody gets in: {users}"
    for section, names in files:
        for name in names:
            value = getattr(getattr(tunnel, section), name, None)
            if value and not is_inline(value) and (reason := unreadable(value)):
                yield (section, name), reason
