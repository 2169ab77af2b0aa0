"""What OpenVPN can do and this version cannot yet: one table.

Who adds an ability removes its entry here, and gives its directives mappers in `bridged.profiles.mapping`.
Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

Ability = Literal[
    "proxy",
    "tls_crypt_v2",
    "static_key",
    "point_to_point",
    "vlans",
]


@dataclass(frozen=True, slots=True)
class Missing:
    """One ability that is missing. `reason`: why a directive is refused, and what to do. `directives`: those
    that are refused whatever their values are.
    """

    reason: str
    directives: tuple[str, ...] = ()


NOT_YET: Final[Mapping[Ability, Missing]] = {
    "proxy": Missing(
        "proxies are not supported by this version; remove the line, if the server can be reached without",
        ("http-proxy", "http-proxy-option", "http-proxy-user-pass", "socks-proxy"),
    ),
    "tls_crypt_v2": Missing(
        "tls-crypt-v2 is not supported by this version; use a tls-crypt or tls-auth key at both ends",
        ("tls-crypt-v2", "tls-crypt-v2-verify", "tls-crypt-v2-max-age"),
    ),
    "static_key": Missing(
        "static keys have no forward secrecy and are not supported by this version; use certificates "
        "(`bridged init` makes them)",
        ("secret",),
    ),
    "point_to_point": Missing(
        "point-to-point links without `client` are not supported by this version; make one end a server "
        "(`mode server`) and the other a client (`client`)",
        ("tls-server",),
    ),
    "vlans": Missing(
        "a VLAN for each client is not supported by this version; use one tunnel and bridge for each VLAN",
        ("vlan-tagging", "vlan-accept", "vlan-pvid"),
    ),
}
