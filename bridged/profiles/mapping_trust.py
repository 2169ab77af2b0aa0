"""Directives about certificates, keys, ciphers and TLS that have a counterpart here.

Source: docs/protocol/data.md#7 (rows "Map").
Pure.
"""

from __future__ import annotations

import re
from typing import Final

from bridged.profiles.draft import Draft, Mapper, argument, refuse
from bridged.profiles.statements import Statement

CIPHERS: Final = ("AES-256-GCM", "AES-128-GCM", "CHACHA20-POLY1305")
OLD_CIPHERS: Final = ("AES-192-GCM", "AES-256-CBC", "AES-192-CBC", "AES-128-CBC")
"""Used only where they are named."""
DIGESTS: Final = ("SHA1", "SHA256", "SHA384", "SHA512")
_EKU_SERVER: Final = frozenset({"TLS Web Server Authentication", "serverAuth", "1.3.6.1.5.5.7.3.1"})
_EKU_CLIENT: Final = frozenset({"TLS Web Client Authentication", "clientAuth", "1.3.6.1.5.5.7.3.2"})
# Without `TLS`, `WITH` and hyphens, which OpenSSL's and IANA's names place differently.
_PLAIN_SUITE: Final = re.compile(
    r"(ECDHE?|E?DHE|RSA|SRP|PSK|AES|CAMELLIA|SEED|DES|ARIA)[A-Z0-9]*(SHA\d*|MD5|1305|CCM8?)"
)
_OUR_SUITES: Final = re.compile(r"ECDHE(ECDSA|RSA)(AES(128|256)GCM|CHACHA20)|DHERSAAES(128|256)GCM")
_OUR_SUITES_1_3: Final = frozenset(
    {"TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256", "TLS_AES_128_GCM_SHA256"}
)


# Trust


def _ca(draft: Draft, statement: Statement) -> None:
    draft.profile.ca = draft.material(statement, draft.profile.ca)


def _cert(draft: Draft, statement: Statement) -> None:
    draft.profile.certificate = draft.material(statement, draft.profile.certificate)


def _extra_certs(draft: Draft, statement: Statement) -> None:
    draft.profile.extra_certificates = draft.material(statement, draft.profile.extra_certificates)


def _key(draft: Draft, statement: Statement) -> None:
    draft.profile.key = draft.material(statement, draft.profile.key)


def _pkcs12(draft: Draft, statement: Statement) -> None:
    draft.profile.pkcs12 = draft.material(statement, draft.profile.pkcs12)


def _askpass(draft: Draft, statement: Statement) -> None:
    if statement.arguments or statement.inline is not None:
        draft.profile.password = draft.material(statement, draft.profile.password)


def _crl_verify(draft: Draft, statement: Statement) -> None:
    if len(statement.arguments) > 1:
        refuse("a folder of serial numbers is not supported; name a file with the list in PEM form")
    draft.profile.crl = draft.material(statement, draft.profile.crl)


def _peer_fingerprint(draft: Draft, statement: Statement) -> None:
    if statement.inline is None:
        texts = [argument(statement, "a SHA-256 fingerprint")]
    else:
        texts = [line.strip() for line in statement.inline.splitlines()]
        texts = [text for text in texts if text and text[0] not in "#;"]
    for text in texts:
        digits = text.replace(":", "").lower()
        if not re.fullmatch(r"[0-9a-f]{64}", digits):
            refuse(f"{text!r} is not a SHA-256 fingerprint (64 hex digits)")
        draft.profile.peer_fingerprints.append(digits)


def _verify_x509_name(draft: Draft, statement: Statement) -> None:
    name = argument(statement, "a name")
    kind = statement.arguments[1] if len(statement.arguments) > 1 else "subject"
    if kind == "name":
        _set_name(draft, name=name)
    elif kind == "name-prefix":
        _set_name(draft, prefix=name)
    elif kind == "subject":
        if " = " in name:
            draft.note(statement, f"no subject has blanks around `=`; write {name.replace(' = ', '=')!r}")
        _set_name(draft, subject=name)
    else:
        refuse(f"{kind!r} is none of subject, name, name-prefix; put a name with blanks in quotes")


def _tls_remote(draft: Draft, statement: Statement) -> None:
    """As in OpenVPN 2.3: a whole subject (with commas or slashes), or the beginning of a common name."""
    name = argument(statement, "a name")
    if name.startswith("/"):
        if "_" in name:
            refuse(
                "in this old form `_` stands for any character; write the subject in full: "
                "`verify-x509-name 'C=NL, O=Example, CN=vpn' subject`, as `openssl x509 -in server.crt "
                "-noout -subject -nameopt sep_comma_plus_space,sname,utf8` prints it"
            )
        _set_name(draft, subject=", ".join(re.split(r"/(?=[A-Za-z0-9.]+=)", name[1:])))
    elif "=" in name and ", " in name:
        _set_name(draft, subject=name)
    else:
        _set_name(draft, prefix=name)


def _set_name(
    draft: Draft, name: str | None = None, prefix: str | None = None, subject: str | None = None
) -> None:
    profile = draft.profile
    profile.peer_name, profile.peer_name_prefix, profile.peer_subject = name, prefix, subject


def _ns_cert_type(draft: Draft, statement: Statement) -> None:
    """Today's OpenVPN refuses only certificates that are made for another role; so does `compatible`."""
    role = argument(statement, "client or server")
    if role not in ("client", "server"):
        refuse(f"{role!r} is neither client nor server")
    if role == draft.role:
        refuse(f"this end is the {role}; the other end's certificate is checked")
    draft.note(
        statement, "old and weak: replace it with `remote-cert-tls`, once the certificates have usages"
    )


def _remote_cert_tls(draft: Draft, statement: Statement) -> None:
    role = argument(statement, "client or server")
    if role == "server":
        draft.profile.peer_role = "server"
    elif role == "client":
        draft.profile.peer_role = "client"
    else:
        refuse(f"{role!r} is neither client nor server")


def _remote_cert_eku(draft: Draft, statement: Statement) -> None:
    usage = argument(statement, "an extended key usage")
    if usage in _EKU_SERVER:
        draft.profile.peer_role = "server"
    elif usage in _EKU_CLIENT:
        draft.profile.peer_role = "client"
    else:
        refuse(f"{usage!r} is not known here; use `remote-cert-tls server`")


def _x509_username_field(draft: Draft, statement: Statement) -> None:
    if argument(statement, "a field").upper() != "CN":
        refuse("peers are identified by their common name; only CN is supported")


# Cryptography


_NEGOTIATED: Final = f"{CIPHERS[0]} and others are negotiated, as every OpenVPN from 2.4 on can"


def _cipher(draft: Draft, statement: Statement) -> None:
    name = argument(statement, "a cipher").upper()
    if name == "NONE":
        refuse("would carry frames in the clear; remove the line")
    draft.static_cipher = name
    if draft.has_static_key:
        return
    if name in OLD_CIPHERS:
        draft.profile.fallback_cipher = name
        text = f"{name} is used only with peers that negotiate no cipher (OpenVPN 2.3): {_NEGOTIATED}"
        draft.note(statement, text)
    elif name in CIPHERS:
        draft.profile.fallback_cipher = None
    else:
        draft.note(statement, f"{name} is not used: {_NEGOTIATED}")


def _data_ciphers(draft: Draft, statement: Statement) -> None:
    known: list[str] = []
    asked = argument(statement, "a list of ciphers").upper().split(":")
    for name in [one for part in asked for one in (CIPHERS if part == "DEFAULT" else (part,))]:
        bare = name.removeprefix("?")
        if bare not in (*CIPHERS, *OLD_CIPHERS):
            draft.note(statement, f"{bare} is not supported and left out")
        elif bare not in known:
            known.append(bare)
    if old := [name for name in known if name.endswith("-CBC")]:
        text = f"{', '.join(old)}: slow and old; remove it once both ends have OpenVPN 2.4 or later"
        draft.note(statement, text)
    if not known:
        refuse(f"none of these ciphers is supported; the server must have one of {', '.join(CIPHERS)}")
    draft.profile.ciphers = known


def _data_ciphers_fallback(draft: Draft, statement: Statement) -> None:
    name = argument(statement, "a cipher").upper()
    if name == "NONE":
        refuse("would carry frames in the clear; remove the line")
    if name in (*CIPHERS, *OLD_CIPHERS):
        draft.fallback_cipher = name
    else:
        draft.note(statement, f"{name} is not used: {_NEGOTIATED}")


def _auth(draft: Draft, statement: Statement) -> None:
    draft.digest = (statement.line, argument(statement, "a digest").upper().replace("SHA-", "SHA"))


def _tls_version_min(draft: Draft, statement: Statement) -> None:
    version = argument(statement, "a TLS version")
    if version in ("1.0", "1.1"):
        draft.note(statement, "TLS below 1.2 is never used")
    elif version == "1.2":
        draft.profile.version_min = "1.2"
    elif version == "1.3":
        draft.profile.version_min = "1.3"
    else:
        refuse(f"{version!r} is not a TLS version")


def _tls_version_max(draft: Draft, statement: Statement) -> None:
    version = argument(statement, "a TLS version")
    if version == "1.2":
        draft.profile.version_max = "1.2"
    elif version == "1.3":
        draft.profile.version_max = "1.3"
    else:
        refuse("TLS below 1.2 is not safe and not supported; remove the line")


def _tls_cipher(draft: Draft, statement: Statement) -> None:
    suites = argument(statement, "a list of TLS suites").split(":")
    plain = [re.sub(r"[-_]|^TLS|WITH", "", suite.upper()) for suite in suites]
    # Words such as HIGH or !aNULL choose among all suites; ours are in most of these choices.
    is_choice = any(not _PLAIN_SUITE.fullmatch(suite) for suite in plain)
    draft.tls_suites = (statement.line, is_choice or any(_OUR_SUITES.match(suite) for suite in plain))
    draft.note(statement, "ignored: TLS uses its own list of strong suites and groups")


def _tls_ciphersuites(draft: Draft, statement: Statement) -> None:
    suites = argument(statement, "a list of TLS suites").upper().split(":")
    draft.tls13_suites = (statement.line, any(suite in _OUR_SUITES_1_3 for suite in suites))
    draft.note(statement, "ignored: TLS uses its own list of strong suites and groups")


def _key_derivation(draft: Draft, statement: Statement) -> None:
    if argument(statement, "tls-ekm") != "tls-ekm":
        refuse("only tls-ekm is known")


def _key_method(draft: Draft, statement: Statement) -> None:
    if argument(statement, "2") != "2":
        refuse("key method 1 is obsolete and not supported; remove the line at both ends")


TRUST_MAPPERS: Final[dict[str, Mapper]] = {
    "ca": _ca,
    "cert": _cert,
    "extra-certs": _extra_certs,
    "key": _key,
    "pkcs12": _pkcs12,
    "crl-verify": _crl_verify,
    "askpass": _askpass,
    "peer-fingerprint": _peer_fingerprint,
    "verify-x509-name": _verify_x509_name,
    "tls-remote": _tls_remote,
    "remote-cert-tls": _remote_cert_tls,
    "ns-cert-type": _ns_cert_type,
    "remote-cert-eku": _remote_cert_eku,
    "x509-username-field": _x509_username_field,
    "cipher": _cipher,
    "data-ciphers": _data_ciphers,
    "ncp-ciphers": _data_ciphers,
    "data-ciphers-fallback": _data_ciphers_fallback,
    "auth": _auth,
    "tls-cipher": _tls_cipher,
    "tls-ciphersuites": _tls_ciphersuites,
    "tls-version-min": _tls_version_min,
    "tls-version-max": _tls_version_max,
    "key-derivation": _key_derivation,
    "key-method": _key_method,
}
