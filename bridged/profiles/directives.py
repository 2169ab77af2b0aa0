"""OpenVPN directives without a counterpart here: which are ignored, noted or refused.

Together with the mappers of `bridged.profiles.mapping` (see `table`) these are all directives of OpenVPN
2.3 to 2.8. Source: docs/protocol/data.md#7; OpenVPN's manual pages of 2.3 to 2.8.
Pure tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final


def _each(names: str, text: str) -> dict[str, str]:
    return dict.fromkeys(names.split(), text)


IGNORED: Final[frozenset[str]] = frozenset(
    _each(
        # bridged does so anyway, or it has no meaning here.
        "persist-tun persist-key persist-local-ip persist-remote-ip mlock nice fast-io daemon syslog "
        "machine-readable-output suppress-timestamps errors-to-stderr mute-replay-warnings opt-verify "
        "disable-occ disable-dco hash-size topology tun-ipv6 script-security setenv-safe tmp-dir iproute "
        "comp-noadapt allow-compression allow-recursive-routing remap-usr1 engine providers status-version "
        "ignore-unknown-option float bind multihome preresolve ip-remote-hint remote-ip-hint allow-pull-fqdn "
        "resolv-retry connect-retry connect-retry-max connect-timeout server-poll-timeout sndbuf rcvbuf "
        "tun-mtu-max tun-mtu-extra max-packet-size mtu-disc mtu-test passtos ifconfig-noexec ifconfig-nowarn "
        "dh auth-retry auth-nocache tls-timeout compat-mode protocol-flags ping-timer-rem push-peer-info "
        "push-continuation peer-id user group chroot setcon log log-append verb mute status writepid "
        "tcp-nodelay txqueuelen remote-random-hostname tcp-queue-limit bcast-buffers keysize max-routes "
        "socket-flags echo parameter memstats replay-persist use-prediction-resistance "
        "allow-deprecated-insecure-static-crypto "
        # Windows and other systems.
        "route-method route-delay ip-win32 tap-sleep dhcp-release dhcp-renew dhcp-pre-release dhcp-internal "
        "rdns-internal register-dns block-outside-dns windows-driver win-sys dev-node show-net-up "
        "pause-exit service msg-channel foreign-option "
        # They change something that bridged does not use: scripts, plug-ins.
        "down-pre up-delay up-restart tls-export-cert x509-track keying-material-exporter "
        "force-tls-key-material-export allow-nonadmin "
        # A client never gives up, with a proxy or without.
        "http-proxy-retry http-proxy-override http-proxy-fallback socks-proxy-retry",
        "",
    )
)
"""Without effect, or done anyway; not worth a notice."""

_LAYER3_NOTE: Final = "ignored: this is a bridge; routes and name servers are set on the machines of the LAN"
_SCRIPT_NOTE: Final = "the script is not run; bridged puts the adapter into the bridge itself"
_STAYS_NOTE: Final = "ignored: bridged does not exit, it reconnects"
_TOKEN_NOTE: Final = "ignored: a token counts for one session; the server gives another"
_NAMES_NOTE: Final = "ignored: names are compared as OpenVPN 2.5 and later print them"

NOTED: Final[Mapping[str, str]] = {
    **_each(
        "route route-ipv6 route-gateway route-ipv6-gateway route-metric route-table route-noexec "
        "route-nopull redirect-gateway redirect-private dhcp-option dns iroute iroute-ipv6 block-ipv6 "
        "client-nat",
        _LAYER3_NOTE,
    ),
    **_each("down route-up route-pre-down ipchange dns-updown", _SCRIPT_NOTE),
    **_each(
        "tls-groups ecdh-curve tls-cert-profile",
        "ignored: TLS uses its own list of strong suites and groups",
    ),
    **_each("inactive session-timeout single-session tls-exit", _STAYS_NOTE),
    **_each("auth-token auth-token-user", _TOKEN_NOTE),
    **_each("compat-names no-name-remapping", _NAMES_NOTE),
    **_each(
        "link-mtu udp-mtu",
        "ignored: both ends must have the same `tun-mtu`; without that line it is 1500",
    ),
    "http-proxy-timeout": "ignored: each call by a proxy has 10 seconds",
    "pull-filter": "ignored: bridged uses only those pushed options that a bridge needs",
    "prng": "ignored: random numbers always come from the operating system",
    "shaper": "ignored: the rate is not limited",
    "gremlin": "ignored: bridged makes no faults on purpose",
    "remote-cert-ku": "ignored: key usage is checked as TLS needs it; use `remote-cert-tls`",
    "ncp-disable": "ignored: the cipher is always negotiated, with all servers from 2.4 on; OpenVPN 2.6 has "
    "removed the option",
}

_MANAGEMENT_NOTE: Final = "ignored: use `bridged status`, its API and its metrics instead"
_SERVER_TEXT: Final = (
    "belongs in a server's file; make a server with `bridged init`, or ask its owner for a client's profile"
)
_COMMAND_TEXT: Final = "is a command, not an option of a profile; remove the line"
_TOKEN_TEXT: Final = (
    "keys in hardware or system stores are not supported; export certificate and key as PEM files"
)
REFUSED: Final[Mapping[str, str]] = {
    **_each(
        "server-bridge server server-ipv6 client-to-client verify-client-cert duplicate-cn push "
        "push-reset push-remove client-config-dir client-connect client-disconnect disable ifconfig-pool "
        "ifconfig-pool-linear ifconfig-pool-persist ifconfig-push ifconfig-push-constraint "
        "ifconfig-ipv6-pool ifconfig-ipv6-push max-clients connect-freq connect-freq-initial port-share "
        "max-routes-per-client stale-routes-check learn-address auth-user-pass-verify "
        "tls-crypt-v2-max-age tls-crypt-v2-verify "
        "auth-user-pass-optional "
        "client-cert-not-required username-as-common-name auth-gen-token auth-gen-token-secret "
        "client-crresponse override-username ccd-exclusive",
        _SERVER_TEXT,
    ),
    **_each(
        "help version genkey mktun rmtun test-crypto show-adapters show-ciphers show-curves "
        "show-digests show-engines show-gateway show-groups show-net show-pkcs11-ids show-tls "
        "show-valid-subnets",
        _COMMAND_TEXT,
    ),
    **_each("cryptoapicert pkcs11-id pkcs11-providers", _TOKEN_TEXT),
    "mtu-dynamic": "is what OpenVPN 1 called `fragment`; write `fragment SIZE` at both ends",
    "tls-server": "belongs in a server's file, which `bridged import FILE` reads",
    "inetd": "cannot be started by inetd; remove the line",
    "no-replay": "would turn off the replay check, which is not safe; remove the line",
    "no-iv": "would send packets without an IV, which is not safe (OpenVPN 2.4 removed it); remove the line "
    "at both ends",
    "capath": "folders of certificates are not supported; name one file with all of them: `ca FILE`",
    "verify-hash": "pins a CA; put only that CA into `ca`, or pin the peer with `peer-fingerprint`",
    "tls-verify": "the script is not run; use verify-x509-name or peer-fingerprint instead, or remove the "
    "line and write `tls: {verify_command: [SCRIPT]}` at a server",
    **_each("bind-dev mark", "not supported by this version; remove the line if the default route is right"),
    "config": "other files are not read; copy their lines into this one",
}


_OF_CLIENT_TEXT: Final = (
    "belongs in a client's profile, and this is a server's file; remove it, or give it a file of its own"
)

SERVER_IGNORED: Final[frozenset[str]] = frozenset(
    _each(
        "ifconfig-pool-linear max-routes-per-client stale-routes-check connect-freq connect-freq-initial",
        "",
    )
)
SERVER_NOTED: Final[Mapping[str, str]] = {
    "ifconfig-push-constraint": "ignored: `clients.NAME.address` must always be in the network of the pool",
    "ifconfig-ipv6-pool": "ignored: clients get no IPv6 addresses from bridged; let the LAN advertise them",
    "client-crresponse": "the script is not run; bridged asks for one-time codes itself (`bridged password "
    "FILE NAME --totp`)",
    **_each(
        "client-connect client-disconnect learn-address",
        "the script is not run; if it refuses clients, revoke their certificates instead",
    ),
    "status": "ignored: use `bridged status`, its API and its metrics instead",
    **_each(
        "user group chroot",
        "ignored: the unit of systemd drops privileges (deploy/), bridged keeps only what it needs",
    ),
}
SERVER_REFUSED: Final[Mapping[str, str]] = {
    **_each(
        "client pull tls-client remote auth-user-pass static-challenge http-proxy http-proxy-option "
        "http-proxy-user-pass socks-proxy",
        _OF_CLIENT_TEXT,
    ),
    **_each(
        "disable ifconfig-push ifconfig-ipv6-push push-remove push-reset",
        "is for single clients: it belongs in a file of `client-config-dir`",
    ),
}
"""These three: what a directive means in a server's file, where that is another thing than in a client's."""


def treatment_by_prefix(name: str) -> tuple[str, str] | None:
    """('note' or 'refuse', text) for families of directives with a common prefix."""
    if name == "management" or name.startswith("management-"):
        return "note", _MANAGEMENT_NOTE
    if name.startswith("pkcs11-"):
        return "refuse", _TOKEN_TEXT
    return None


OF_CONNECTIONS: Final[frozenset[str]] = frozenset(
    _each(
        "bind connect-retry connect-retry-max connect-timeout explicit-exit-notify float fragment http-proxy "
        "http-proxy-option http-proxy-retry http-proxy-timeout key-direction link-mtu local lport "
        "max-packet-size mssfix mtu-disc mtu-dynamic nobind port proto remote rport server-poll-timeout "
        "socks-proxy socks-proxy-retry tls-auth tls-crypt tls-crypt-v2 tun-mtu tun-mtu-extra tun-mtu-max "
        "udp-mtu",
        "",
    )
)
"""Directives that may be used in a `<connection>` block."""
