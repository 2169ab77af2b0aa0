"""Writes a client's profile for OpenVPN 2.4 to 2.7 and for `bridged join`.

Source: docs/protocol/data.md#7; docs/protocol/control.md#7 (ciphers).
Pure: values in, text out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from bridged.addresses import Endpoint
from bridged.profiles.headings import what_is_left_to_do

# 2.4 knows every directive here; newer ones follow `ignore-unknown-option`. No `auth`: AEAD ciphers and
# tls-crypt do not use it. No `ncp-ciphers`: the default of 2.4 is right, and 2.7 warns about it. No keepalive
# and tun-mtu: the server pushes them. A 2.4 client announces `cipher`.
_BODY: Final = """\
client
dev tap
proto udp
remote {host} {port}
resolv-retry infinite
nobind
float
persist-key
persist-tun
remote-cert-tls server
verify-x509-name {server_name} name
tls-version-min 1.2
cipher AES-256-GCM
ignore-unknown-option data-ciphers
data-ciphers AES-256-GCM:AES-128-GCM:CHACHA20-POLY1305
explicit-exit-notify 1
verb 3
"""


@dataclass(frozen=True, slots=True)
class ClientProfile:
    """The contents of an invitation. `server_name`: common name of the server's certificate.

    One of the two keys of the wrap is there, the other empty. `asks_password`: the user is asked for name and
    password.
    """

    name: str
    remote: Endpoint
    server_name: str
    ca_pem: str
    certificate_pem: str
    key_pem: str = field(repr=False)
    tls_crypt_key: str = field(repr=False)
    tls_crypt_v2_key: str = field(default="", repr=False)
    asks_password: bool = False


def serialize_profile(profile: ClientProfile) -> str:
    """The text of the `.ovpn` file. It is secret."""
    heading = what_is_left_to_do(profile.name, str(profile.remote))
    body = _BODY.format(host=profile.remote.host, port=profile.remote.port, server_name=profile.server_name)
    if profile.asks_password:
        body += "auth-user-pass\n"
    blocks = (
        ("ca", profile.ca_pem),
        ("cert", profile.certificate_pem),
        ("key", profile.key_pem),
        ("tls-crypt", profile.tls_crypt_key),
        ("tls-crypt-v2", profile.tls_crypt_v2_key),
    )
    return heading + body + "".join(f"<{tag}>\n{text.strip()}\n</{tag}>\n" for tag, text in blocks if text)
