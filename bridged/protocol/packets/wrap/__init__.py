"""Control-channel wrapping: none, tls-auth, tls-crypt, tls-crypt-v2 and dynamic tls-crypt.

Source: docs/protocol/control.md#2-2 to #2-8.
Pure: keys and bytes in, bytes out; callers pass `now`.
"""

from bridged.protocol.packets.wrap.channel import WrapChannel, first_numbers
from bridged.protocol.packets.wrap.keys import OpenedControl, WrapKeys
from bridged.protocol.packets.wrap.none import NoWrap
from bridged.protocol.packets.wrap.tls_auth import TlsAuthKeys
from bridged.protocol.packets.wrap.tls_crypt import TlsCryptKeys, dynamic_tls_crypt
from bridged.protocol.packets.wrap.tls_crypt_v2 import TlsCryptV2Keys, TlsCryptV2Server

__all__ = [
    "NoWrap",
    "OpenedControl",
    "TlsAuthKeys",
    "TlsCryptKeys",
    "TlsCryptV2Keys",
    "TlsCryptV2Server",
    "WrapChannel",
    "WrapKeys",
    "dynamic_tls_crypt",
    "first_numbers",
]
