"""tls-crypt-v2 between one end of ours and real OpenVPN: the keys, and what both ends are given of them."""

from __future__ import annotations

import secrets
import time
from typing import Any

from bridged.protocol.keys.client_wrap_key import ClientWrapKey, ServerWrapKey
from tests.interop.interop_ends import Role

SERVER = ServerWrapKey.generate(secrets.token_bytes)
CLIENT = SERVER.make_client_key(secrets.token_bytes, int(time.time()))


def block(key: ServerWrapKey | ClientWrapKey) -> tuple[str, ...]:
    """The key in OpenVPN's file."""
    return ("<tls-crypt-v2>", key.serialize().strip(), "</tls-crypt-v2>")


def ends_of(ours_as: Role, **wrap: object) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Our tunnel's wrap, and the lines of OpenVPN at the other end."""
    ours, theirs = (SERVER, CLIENT) if ours_as == "server" else (CLIENT, SERVER)
    return {"wrap": {"mode": "tls-crypt-v2", "key": ours.serialize(), **wrap}}, block(theirs)
