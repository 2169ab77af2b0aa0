"""What becomes of each OpenVPN directive that has no counterpart here: accepted, warned about, refused.

Source: docs/protocol/data.md, section 7 (the table). The counterparts are in `bridged.profiles.mapping`.
Pure tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final


def _each(names: str, text: str) -> dict[str, str]:
    return dict.fromkeys(names.split(), text)


ACCEPTED: Final[frozenset[str]] = frozenset(
    _each(
        "persist-tun persist-key persist-local-ip persist-remote-ip mlock nice fast-io daemon syslog "
        "machine-readable-output suppress-timestamps mute-replay-warnings opt-verify disable-occ "
        "disable-dco route-method route-delay ip-win32 tap-sleep dhcp-release dhcp-renew register-dns "
        "block-outside-dns windows-driver win-sys hash-size topology tun-ipv6 script-security setenv-safe "
        "comp-noadapt allow-compression allow-recursive-routing remap-usr1 engine providers status-version "
        "tmp-dir iproute ignore-unknown-option float bind multihome preresolve resolv-retry connect-retry "
        "connect-retry-max connect-timeout server-poll-timeout sndbuf rcvbuf tun-mtu-max mtu-disc passtos "
        "ifconfig-noexec dh auth-retry auth-nocache tls-timeout compat-mode protocol-flags ping-timer-rem "
        "push-peer-info user group chroot log log-append verb mute status writepid dev-node tcp-nodelay "
        "txqueuelen remote-random-hostname tcp-queue-limit bcast-buffers keysize max-routes socket-flags "
        "echo",
        "",
    )
)
"""No effect, or what we do anyway; not worth a word."""

WARNED: Final[Mapping[str, str]] = {
    **_each(
        "route route-ipv6 route-gateway route-metric route-noexec route-nopull redirect-gateway "
        "redirect-private dhcp-option dns iroute iroute-ipv6 block-ipv6 client-nat",
        "nothing is done: this is a bridge, routes and name servers belong to the machines in the LAN",
    ),
    **_each("up down", "the script is not run: the daemon puts the adapter into the bridge by itself"),
    **_each(
        "tls-cipher tls-ciphersuites tls-groups ecdh-curve tls-cert-profile",
        "ignored: TLS uses its own list of strong suites and groups",
    ),
    "remote-random": "ignored: the servers are tried in the order they are written",
    "pull-filter": "ignored: of pushed options only those that a bridge needs are taken",
    "shaper": "ignored: the rate is not limited",
    "inactive": "ignored: the tunnel stays up",
    "session-timeout": "ignored: the tunnel stays up",
    "remote-cert-ku": "ignored: key usage is checked as TLS needs it; use remote-cert-tls",
    "data-ciphers-fallback": "ignored: the cipher is always negotiated (servers from 2.4 on do)",
}

_MANAGEMENT_TEXT: Final = "ignored: use `bridged status`, its API and its metrics in place of it"
_SERVER_TEXT: Final = (
    "belongs into a server's file; make a server with `bridged init`, or ask its owner for a client's profile"
)
_PROXY_TEXT: Final = "proxies need TCP, which this version cannot use; ask for a server reachable over UDP"
_TOKEN_TEXT: Final = (
    "keys in hardware or system stores are not supported; export certificate and key as PEM files"
)
_PASSWORD_TEXT: Final = (
    "user names and passwords are not supported by this version; ask the server's owner for a profile "
    "that needs a certificate only"
)
_LAYER3_TEXT: Final = "layer 3 only; a bridge needs a server with `dev tap`"
_V2_TEXT: Final = (
    "tls-crypt-v2 is not supported by this version; ask the server's owner for a tls-crypt or tls-auth key"
)
_COMPRESSION_TEXT: Final = (
    "compression and its framing are not supported; remove the line at both ends (the server's owner "
    "may have to; `comp-lzo no` is a framing too)"
)

REFUSED: Final[Mapping[str, str]] = {
    **_each(
        "tls-server server-bridge port-share vlan-tagging vlan-accept vlan-pvid client-to-client "
        "verify-client-cert auth-user-pass-verify auth-user-pass-optional username-as-common-name "
        "auth-gen-token auth-gen-token-secret duplicate-cn push push-reset push-remove client-config-dir "
        "ccd-exclusive client-connect client-disconnect ifconfig-pool ifconfig-pool-persist ifconfig-push "
        "max-clients connect-freq connect-freq-initial max-routes-per-client stale-routes-check "
        "learn-address tls-crypt-v2-max-age",
        _SERVER_TEXT,
    ),
    **_each("http-proxy http-proxy-option http-proxy-user-pass socks-proxy", _PROXY_TEXT),
    **_each("auth-user-pass static-challenge", _PASSWORD_TEXT),
    **_each("server server-ipv6", _LAYER3_TEXT),
    **_each("compress comp-lzo", _COMPRESSION_TEXT),
    **_each("cryptoapicert pkcs11-id pkcs11-providers", _TOKEN_TEXT),
    "tls-crypt-v2": _V2_TEXT,
    "secret": "static keys have no forward secrecy and are not supported; use certificates",
    "genkey": "makes keys, and is no part of a profile; remove the line",
    "fragment": "its framing is not supported by this version; remove it at both ends",
    "no-replay": "would turn the replay check off, which is not safe; remove the line",
    "prng": "random numbers always come from the operating system; remove the line",
    "plugin": "plug-ins are not loaded; remove the line if the tunnel works without",
    "capath": "folders of certificates are not supported; name one file with all of them: `ca FILE`",
    "verify-hash": "pins a CA; put only that CA into `ca`, or pin the peer with `peer-fingerprint`",
    "tls-verify": "the script is not run; use verify-x509-name or peer-fingerprint in place of it",
    "pkcs12": (
        "convert it: `openssl pkcs12 -in FILE -cacerts -nokeys -out ca.crt`, `… -clcerts -nokeys -out "
        "client.crt`, `… -nocerts -noenc -out client.key`, and name them with ca, cert and key"
    ),
    **_each("bind-dev mark", "not supported by this version; remove the line if the default route is right"),
    "config": "other files are not read; put their lines here",
}


def treatment_by_prefix(name: str) -> tuple[str, str] | None:
    """('warn' or 'refuse', text) for the families of directives."""
    if name == "management" or name.startswith("management-"):
        return "warn", _MANAGEMENT_TEXT
    if name.startswith("pkcs11-"):
        return "refuse", _TOKEN_TEXT
    return None
