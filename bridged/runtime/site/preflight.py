"""Checks, before anything is changed, that each tunnel can get what it needs.

`BridgeAttachment.check` does the same for bridges.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Collection, Mapping
from typing import Final

from bridged.addresses import Endpoint
from bridged.configuration.tunnel import Tunnel, tap_name
from bridged.dataplane import choose_dataplane
from bridged.errors import ConfigurationError
from bridged.runtime.tunnels.tunnel_credentials import bound_endpoints
from bridged_tap import AdapterLockedError, find_holder

_FREEBIND: Final = ((socket.IPPROTO_IP, 15), (socket.IPPROTO_IPV6, 78))
_WILDCARDS: Final = ("0.0.0.0", "::")


def check_tunnels(
    wanted: Mapping[str, Tunnel], ours: Collection[Endpoint], our_taps: Collection[str]
) -> None:
    """Refuse tunnels that could not start. `ours`, `our_taps`: what this process has and may reuse.

    Raises:
        ConfigurationError: an address of it is taken.
        AdapterLockedError: another process has its adapter.
        DataplaneError: its data plane is not built.
    """
    for name, tunnel in wanted.items():
        choose_dataplane(tunnel.dataplane)
        used = {(other.port, other.transport) for other in ours}
        for endpoint in bound_endpoints(tunnel):
            if (endpoint.port, endpoint.transport) not in used:
                check_address(name, tunnel, endpoint)
        adapter = tap_name(name, tunnel)
        if tunnel.tap.lock and adapter not in our_taps:
            holder = find_holder(adapter)
            if holder is not None:
                raise AdapterLockedError(adapter, holder.pid, holder.command)


def check_address(name: str, tunnel: Tunnel, endpoint: Endpoint) -> None:
    """Bind an address as the tunnel will, and release it again.

    Raises:
        ConfigurationError: another program has it.
    """
    is_tcp = endpoint.transport == "tcp"
    kind = socket.SOCK_STREAM if is_tcp else socket.SOCK_DGRAM
    family = socket.AF_INET6 if endpoint.is_ipv6 else socket.AF_INET
    any_address = endpoint.host in _WILDCARDS
    try:
        with socket.socket(family, kind | socket.SOCK_CLOEXEC) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, is_tcp)
            if endpoint.is_ipv6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not any_address)
            for level, option in _FREEBIND[: 1 + endpoint.is_ipv6]:
                probe.setsockopt(level, option, 1)
            host, _, zone = endpoint.host.partition("%")
            scope = (0, socket.if_nametoindex(zone)) if zone else ()
            probe.bind((host, endpoint.port, *scope))
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            return  # the start reports other errors
        key = (
            "local" if tunnel.role == "client" else "listen_tcp" if is_tcp and tunnel.listen_tcp else "listen"
        )
        raise ConfigurationError(
            f"another program has the {endpoint.transport.upper()} address {endpoint.address}; "
            f"`ss -l{endpoint.transport[0]}np sport = :{endpoint.port}` shows which",
            key=f"tunnels.{name}.{key}",
            code="address_taken",
        ) from None
