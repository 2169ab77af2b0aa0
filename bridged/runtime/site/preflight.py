"""Checks, before anything is changed, that each tunnel can get what it needs.

`BridgeAttachment.check` does the same for bridges.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Collection, Mapping
from typing import Final

from bridged.addresses import Endpoint
from bridged.configuration.schema import Tunnel, tap_name
from bridged.dataplane import choose_dataplane
from bridged.errors import ConfigurationError
from bridged.runtime.tunnels.tunnel_credentials import bind_endpoint
from bridged_tap import AdapterLockedError, find_holder

_FREEBIND: Final = ((socket.IPPROTO_IP, 15), (socket.IPPROTO_IPV6, 78))
_WILDCARDS: Final = ("0.0.0.0", "::")


def check_tunnels(
    wanted: Mapping[str, Tunnel], ours: Collection[Endpoint], our_taps: Collection[str]
) -> None:
    """Refuse tunnels that could not start. `ours`, `our_taps`: what this process has and may reuse.

    Raises:
        ConfigurationError: its UDP address is taken.
        AdapterLockedError: another process has its adapter.
        DataplaneError: its data plane is not built.
    """
    for name, tunnel in wanted.items():
        choose_dataplane(tunnel.dataplane)
        endpoint = bind_endpoint(tunnel)
        if endpoint is not None and not any(endpoint.port == other.port for other in ours):
            check_address(name, tunnel)
        adapter = tap_name(name, tunnel)
        if tunnel.tap.lock and adapter not in our_taps:
            holder = find_holder(adapter)
            if holder is not None:
                raise AdapterLockedError(adapter, holder.pid, holder.command)


def check_address(name: str, tunnel: Tunnel) -> None:
    """Bind the address as the data plane will, and release it again.

    Raises:
        ConfigurationError: another program has it.
    """
    endpoint = bind_endpoint(tunnel)
    if endpoint is None:
        return
    family = socket.AF_INET6 if endpoint.is_ipv6 else socket.AF_INET
    any_address = endpoint.host in _WILDCARDS
    try:
        with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:
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
        key = "listen" if tunnel.role == "server" else "local"
        raise ConfigurationError(
            f"another program has the UDP address {endpoint}; "
            f"`ss -lunp sport = :{endpoint.port}` shows which",
            key=f"tunnels.{name}.{key}",
            code="address_taken",
        ) from None
