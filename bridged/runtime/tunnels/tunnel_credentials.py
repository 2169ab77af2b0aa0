"""From one tunnel's configuration to what its sessions need: identity, wrap, negotiation settings.

Reads certificate and key files once, and wipes secrets where the language allows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from cryptography.x509 import Certificate

from bridged import __version__
from bridged.addresses import Endpoint, Remote
from bridged.configuration.check import DEFAULT_LISTEN, Conflict, is_inline
from bridged.configuration.protection import Tls
from bridged.configuration.schema import Configuration
from bridged.configuration.secrets import find_exposed_in_tunnel
from bridged.configuration.tunnel import Tunnel
from bridged.configuration.values import DEFAULT_PORT
from bridged.errors import ConfigurationError
from bridged.files import is_readable, mark_at, open_to_read, why_unreadable
from bridged.pki import embedded_tls_material, refused_keys_path
from bridged.protocol.keys.cipher import Cipher
from bridged.protocol.keys.static_key import StaticKey
from bridged.protocol.role import Role
from bridged.protocol.session.settings import SessionSettings
from bridged.protocol.session.static_session import STATIC_KEY, no_engine
from bridged.runtime.tunnels.login import PasswordLogin
from bridged.runtime.tunnels.proxy import CREDENTIALS_OCTETS_MAX, ProxySettings
from bridged.runtime.tunnels.tunnel_plan import AdmissionPlan, TunnelPlan
from bridged.runtime.tunnels.wrap_keys import load_wrap
from bridged.tls import TlsSettings, make_engine_factory, peer_usage
from bridged.tls.identity import (
    certificate_not_after,
    chain_not_after,
    crl_next_update,
    load_certificates,
    read_pem,
    read_private_pem,
)
from bridged.tls.peer_check import PeerCheck
from bridged.units import UnixSeconds


@dataclass(frozen=True, slots=True)
class _Identity:
    ca: bytes | None
    certificate: bytes | None
    key: bytearray
    crl: bytes | None


MEMORY: Final = {Role.CLIENT: "remotes/{name}.json", Role.SERVER: "clients/{name}"}
"""Under the state folder."""


def plan_tunnel(
    configuration: Configuration, name: str, base: Path, warn: Callable[[str], None] | None = None
) -> TunnelPlan:
    """What tunnel `name` is made of, from the configuration.

    Relative files are looked up under `base`. `warn` gets one line for each secret that others can read.

    Raises:
        ConfigurationError: a certificate, key or static key that cannot be used.
        PkiError: the embedded CA is damaged.
    """
    if warn is not None:
        for path, text in find_exposed_in_tunnel(configuration, name):
            warn(f"{'.'.join(map(str, path))}: {text}")
    tunnel = configuration.tunnels[name]
    role = Role.SERVER if tunnel.role == "server" else Role.CLIENT
    prefix = f"tunnels.{name}"
    wrap, key = load_wrap(configuration, tunnel, prefix, base)
    login = PasswordLogin(tunnel.login, prefix, base) if tunnel.login is not None else None
    plain = TunnelPlan(
        name=name,
        bridge=tunnel.bridge,
        session=_session_settings(tunnel, role, key, login),
        make_engine=no_engine,
        wrap=wrap,
        peers_limit=tunnel.peers_max if role is Role.SERVER and not tunnel.point_to_point else 1,
        peer_names=tunnel.peers,
        peer_retention=configuration.metrics.peer_retention_seconds,
        duplicate_names=tunnel.duplicate_names and not tunnel.point_to_point,
        remotes=tuple(Remote.parse(text, DEFAULT_PORT) for text in tunnel.remotes),
        shuffles_remotes=tunnel.remotes_order == "shuffled",
        local=bind_endpoint(tunnel) if role is Role.CLIENT else None,
        exit_notify=tunnel.exit_notify,
        listen_tcp=tcp_endpoints(tunnel),
        proxy=_proxy(tunnel, prefix, base),
        port_share=Endpoint.parse(tunnel.port_share) if tunnel.port_share else None,
        transport=_transport(tunnel),
        memory=configuration.state_directory / MEMORY[role].format(name=name),
        probes_paths=tunnel.mtu == "auto",
        wan_mtu_most=(tunnel.wan_mtu or None) if "wan_mtu" in tunnel.model_fields_set else None,
        replays=configuration.state_directory / "replays" / name,
    )
    return plain if plain.has_static_key else _with_tls(plain, configuration, tunnel, prefix, base)


def _with_tls(
    plain: TunnelPlan, configuration: Configuration, tunnel: Tunnel, prefix: str, base: Path
) -> TunnelPlan:
    crl_file = _list_file(tunnel, base)
    # Before the list is read: a change in between is noticed later.
    crl_mark = mark_at(crl_file) if crl_file is not None else None
    identity = _load_identity(configuration, tunnel, prefix, base)
    settings = _tls_settings(tunnel, identity)
    with _located(tunnel.tls, prefix):
        make_engine = make_engine_factory(settings)
        settings.wipe()
        check = PeerCheck(settings)
    certificates: dict[str, UnixSeconds] = {}
    if identity.certificate is not None:
        certificates["own"] = chain_not_after(identity.certificate)
    if identity.ca is not None:
        certificates["ca"] = certificate_not_after(identity.ca)
    return replace(
        plain,
        make_engine=make_engine,
        certificates=certificates,
        crl_next_update=crl_next_update(identity.crl) if identity.crl is not None else None,
        crl_file=crl_file,
        crl_mark=crl_mark,
        judge_peer=check.judge,
        is_embedded=tunnel.tls.embedded,
        admission=_admission(configuration.state_directory, plain.name, tunnel),
    )


def find_unusable(configuration: Configuration) -> list[ConfigurationError]:
    """Certificates and keys on this host that `plan_tunnel` would refuse: at most one error a tunnel.

    Changes nothing, and makes no CA. Leaves out tunnels with a file that is missing or may not be read here:
    the configuration may be meant for another host.
    """
    found = []
    for name, tunnel in configuration.tunnels.items():
        needs_ca = tunnel.tls.embedded or (tunnel.wrap.mode != "none" and tunnel.wrap.key is None)
        if not all(map(is_readable, _files(tunnel))):
            continue
        try:
            if not needs_ca:
                plan_tunnel(configuration, name, Path("/"))
            elif tunnel.wrap.key is not None:
                load_wrap(configuration, tunnel, f"tunnels.{name}", Path("/"))
        except ConfigurationError as error:
            found.append(error)
    return found


def find_ended(configuration: Configuration, now: UnixSeconds) -> list[Conflict]:
    """(path of the key, text) of certificates on this host that have ended, or begin later; for `check`.

    Those that cannot be read are left out: `find_unusable` refuses them. The embedded CA renews its own.
    """
    found: list[Conflict] = []
    for name, tunnel in configuration.tunnels.items():
        for key in ("ca", "certificate"):
            value = getattr(tunnel.tls, key)
            if not value or not (is_inline(value) or is_readable(value)):
                continue
            try:
                leaf = load_certificates(read_pem(value, key), key)[0]
            except ConfigurationError:
                continue
            text = _outside_validity(leaf, now)
            if text is not None:
                found.append((("tunnels", name, "tls", key), text))
    return found


def _outside_validity(certificate: Certificate, now: UnixSeconds) -> str | None:
    if certificate.not_valid_after_utc.timestamp() < now:
        return f"the certificate ended on {certificate.not_valid_after_utc:%Y-%m-%d}; issue a new one"
    if certificate.not_valid_before_utc.timestamp() > now:
        start = f"{certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC"
        return f"the certificate is not valid before {start}; is the clock of this host right?"
    return None


def _files(tunnel: Tunnel) -> list[str]:
    tls, login = tunnel.tls, tunnel.login
    values = [tls.ca, tls.certificate, tls.key, tls.crl, tunnel.wrap.key, tunnel.wrap.old_clients_key]
    values += [login.password, login.totp_secret] if login is not None else []
    return [value for value in values if value and not is_inline(value)]


@contextmanager
def _located(tls: Tls, prefix: str) -> Iterator[None]:
    """Complete errors that name only the key (`tls.key`): add the tunnel, and the file if there is one.

    Raises:
        ConfigurationError: what was raised, with `file` and the whole `key`.
    """
    try:
        yield
    except ConfigurationError as error:
        section, _, name = error.key.partition(".")
        if section != "tls":
            raise
        value = getattr(tls, name, None)
        file = value if isinstance(value, str) and not is_inline(value) else None
        raise ConfigurationError(
            error.reason, file=file, key=f"{prefix}.{error.key}", code=error.code
        ) from error


def bind_endpoint(tunnel: Tunnel) -> Endpoint | None:
    """Where the tunnel's UDP socket is bound; None: the kernel chooses (a client), or there is none."""
    if tunnel.role == "server" and tunnel.transport == "tcp":
        return None
    if tunnel.role == "server":
        return Endpoint.parse(tunnel.listen, DEFAULT_PORT) if tunnel.listen else DEFAULT_LISTEN
    return Endpoint.parse(tunnel.local, DEFAULT_PORT) if tunnel.local else None


def bound_endpoints(tunnel: Tunnel) -> tuple[Endpoint, ...]:
    """All that the tunnel binds: where a server listens, or where a client sends from."""
    udp = bind_endpoint(tunnel)
    return (*((udp,) if udp is not None else ()), *tcp_endpoints(tunnel))


def tcp_endpoints(tunnel: Tunnel) -> tuple[Endpoint, ...]:
    """Where a server listens for TCP."""
    if tunnel.role == "client" or tunnel.transport == "udp":
        return ()
    text = tunnel.listen_tcp or tunnel.listen
    endpoint = Endpoint.parse(text, DEFAULT_PORT) if text else DEFAULT_LISTEN
    return (replace(endpoint, transport="tcp"),)


def _proxy(tunnel: Tunnel, prefix: str, base: Path) -> ProxySettings | None:
    if tunnel.proxy is None or tunnel.proxy.url is None:
        return None
    kind, _, where = tunnel.proxy.url.partition("://")
    user = password = None
    if tunnel.proxy.credentials_file is not None:
        user, password = _proxy_login(tunnel.proxy.credentials_file, f"{prefix}.proxy.credentials_file", base)
    return ProxySettings("socks5" if kind == "socks5" else "http", Endpoint.parse(where), user, password)


def _proxy_login(value: str, key: str, base: Path) -> tuple[str, str]:
    """User name and password, from a file or the text itself."""
    path = None if is_inline(value) else base / value
    text = value
    if path is not None:
        try:
            with open_to_read(path) as stream:
                text = stream.read(CREDENTIALS_OCTETS_MAX).decode("utf-8", "replace")
        except (OSError, ValueError) as error:
            reason = why_unreadable(path, error)
            raise ConfigurationError(f"cannot be read: {reason}", file=path, key=key) from None
    lines = text.splitlines()
    if len(lines) < 2 or not all(lines[:2]):
        raise ConfigurationError("needs two lines: user name and password", file=path, key=key)
    return lines[0], lines[1]


def _transport(tunnel: Tunnel) -> str:
    if tunnel.role == "server":
        return tunnel.transport
    used = {Remote.parse(text, DEFAULT_PORT).server.transport for text in tunnel.remotes}
    return used.pop() if len(used) == 1 else "both"


def _load_identity(configuration: Configuration, tunnel: Tunnel, prefix: str, base: Path) -> _Identity:
    tls = tunnel.tls
    if tls.embedded:
        ca, certificate, key, crl = embedded_tls_material(configuration.state_directory)
        return _Identity(ca, certificate, bytearray(key), crl)
    if (tls.certificate is None or tls.key is None) and not (tunnel.login and tls.ca):
        raise ConfigurationError(
            "`certificate` and `key` are needed, or `embedded: true`", key=f"{prefix}.tls"
        )
    return _Identity(
        ca=read_pem(tls.ca, f"{prefix}.tls.ca", base) if tls.ca else None,
        certificate=read_pem(tls.certificate, f"{prefix}.tls.certificate", base) if tls.certificate else None,
        key=read_private_pem(tls.key, f"{prefix}.tls.key", base) if tls.key else bytearray(),
        crl=read_pem(tls.crl, f"{prefix}.tls.crl", base) if tls.crl else None,
    )


def _admission(state: Path, name: str, tunnel: Tunnel) -> AdmissionPlan:
    return AdmissionPlan(
        authentication=tunnel.authentication,
        verify_command=tunnel.tls.verify_command,
        token_key=state / f"tokens/{name}.key",
        clients=tunnel.clients,
        only_known_clients=tunnel.only_known_clients,
        address_pool=tunnel.address_pool,
        addresses=state / f"addresses/{name}",
        bans=state / "bans",
        refused_keys=refused_keys_path(state),
        used_codes=state / "used-codes",
        key_seconds=tunnel.wrap.max_age_days * 86_400 if tunnel.wrap.max_age_days else None,
        key_command=tunnel.wrap.verify_command,
    )


def _list_file(tunnel: Tunnel, base: Path) -> Path | None:
    """The file of the revocation list."""
    value = tunnel.tls.crl
    return base / value if value and not is_inline(value) and not tunnel.tls.embedded else None


def _tls_settings(tunnel: Tunnel, identity: _Identity) -> TlsSettings:
    return TlsSettings(
        role=tunnel.role,
        certificate_pem=identity.certificate,
        key_pem=identity.key,
        ca_pem=identity.ca,
        crl_pem=identity.crl,
        peer_fingerprints=tunnel.tls.peer_fingerprints,
        peer_usage=peer_usage(tunnel.role, tunnel.tls.peer_role, identity.ca is not None),
        peer_name=tunnel.tls.peer_name,
        peer_name_prefix=tunnel.tls.peer_name_prefix,
        peer_subject=tunnel.tls.peer_subject,
        takes_expired_lists=tunnel.tls.crl_expired == "warn",
        peer_certificate=tunnel.authentication.client_certificate if tunnel.authentication else "required",
        version_min=tunnel.tls.version_min,
        version_max=tunnel.tls.version_max,
    )


def _session_settings(
    tunnel: Tunnel, role: Role, key: StaticKey | None, login: PasswordLogin | None
) -> SessionSettings:
    return SessionSettings(
        role=role,
        ciphers=tuple(Cipher.parse(name) for name in tunnel.ciphers),
        tun_mtu=tunnel.tun_mtu,
        framing=tunnel.compression_framing,
        fragment=tunnel.fragment,
        fallback_cipher=Cipher.parse(tunnel.fallback_cipher) if tunnel.fallback_cipher else None,
        is_point_to_point=tunnel.point_to_point or tunnel.wrap.mode == STATIC_KEY,
        digest=tunnel.auth or tunnel.wrap.digest,
        wrap_name=tunnel.wrap.mode,
        wrap_key=key,
        wrap_direction=tunnel.wrap.direction,
        use_exporter=tunnel.key_derivation != "prf",
        hand_window=tunnel.handshake_seconds,
        tran_window=tunnel.transition_seconds,
        reneg_seconds=tunnel.renegotiate.seconds,
        ping=int(tunnel.keepalive.ping_seconds),
        ping_restart=int(tunnel.keepalive.restart_seconds),
        push=tunnel.push,
        version=f"bridged-{__version__}",
        login=login,
        checks_login=tunnel.authentication is not None or bool(tunnel.tls.verify_command),
    )
