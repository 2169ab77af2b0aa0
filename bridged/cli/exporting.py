"""`bridged export`: the profile of a client's tunnel, for official OpenVPN clients.

Results go to stdout, messages to stderr. Exit status: 0 done, 1 failed, 2 wrong use or a bad file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer

from bridged.cli.files import Output, refuse_existing, write
from bridged.cli.output import say
from bridged.cli.status import DEFAULT_CONFIG, Config
from bridged.errors import ConfigurationError

if TYPE_CHECKING:
    from bridged.addresses import MacAddress
    from bridged.configuration.protection import Wrap
    from bridged.configuration.tunnel import Tunnel
    from bridged.profiles import Material, Profile
    from bridged.profiles.profile import ProxyLine

_ONLY_OURS: Final = ("priority", "workers", "coalesce", "dataplane", "busy_poll_microseconds")


def register(app: typer.Typer) -> None:
    app.command("export")(export)


def export(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A client's tunnel in the configuration.")],
    config: Config = DEFAULT_CONFIG,
    output: Output = None,
) -> None:
    """Write an .ovpn file for OpenVPN from a client's tunnel; its heading says what is left to do."""
    from bridged.configuration import load
    from bridged.profiles import serialize_tunnel

    configuration = load(config)
    tunnel = configuration.tunnels.get(name)
    if tunnel is None:
        known = ", ".join(configuration.tunnels) or "none"
        raise ConfigurationError(f"no tunnel {name!r}; it has {known}", file=config, key="tunnels")
    if tunnel.role == "server":
        reason = "is a server; `bridged invite NAME` writes the profile of one of its clients"
        raise ConfigurationError(reason, file=config, key=f"tunnels.{name}")
    if output is not None:
        refuse_existing(output)
    profile = _profile(tunnel, f"tunnels.{name}")
    write(output, serialize_tunnel(profile, name), private=True)
    for text in _left_out(tunnel, profile):
        say(f"{config}: tunnels.{name}: {text}")
    where = "the profile" if output is None else str(output)
    say(f"Send {where} over a secure channel, then delete your copy: it contains a private key.")


def _profile(tunnel: Tunnel, key: str) -> Profile:
    """The tunnel's settings as those of a profile; what has its default is left to OpenVPN's."""
    from bridged.addresses import Endpoint, Remote
    from bridged.profiles import Profile
    from bridged.profiles.profile import LoginLine

    stated = tunnel.model_fields_set
    keepalive, renegotiate, tls, wrap = tunnel.keepalive, tunnel.renegotiate, tunnel.tls, tunnel.wrap
    certificate = _material(tls.certificate, f"{key}.tls.certificate")
    private_key = _material(tls.key, f"{key}.tls.key")
    has_own = certificate is not None and private_key is not None
    if not has_own and tunnel.login is None and wrap.mode != "static-key":
        raise ConfigurationError("needs `certificate` and `key`", key=f"{key}.tls")
    mss = _mss(tunnel.mss)
    framing = tunnel.compression_framing
    return Profile(
        remotes=[Remote.parse(text) for text in tunnel.remotes],
        remotes_order="shuffled" if tunnel.remotes_order == "shuffled" else None,
        proxy=_proxy(tunnel),
        local=Endpoint.parse(tunnel.local) if tunnel.local else None,
        ca=_material(tls.ca, f"{key}.tls.ca"),
        certificate=certificate,
        key=private_key,
        crl=_material(tls.crl, f"{key}.tls.crl"),
        login=LoginLine() if tunnel.login is not None else None,
        challenge=_challenge(tunnel),
        peer_fingerprints=["".join(pin.replace(":", " ").split()).lower() for pin in tls.peer_fingerprints],
        peer_role=_peer_role(tunnel),
        peer_name=tls.peer_name,
        peer_name_prefix=tls.peer_name_prefix,
        peer_subject=tls.peer_subject,
        version_min=tls.version_min,
        version_max=tls.version_max if tls.version_max != "1.3" else None,
        wrap=wrap.mode,
        wrap_key=_wrap_key(wrap, f"{key}.wrap.key"),
        wrap_direction=wrap.direction,
        wrap_digest=wrap.digest if wrap.mode in ("tls-auth", "static-key") else None,
        point_to_point=tunnel.point_to_point,
        ciphers=list(tunnel.ciphers),
        fallback_cipher=tunnel.fallback_cipher,
        digest=tunnel.auth,
        tap_mac=_fixed_mac(tunnel),
        compression_framing=None if framing == "auto" or framing == "none" else framing,  # noqa: PLR1714
        mtu=tunnel.tun_mtu if tunnel.tun_mtu != 1500 else None,
        fragment=tunnel.fragment or None,
        mss=mss,
        wan_mtu=tunnel.wan_mtu if "wan_mtu" in stated and mss is None else None,
        remote_sizes={
            Remote.parse(text): (_mss(sizes.mss), sizes.wan_mtu)
            for text, sizes in tunnel.remote_sizes.items()
        },
        ping_seconds=int(keepalive.ping_seconds) if "keepalive" in stated else None,
        restart_seconds=int(keepalive.restart_seconds) if "keepalive" in stated else None,
        renegotiate_seconds=int(renegotiate.seconds) if renegotiate.seconds != 3600 else None,
        renegotiate_bytes=renegotiate.bytes if "bytes" in renegotiate.model_fields_set else None,
        renegotiate_packets=renegotiate.packets if "packets" in renegotiate.model_fields_set else None,
        handshake_seconds=int(tunnel.handshake_seconds) if "handshake_seconds" in stated else None,
        transition_seconds=int(tunnel.transition_seconds) if "transition_seconds" in stated else None,
        exit_notify=tunnel.exit_notify,
    )


def _wrap_key(wrap: Wrap, key: str) -> Material | None:
    """A server's tls-crypt-v2 key in its place is refused: it would give all clients' keys away."""
    from bridged.protocol.keys.client_wrap_key import parse_client_key

    material = _material(wrap.key, key)
    if wrap.mode == "tls-crypt-v2" and material is not None:
        parse_client_key(material.text or "", key)
    return material


def _left_out(tunnel: Tunnel, profile: Profile) -> list[str]:
    ours = [key for key in _ONLY_OURS if key in tunnel.model_fields_set]
    found = [f"`{key}` has no counterpart in OpenVPN, and is left out" for key in ours]
    if tunnel.login is not None:
        found.append("`login`: user name and password are left out; OpenVPN asks for them")
    if profile.proxy is not None and profile.proxy.asks:
        found.append("`proxy`: user name and password are left out; OpenVPN asks for them")
    if profile.peer_role is None and not profile.peer_fingerprints:
        found.append("`tls.peer_role` asks for no server certificate; nor does the profile")
    return found


def _proxy(tunnel: Tunnel) -> ProxyLine | None:
    from bridged.addresses import Endpoint
    from bridged.profiles.profile import ProxyLine

    if tunnel.proxy is None or tunnel.proxy.url is None:
        return None
    kind, _, where = tunnel.proxy.url.partition("://")
    asks = tunnel.proxy.credentials_file is not None
    return ProxyLine(
        "socks5" if kind == "socks5" else "http", Endpoint.parse(where), asks=asks, takes_login=asks
    )


def _peer_role(tunnel: Tunnel) -> Literal["client", "server"] | None:
    asked = tunnel.tls.peer_role
    if asked == "auto":
        return "server" if tunnel.tls.ca else None
    return asked if asked in ("client", "server") else None


def _challenge(tunnel: Tunnel) -> Literal["scrv1", "concat"] | None:
    if tunnel.login is None or tunnel.login.challenge == "none":
        return None
    return tunnel.login.challenge


def _mss(value: int | str | None) -> int | None:
    return 0 if value == "off" else value if isinstance(value, int) else None


def _fixed_mac(tunnel: Tunnel) -> MacAddress | None:
    from bridged.addresses import MacAddress

    return None if tunnel.tap.mac in ("random", "ephemeral", "stable") else MacAddress.parse(tunnel.tap.mac)


def _material(value: str | None, key: str) -> Material | None:
    from bridged.profiles import Material
    from bridged.tls.identity import read_pem

    return None if value is None else Material(0, text=read_pem(value, key).decode("utf-8", "replace"))
