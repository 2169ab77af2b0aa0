"""Turns a profile or a server's file into a YAML configuration.

The keys are those of `bridged.configuration.schema`, which this package must not import: the caller checks
the result there. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from bridged.profiles.profile import Profile, ServerSettings


@dataclass(frozen=True, slots=True)
class Trust:
    """Where the daemon finds certificates and keys: paths, or the texts themselves.

    `ca` may be missing if the peer is pinned, `crl`, both keys of wraps, `login` and `proxy_login` if the
    profile has none.
    """

    certificate: str | None = None
    key: str | None = None
    ca: str | None = None
    crl: str | None = None
    wrap_key: str | None = None
    old_wrap_key: str | None = None
    login: str | None = None
    proxy_login: str | None = None


def to_configuration(
    profile: Profile,
    trust: Trust,
    *,
    tunnel_name: str,
    bridge: str,
    ports: Sequence[str] = (),
    state_directory: Path | None = None,
) -> dict[str, Any]:
    """Plain values for YAML: one bridge and one tunnel, with no setting that the profile lacks."""
    bridge_section = _known(ports=list(ports), addresses=list(profile.addresses))
    return _known(
        state_directory=str(state_directory) if state_directory else None,
        bridges={bridge: bridge_section},
        tunnels={tunnel_name: _tunnel(profile, trust, bridge, tunnel_name)},
    )


def render_yaml(configuration: Mapping[str, Any], heading: Sequence[str] = ()) -> str:
    """YAML text, with `heading` as comment lines above. Values of several lines become literal blocks."""
    comment = "".join(f"# {line}".rstrip() + "\n" for line in heading)
    body = yaml.dump(
        dict(configuration), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000, indent=2
    )
    return comment + body


def _tunnel(profile: Profile, trust: Trust, bridge: str, tunnel_name: str) -> dict[str, Any]:
    tunnel = _known(
        role="client" if profile.server is None else "server",
        point_to_point=(profile.point_to_point and profile.wrap != "static-key") or None,
        bridge=bridge,
        tap=_known(
            name=profile.tap_name,
            mac=str(profile.tap_mac) if profile.tap_mac else None,
            mtu=profile.mtu if profile.mtu != 1500 else None,
        ),
        remotes=[str(remote) for remote in profile.remotes],
        remotes_order=profile.remotes_order if profile.server is None else None,
        proxy=_proxy(profile, trust, tunnel_name),
        local=str(profile.local) if profile.local else None,
        **_of_server(profile.server, is_alone=profile.point_to_point),
        authentication=_authentication(profile.server, tunnel_name),
        tls=_tls(profile, trust),
        login=_login(profile, trust, tunnel_name),
        ciphers=list(profile.ciphers),
        fallback_cipher=profile.fallback_cipher,
        auth=profile.digest,
        key_derivation=profile.key_derivation,
        compression_framing=profile.compression_framing,
        keepalive=_known(ping_seconds=profile.ping_seconds, restart_seconds=profile.restart_seconds),
        renegotiate=_known(
            seconds=profile.renegotiate_seconds,
            bytes=profile.renegotiate_bytes,
            packets=profile.renegotiate_packets,
        ),
        handshake_seconds=profile.handshake_seconds,
        transition_seconds=profile.transition_seconds,
        replay_window=profile.replay_window,
        mtu=profile.mtu,
        fragment=profile.fragment,
        mss=_mss(profile.mss),
        wan_mtu=profile.wan_mtu,
        remote_sizes={
            str(remote): _known(mss=_mss(mss), wan_mtu=wan_mtu)
            for remote, (mss, wan_mtu) in profile.remote_sizes.items()
        },
        exit_notify=profile.exit_notify,
    )
    if profile.wrap != "none":
        is_auth = profile.has_tls_auth or profile.wrap == "static-key"
        server = profile.server or ServerSettings()
        tunnel["wrap"] = _known(
            mode=profile.wrap,
            key=trust.wrap_key,
            direction=profile.wrap_direction if is_auth else None,
            digest=profile.wrap_digest if is_auth else None,
            old_clients_key=trust.old_wrap_key,
            old_clients_mode="tls-auth" if server.old_wrap == "tls-auth" else None,
            verify_command=list(server.wrap_verify_command),
            max_age_days=server.wrap_max_age_days,
        )
    return tunnel


def _tls(profile: Profile, trust: Trust) -> dict[str, Any] | None:
    if profile.wrap == "static-key":
        return None
    return _known(
        ca=trust.ca,
        certificate=trust.certificate,
        key=trust.key,
        crl=trust.crl,
        peer_fingerprints=list(profile.peer_fingerprints),
        peer_role=profile.peer_role or (None if trust.ca else "any"),
        peer_name=profile.peer_name,
        peer_name_prefix=profile.peer_name_prefix,
        peer_subject=profile.peer_subject,
        version_min=profile.version_min,
        version_max=profile.version_max,
    )


def _login(profile: Profile, trust: Trust, tunnel_name: str) -> dict[str, Any]:
    """Files that must be written by hand get names beside the configuration."""
    if profile.login is None:
        return {}
    return _known(
        password=trust.login or login_file(tunnel_name),
        challenge=profile.challenge,
        totp_secret=totp_file(tunnel_name) if profile.challenge else None,
    )


def _proxy(profile: Profile, trust: Trust, tunnel_name: str) -> dict[str, Any]:
    proxy = profile.proxy
    if proxy is None:
        return {}
    login = trust.proxy_login or (proxy_login_file(tunnel_name) if proxy.asks else None)
    return _known(url=f"{proxy.kind}://{proxy.where}", credentials_file=login)


def proxy_login_file(tunnel_name: str) -> str:
    """Where user name and password for the proxy must be written, if the profile has none."""
    return f"{tunnel_name}.proxy"


def login_file(tunnel_name: str) -> str:
    """Where user name and password must be written, if the profile has none."""
    return f"{tunnel_name}.login"


def totp_file(tunnel_name: str) -> str:
    """Where the secret of one-time codes must be written."""
    return f"{tunnel_name}.totp"


def _authentication(server: ServerSettings | None, tunnel_name: str) -> dict[str, Any]:
    if server is None or not (server.asks_passwords or server.client_certificate):
        return {}
    return _known(
        password_file=f"{tunnel_name}.passwords",
        optional=server.may_lack_password or None,
        client_certificate=server.client_certificate,
        name_from="username" if server.names_by_user else None,
        token_seconds=server.token_seconds,
    )


def _of_server(server: ServerSettings | None, *, is_alone: bool) -> dict[str, Any]:
    """`forward_between_peers` is always written: OpenVPN's default is the opposite of ours."""
    if server is None:
        return {}
    if is_alone:
        return _known(
            transport=server.transport if server.transport != "udp" else None,
            listen=str(server.listen) if server.listen else None,
        )
    push = list(server.push)
    routes = ("route", "redirect-gateway", "redirect-private")
    if server.pool is not None and server.pool.gateway:
        pass
    elif any(option.split()[0] == "route-gateway" for option in push):
        pass  # The file names one itself.
    elif server.pushes_gateway == "dhcp":
        push.insert(0, "route-gateway dhcp")
    elif server.pushes_gateway and any(option.split()[0] in routes for option in push):
        push.insert(0, f"route-gateway {server.pushes_gateway}")
    return _known(
        transport=server.transport if server.transport != "udp" else None,
        listen=str(server.listen) if server.listen else None,
        port_share=_shared_port(server),
        forward_between_peers=server.forwards_between_peers,
        duplicate_names=server.allows_duplicate_names or None,
        peers_max=server.peers_max,
        push=push,
        clients=dict(server.clients),
        only_known_clients=server.only_known_clients or None,
        address_pool=_known(
            first=str(server.pool.first),
            last=str(server.pool.last),
            prefix=server.pool.prefix,
            gateway=server.pool.gateway,
        )
        if server.pool is not None
        else None,
    )


def _shared_port(server: ServerSettings) -> str | None:
    """Only TCP has one; with UDP OpenVPN refuses the line."""
    return str(server.shares_port_with) if server.shares_port_with and server.transport == "tcp" else None


def _mss(size: int | None) -> int | str | None:
    return "off" if size == 0 else size


def _known(**values: Any) -> dict[str, Any]:
    """The values except None and empty ones, for which the configuration's defaults apply."""
    return {key: value for key, value in values.items() if value is not None and value not in ([], {})}


# The library quotes what YAML 1.1 takes for a number, and our files are YAML 1.2.
_NUMBER: Final = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?|0[xo][0-9A-Fa-f]+")


class _Dumper(yaml.SafeDumper):
    """Writes PEM texts as literal blocks, which people can read and compare."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else "'" if _NUMBER.fullmatch(text) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)
