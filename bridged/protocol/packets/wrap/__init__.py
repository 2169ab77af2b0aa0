"""Control-channel wrapping: none, tls-auth, tls-crypt and dynamic tls-crypt.

Source: docs/protocol/control.md#2-2 to #2-8.
Pure: keys and bytes in, bytes out; callers pass `now`.
"""

from bridged.protocol.packets.wrap.channel import WrapChannel
from bridged.protocol.packets.wrap.keys import OpenedControl, WrapKeys
from bridged.protocol.packets.wrap.none import NoWrap
from bridged.protocol.packets.wrap.tls_auth import TlsAuthKeys
from bridged.protocol.packets.wrap.tls_crypt import TlsCryptKeys, dynamic_tls_crypt

__all__ = [
    "NoWrap",
    "OpenedControl",
    "TlsAuthKeys",
    "TlsCryptKeys",
    "WrapChannel",
    "WrapKeys",
    "dynamic_tls_crypt",
]
