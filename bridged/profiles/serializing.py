"""Writes any client's profile for official OpenVPN clients; our own reader reads back the same.

Source: docs/protocol/data.md#7; docs/protocol/control.md#7 (ciphers).
Pure: values in, text out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from bridged.profiles.headings import what_is_left_to_do
from bridged.profiles.profile import Material, Profile, ProxyLine
from bridged.protocol.packets.framing_choice import PUSHED

_UDP_IP_OVERHEAD: Final = 28
_TCP_IP_HEADERS: Final = 40
_ETHERNET_AND_PACKET: Final = 14 + 24
Sizes = tuple[int | None, int | None]


def serialize_tunnel(profile: Profile, name: str) -> str:
    """The `.ovpn` file of a client whose materials are texts. It is secret.

    `mss` and `wan_mtu` exclude each other in OpenVPN: with an `mss`, `wan_mtu` is left out.
    """
    heading = what_is_left_to_do(name, str(profile.remotes[0]))
    lines = [*_connection(profile), *_device(profile), *_trust(profile), *_life(profile), "verb 3"]
    return heading + "\n".join([*lines, *_servers(profile), *_blocks(profile)]) + "\n"


def _connection(profile: Profile) -> Iterator[str]:
    if profile.wrap != "static-key":
        yield "tls-client" if profile.point_to_point else "client"
    if profile.local is None:
        yield "nobind"
    else:
        if profile.local.host != "::":
            yield f"local {profile.local.host}"
        yield f"lport {profile.local.port}"
    yield from ("resolv-retry infinite", "persist-key", "persist-tun")


def _servers(profile: Profile) -> Iterator[str]:
    """The servers, in blocks where they differ: a block takes over only what stands above it."""
    common = (profile.mss, profile.wan_mtu)
    # OpenVPN refuses a farewell over TCP, where the end of the connection says the same.
    farewells = [profile.exit_notify and remote.server.transport == "udp" for remote in profile.remotes]
    transports = {remote.server.transport for remote in profile.remotes}
    is_in_blocks = bool(profile.remote_sizes) or len(set(farewells)) > 1
    # OpenVPN refuses an HTTP proxy beside UDP.
    is_in_blocks = is_in_blocks or (profile.proxy is not None and len(transports) > 1)
    if not is_in_blocks:
        yield from _proxy(profile.proxy)
        yield from _sizes(common)
        yield from _farewell(farewells[0])
    for remote, farewell in zip(profile.remotes, farewells, strict=True):
        # Without a server that pushes, `tcp` alone is ambiguous to OpenVPN.
        end = "-client" if profile.point_to_point and remote.server.transport == "tcp" else ""
        line = f"remote {remote.server.host} {remote.server.port} {remote.family}{end}"
        if is_in_blocks:
            sizes = profile.remote_sizes.get(remote, common)
            proxy = profile.proxy if remote.server.transport == "tcp" else None
            rest = (*_proxy(proxy), *_sizes(sizes), *_farewell(farewell))
            yield from ("<connection>", line, *rest, "</connection>")
        else:
            yield line
    if profile.remotes_order is not None:
        yield "remote-random"


def _proxy(proxy: ProxyLine | None) -> Iterator[str]:
    """User name and password are left out; OpenVPN asks for them."""
    if proxy is not None and proxy.kind == "http":
        yield f"http-proxy {proxy.where.host} {proxy.where.port}{' stdin basic' if proxy.asks else ''}"
    elif proxy is not None:
        yield f"socks-proxy {proxy.where.host} {proxy.where.port}{' stdin' if proxy.asks else ''}"


def _farewell(is_said: bool | None) -> Iterator[str]:
    if is_said:
        yield "explicit-exit-notify 1"


def _sizes(sizes: Sizes) -> Iterator[str]:
    mss, wan_mtu = sizes
    if mss == 0:
        yield "mssfix 0"
    elif mss is not None:
        # 2.5 refuses a file with `fixed`: the first line is for it, and the second replaces that later on.
        yield f"mssfix {mss + _TCP_IP_HEADERS + _ETHERNET_AND_PACKET}"
        yield f"setenv opt mssfix {mss + _TCP_IP_HEADERS} fixed"
    elif wan_mtu is not None:
        yield f"mssfix {wan_mtu - _UDP_IP_OVERHEAD}"


def _device(profile: Profile) -> Iterator[str]:
    yield f"dev {profile.tap_name or 'tap'}"
    yield "dev-type tap"
    if profile.tap_mac is not None:
        yield f"lladdr {profile.tap_mac}"
    if profile.mtu is not None:
        yield f"tun-mtu {profile.mtu}"
    if profile.fragment is not None:
        yield f"fragment {profile.fragment}"


def _trust(profile: Profile) -> Iterator[str]:
    if profile.peer_role in ("client", "server"):
        yield f"remote-cert-tls {profile.peer_role}"
    names = (("name", profile.peer_name), ("name-prefix", profile.peer_name_prefix))
    for kind, name in (*names, ("subject", profile.peer_subject)):
        if name is not None:
            yield f"verify-x509-name {_quoted(name)} {kind}"
    if profile.version_min is not None:
        yield f"tls-version-min {profile.version_min}"
    if profile.version_max is not None:
        yield f"tls-version-max {profile.version_max}"
    if profile.login is not None:
        yield "auth-user-pass"
    if profile.challenge is not None:
        yield f'static-challenge "One-time code" 1{" concat" if profile.challenge == "concat" else ""}'
    yield from _ciphers(profile)


def _ciphers(profile: Profile) -> Iterator[str]:
    if profile.wrap == "static-key":
        yield f"cipher {profile.ciphers[0]}"
    elif profile.ciphers:
        # A 2.4 client announces `cipher`.
        yield f"cipher {profile.fallback_cipher or profile.ciphers[0]}"
        yield "ignore-unknown-option data-ciphers data-ciphers-fallback"
        yield f"data-ciphers {':'.join(profile.ciphers)}"
    if profile.fallback_cipher is not None:
        yield f"data-ciphers-fallback {profile.fallback_cipher}"
    if profile.wrap in ("tls-auth", "static-key"):
        yield f"auth {profile.wrap_digest or 'SHA1'}"
    elif profile.digest is not None:
        yield f"auth {profile.digest}"
    if profile.wrap != "tls-crypt" and profile.wrap_direction is not None:
        yield f"key-direction {profile.wrap_direction}"


def _life(profile: Profile) -> Iterator[str]:
    values = {
        "ping": profile.ping_seconds,
        "ping-restart": profile.restart_seconds,
        "reneg-sec": profile.renegotiate_seconds,
        "reneg-bytes": profile.renegotiate_bytes,
        "reneg-pkts": profile.renegotiate_packets,
        "hand-window": profile.handshake_seconds,
        "tran-window": profile.transition_seconds,
        "replay-window": profile.replay_window,
    }
    for name, value in values.items():
        if value is not None:
            yield f"{name} {value}"
    if profile.compression_framing is not None:
        yield PUSHED[profile.compression_framing]
    if profile.exit_notify is False:
        yield "explicit-exit-notify 0"


def _blocks(profile: Profile) -> Iterator[str]:
    blocks: tuple[tuple[str, Material | None], ...] = (
        ("ca", profile.ca),
        ("cert", profile.certificate),
        ("key", profile.key),
        ("crl-verify", profile.crl),
        ("secret" if profile.wrap == "static-key" else profile.wrap, profile.wrap_key),
    )
    for name, material in blocks:
        if material is not None:
            yield f"<{name}>\n{(material.text or '').strip()}\n</{name}>"
    if profile.peer_fingerprints:
        pins = (
            ":".join(pin[at : at + 2] for at in range(0, len(pin), 2)) for pin in profile.peer_fingerprints
        )
        yield "\n".join(("<peer-fingerprint>", *pins, "</peer-fingerprint>"))


def _quoted(word: str) -> str:
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'
