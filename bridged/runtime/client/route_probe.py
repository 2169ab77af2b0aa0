"""Whether this host has a route to an endpoint, and an address to send from.

Source: connect(2) on a datagram socket, which looks up the route and sends nothing.
"""

from __future__ import annotations

import socket

from bridged.addresses import Endpoint


def has_route(endpoint: Endpoint, local: Endpoint | None = None) -> bool:
    """False where the kernel has no route now. `local`: the address that the tunnel sends from."""
    family = socket.AF_INET6 if endpoint.is_ipv6 else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:
            if local is not None and local.is_ipv6 == endpoint.is_ipv6:
                probe.bind((local.host, 0))
            probe.connect((endpoint.host, endpoint.port))
    except OSError:
        return False
    return True
