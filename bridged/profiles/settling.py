"""Decides what depends on several lines of a file, once all are read.

Pure.
"""

from __future__ import annotations

from typing import Final

from bridged.errors import ConfigurationError
from bridged.profiles.connections import settle_connections, settle_listening
from bridged.profiles.draft import Draft, Refusal
from bridged.profiles.mapping_trust import DIGESTS, OLD_CIPHERS
from bridged.profiles.profile import Material, Notice, Profile

# The defaults of `keepalive` in the configuration, which this package must not import.
_PING_SECONDS: Final = 10
_RESTART_SECONDS: Final = 60


def settle(draft: Draft, source: str) -> list[ConfigurationError]:
    """Complete the profile. Returns what is missing or contradictory."""
    errors = [
        _error(f"`[inline]` needs a block `<{name}>`; the file has none", source, line, name)
        for name, line in draft.markers.items()
        if name not in draft.inlined
    ]
    errors.extend(_settle_device(draft, source))
    if draft.role == "server":
        errors.extend(settle_listening(draft, source))
        draft.profile.server = draft.server
        if not draft.server.forwards_between_peers and not draft.profile.point_to_point:
            text = "not there: `forward_between_peers: false` keeps the clients apart, as OpenVPN does"
            draft.profile.notices.append(Notice(0, text, "client-to-client"))
    else:
        errors.extend(settle_connections(draft, source))
        errors.extend(_settle_client(draft, source))
    errors.extend(_settle_suites(draft, source))
    try:
        _settle_digest(draft)
    except Refusal as refusal:
        errors.append(_error(str(refusal), source, draft.digest[0] if draft.digest else None, "auth"))
    if draft.profile.wrap == "static-key":
        _settle_static_key(draft)
    else:
        errors.extend(_settle_identity(draft, source))
        _settle_peer_role(draft)
    _settle_keepalive(draft.profile)
    return errors


def _settle_static_key(draft: Draft) -> None:
    profile = draft.profile
    profile.point_to_point = True
    cipher = draft.static_cipher or "BF-CBC"
    if cipher not in OLD_CIPHERS or not cipher.endswith("-CBC"):
        text = f"{cipher} is never used; AES-256-CBC is: write `cipher AES-256-CBC` at the other end, too"
        profile.notices.append(Notice(0, text, "cipher"))
        cipher = "AES-256-CBC"
    profile.ciphers, profile.fallback_cipher = [cipher], None


def _settle_client(draft: Draft, source: str) -> list[ConfigurationError]:
    if draft.general.wrap == "static-key":
        return []
    if draft.is_client and draft.pulls:
        return []
    if not draft.is_client and not draft.pulls and (draft.profile.certificate or draft.profile.pkcs12):
        # A part of a profile: it has a certificate, and no role.
        draft.profile.notices.append(
            Notice(0, "`client` is missing; the file is taken as a client's profile")
        )
        return []
    if draft.is_client:
        draft.profile.point_to_point = True
        return []
    reason = (
        "`client` is missing, and so are certificates: frames would cross in the clear; make certificates "
        "(`bridged init`) for both ends"
    )
    return [_error(reason, source, None, "client")]


def _settle_suites(draft: Draft, source: str) -> list[ConfigurationError]:
    """Refuse what could never finish a handshake."""
    old, new = draft.tls_suites or (0, True), draft.tls13_suites or (0, True)
    profile = draft.profile
    if profile.version_min == "1.3" and profile.version_max == "1.2":
        reason = "is above `tls-version-max 1.2`: no version is left; remove one of both lines"
        return [_error(reason, source, None, "tls-version-min")]
    if (profile.version_min != "1.3" and old[1]) or (profile.version_max != "1.2" and new[1]):
        return []
    reason = "allows only suites that bridged does not have, and {}; remove one of both lines, or allow {}"
    if profile.version_min == "1.3":
        text = reason.format("`tls-version-min 1.3` rules out TLS 1.2", "`TLS_AES_256_GCM_SHA384`")
        return [_error(text, source, new[0], "tls-ciphersuites")]
    ours = "`TLS-ECDHE-ECDSA-WITH-AES-256-GCM-SHA384:TLS-ECDHE-RSA-WITH-AES-256-GCM-SHA384` at both ends"
    only = (
        "`tls-version-max 1.2` rules out TLS 1.3"
        if profile.version_max == "1.2"
        else "so does `tls-ciphersuites`"
    )
    return [_error(reason.format(only, ours), source, old[0], "tls-cipher")]


def _settle_digest(draft: Draft) -> None:
    profile = draft.profile
    profile.fallback_cipher = draft.fallback_cipher or profile.fallback_cipher
    if draft.digest is None:
        return
    line, name = draft.digest
    old = [
        cipher for cipher in (*profile.ciphers, profile.fallback_cipher) if (cipher or "").endswith("-CBC")
    ]
    if name in DIGESTS:
        if profile.has_tls_auth or profile.wrap == "static-key":
            profile.wrap_digest = name
        elif old:
            profile.digest = name
    elif profile.has_tls_auth or profile.wrap == "static-key":
        which = "tls-auth" if profile.has_tls_auth else profile.wrap
        raise Refusal(f"{name} cannot be used with {which}; both ends must use one of {', '.join(DIGESTS)}")
    elif old:
        profile.fallback_cipher = None
        profile.ciphers = [cipher for cipher in profile.ciphers if cipher not in old]
        text = (
            f"{name} is not supported, so {', '.join(map(str, old))} cannot be used; AEAD ciphers need none"
        )
        profile.notices.append(Notice(line, text, "auth"))


def _settle_device(draft: Draft, source: str) -> list[ConfigurationError]:
    kind = draft.device_type or draft.device_kind
    if kind != "tap":
        reason = "layer 3 (tun); a bridge needs `dev tap` at both ends"
        if draft.device_line is None:
            reason = "missing; a bridge needs `dev tap`"
        elif kind is None and draft.device_name != "null":
            reason = "neither tap nor tun by its name; add `dev-type tap`"
        return [_error(reason, source, draft.device_line, "dev")]
    draft.profile.tap_name = draft.device_name
    return []


def _settle_identity(draft: Draft, source: str) -> list[ConfigurationError]:
    profile = draft.profile
    # Markers without a block were reported already. A PKCS#12 file may hold all three.
    absent: dict[str, Material | None] = {
        "cert": profile.certificate or profile.pkcs12,
        "key": profile.key or profile.pkcs12,
        "ca": profile.ca or profile.pkcs12,
    }
    if profile.login is not None and absent["cert"] is None and absent["key"] is None:
        # Such a server asks for a password alone. A marker without its block is reported.
        absent = {"ca": absent["ca"]}
    if draft.role == "server" and draft.server.client_certificate == "none":
        absent["ca"] = absent["ca"] or absent["cert"]
    other = "client" if draft.role == "server" else "server"
    texts = {
        "cert": f"missing: the {draft.role}'s certificate",
        "key": f"missing: the {draft.role}'s private key",
        "ca": f"missing: the certificate of the {other}'s CA (or `peer-fingerprint`)",
    }
    missing = [
        (name, texts[name])
        for name, found in absent.items()
        if found is None and name not in draft.markers and not (name == "ca" and profile.peer_fingerprints)
    ]
    if absent.get("ca") is None and profile.crl is not None:
        missing.append(("crl-verify", "needs the `ca` that signed the list"))
    return [_error(reason, source, None, name) for name, reason in missing]


def _settle_peer_role(draft: Draft) -> None:
    """Without `remote-cert-tls`, OpenVPN takes certificates without usage; so must we."""
    profile = draft.profile
    if profile.peer_role is not None or profile.peer_fingerprints:
        return
    profile.peer_role = "compatible"
    if draft.role == "server":
        return
    text = "not there: as OpenVPN does, bridged also takes a server certificate without extended key usage"
    if not (profile.peer_name or profile.peer_name_prefix or profile.peer_subject):
        text += (
            "; if the CA writes none into its certificates, each client can pose as the server. Renew the "
            "server's with `extendedKeyUsage = serverAuth` and add the line, or add `verify-x509-name`"
        )
    profile.notices.append(Notice(0, text, "remote-cert-tls"))


def _settle_keepalive(profile: Profile) -> None:
    """Give silence time for two pings, also if the file has only one of both times."""
    if profile.ping_seconds is None and profile.restart_seconds is None:
        return
    ping = _PING_SECONDS if profile.ping_seconds is None else profile.ping_seconds
    restart = _RESTART_SECONDS if profile.restart_seconds is None else profile.restart_seconds
    if ping and restart and restart < 2 * ping:
        profile.restart_seconds = 2 * ping
        profile.notices.append(
            Notice(0, f"{2 * ping} is used in place of {restart} (at least two pings)", "ping-restart")
        )


def _error(reason: str, source: str, line: int | None, key: str) -> ConfigurationError:
    return ConfigurationError(reason, file=source, line=line, key=key[:64], code="profile")
