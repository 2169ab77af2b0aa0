"""Says why a value is refused, and how to write it.

Pydantic reports what it checked; people want to know what to write. Pure: no I/O.
Messages repeat a value only if it is short and not a secret.
"""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Any, Final

from bridged.configuration.document import KeyPath
from bridged.configuration.examples import example_line, pattern_of
from bridged.configuration.keys import all_keys, section_at

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

_SHOWN_CHARACTERS: Final = 40
_SECRET_KEYS: Final = frozenset(("key", "ca", "certificate", "crl", "username", "password", "totp_secret"))

_TYPES: Final = {
    "string_type": "text",
    "path_type": "a path",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing_size": "a smaller number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "tuple_type": "a list",
}
_BOUNDS: Final = {
    "greater_than_equal": ("at least", "ge"),
    "less_than_equal": ("at most", "le"),
    "greater_than": ("more than", "gt"),
    "less_than": ("less than", "lt"),
}
_MAPPINGS: Final = frozenset(("model_type", "dict_type", "model_attributes_type"))
_NAME_RULES: Final = frozenset(("string_pattern_mismatch", "string_too_short", "string_too_long"))
_WHAT: Final = {
    "tunnels.NAME.listen": "an IP address and a port",
    "tunnels.NAME.listen_tcp": "an IP address and a port",
    "tunnels.NAME.local": "an IP address and a port",
    "metrics.listen": "a host and a port",
    "tunnels.NAME.remotes": "a list of servers",
}
"""What a key expects, if its type does not say it."""
_CLIENT_TLS: Final = "tls: {ca: ca.crt, certificate: site.crt, key: site.key}"
_SWITCHES: Final = {"yes": "on", "true": "on", "no": "off", "false": "off"}

OPENVPN_KEYS: Final = {
    "proto": "write `transport: tcp` or `both` (server), or `remotes: [vpn.example.net:443/tcp]` (client; "
    "one IP family: `/udp4`, `/tcp6`)",
    "remote": "write `remotes: [vpn.example.net:1194]`",
    "port": 'write the port in `listen: "[::]:1194"` (server) or `remotes` (client)',
    "lport": 'write `local: "0.0.0.0:1194"`',
    "rport": "write the port in `remotes`",
    "dev": "write `tap: {name: tap0}`; it is always a TAP",
    "lladdr": "write `tap: {mac: 02:00:5e:10:00:01}`",
    "client": "write `role: client`",
    "server": "write `role: server`",
    "server_bridge": "write `role: server`, and the addresses in `bridges.NAME.addresses`",
    "ifconfig": "write the address in `bridges.NAME.addresses`",
    "ca": "write `tls: {ca: ca.crt}`",
    "cert": "write `tls: {certificate: site.crt}`",
    "key": "write `tls: {key: site.key}`",
    "crl_verify": "write `tls: {crl: crl.pem}`",
    "verify_x509_name": "write `tls: {peer_name: hub}` (or `peer_name_prefix`, `peer_subject`)",
    "remote_cert_tls": "write `tls: {peer_role: server}`, or remove it: it is the default",
    "tls_auth": "write `wrap: {mode: tls-auth, key: ta.key, direction: 1}`",
    "tls_crypt": "write `wrap: {mode: tls-crypt, key: tls-crypt.key}`",
    "cipher": "write `ciphers: [AES-256-GCM]`",
    "data_ciphers": "write `ciphers: [AES-256-GCM]`",
    "tun_mtu": "write `mtu: 1500`",
    "mssfix": "write `mss: 1300`, or the size of outer packets in `wan_mtu: 1400`",
    "reneg_sec": "write `renegotiate: {seconds: 3600}`",
    "ping": "write `keepalive: {ping_seconds: 10}`",
    "ping_restart": "write `keepalive: {restart_seconds: 60}`",
    "max_clients": "write `peers_max: 100`",
    "duplicate_cn": "write `duplicate_names: true`",
    "client_to_client": "write `forward_between_peers: true`",
    "verb": "write `log: {level: info}` at the top of the file",
}
"""OpenVPN's name, with underscores, of a tunnel's setting -> what to write instead."""


def reason_of(detail: ErrorDetails, path: KeyPath) -> str:
    """One sentence about one refusal: what is wrong and, if that helps, the line to write."""
    kind, value = detail["type"], detail["input"]
    if kind == "missing":
        is_client = isinstance(value, dict) and value.get("role") == "client"
        if is_client and pattern_of(path) == "tunnels.NAME.tls":
            return f"is missing; for example `{_CLIENT_TLS}`"
        return "is missing" + _for_example(path)
    if kind == "extra_forbidden":
        return f"unknown key{_suggestion(path)}"
    if kind == "no_bridge":
        return detail["msg"]
    if kind == "value_error":
        return str(detail.get("ctx", {}).get("error", detail["msg"])) + _for_endpoint(path)
    if kind == "bool_for_number":
        return f"must be a number{shown(value, path)}{_for_example(path)}"
    if kind in _NAME_RULES:
        return _name_rule(path) + shown(value, path)
    if kind in _MAPPINGS:
        return f"must be a section with keys of its own{shown(value, path)}{_for_example(path)}"
    if kind == "literal_error":
        return _literal(detail, path)
    if kind in _BOUNDS:
        words, name = _BOUNDS[kind]
        return f"must be {words} {detail.get('ctx', {}).get(name)}{shown(value, path)}"
    if kind == "too_short":
        return f"must not be empty{_for_example(path)}"
    what = _WHAT.get(pattern_of(path)) if kind in ("string_type", "tuple_type") and _is_key(path) else None
    what = what or _TYPES.get(kind, "something else")
    return f"must be {what}{shown(value, path)}{_how(kind, value, path)}"


def shown(value: Any, path: KeyPath) -> str:
    """`, not VALUE`, or nothing for secrets and long values."""
    names = [element for element in path if isinstance(element, str)]
    if not names or names[-1] in _SECRET_KEYS or not isinstance(value, (str, int, float, bool)):
        return ""
    text = (
        str(value).lower()
        if isinstance(value, bool)
        else repr(value)
        if isinstance(value, str)
        else str(value)
    )
    return f", not {text}" if len(text) <= _SHOWN_CHARACTERS else ""


def _is_key(path: KeyPath) -> bool:
    return bool(path) and isinstance(path[-1], str)


def _how(kind: str, value: Any, path: KeyPath) -> str:
    """The line to write, made of the given value if possible."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind == "tuple_type" and isinstance(value, str) and shown(value, path):
        bare = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_./:@-]*", value)
        return f"; write `{path[-1]}: [{value}]`" if bare else f'; write `{path[-1]}: ["{value}"]`'
    if pattern_of(path) == "tunnels.NAME.listen" and is_number and value in range(1, 65536):
        return f'; write `listen: "[::]:{value}"`'
    if kind == "string_type" and is_number and pattern_of(path) not in _WHAT:
        return f"; put it in quotes{_for_example(path)}"
    return _for_example(path)


def _for_example(path: KeyPath) -> str:
    line = example_line(path)
    return f"; for example `{line}`" if line else ""


def _for_endpoint(path: KeyPath) -> str:
    return _for_example(path) if pattern_of(path) in _WHAT else ""


def _literal(detail: ErrorDetails, path: KeyPath) -> str:
    value = detail["input"]
    expected = str(detail.get("ctx", {}).get("expected", ""))
    text = f"must be {expected}{shown(value, path)}"
    words = re.findall(r"'([^']*)'", expected)
    given = str(value).lower() if isinstance(value, (str, bool)) else ""
    if _SWITCHES.get(given) in words:
        return f"{text}; write `{_SWITCHES[given]}`"
    close = difflib.get_close_matches(given[:_SHOWN_CHARACTERS], words, n=1)
    return f"{text}; did you mean {close[0]!r}?" if close else text


def _name_rule(path: KeyPath) -> str:
    if len(path) == 2 and path[0] == "tunnels":
        return (
            "a tunnel's name consists of letters, digits, `-`, `_` and `.`, and begins with a letter or digit"
        )
    return "an interface name has 1 to 15 ASCII characters, without space, `/` and `:`"


def _suggestion(path: KeyPath) -> str:
    """A hint for an unknown key: the name for OpenVPN's word, a key spelt alike, or the right section."""
    wrong = str(path[-1])[:60] if path else ""
    section = section_at(path[:-1])
    siblings = list(section.model_fields) if section else []
    spelt = wrong.replace("-", "_")
    if path[:1] == ("tunnels",) and len(path) == 3 and spelt in OPENVPN_KEYS:
        return f"; {OPENVPN_KEYS[spelt]}"
    parts = sorted(spelt.split("_"))
    close = [name for name in siblings if sorted(name.split("_")) == parts]
    close = close or difflib.get_close_matches(spelt, siblings, n=1, cutoff=0.6)
    close = close or [name for name in siblings if len(spelt) > 2 and name.startswith(spelt)][:1]
    if close:
        return f"; did you mean `{close[0]}`?"
    elsewhere = [key.path for key in all_keys() if key.path.rpartition(".")[2] == wrong]
    if elsewhere:
        return f"; it belongs at {' or '.join(f'`{key}`' for key in elsewhere[:3])}"
    return f"; known here: {', '.join(siblings)}" if siblings else ""
