"""Warns where a configuration does not fit this host; for `check`, start and reload.

Changes nothing, and skips what it cannot find out.
"""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches

from bridged.addresses import Endpoint
from bridged.configuration.check import Conflict, own_servers
from bridged.configuration.problems import dotted
from bridged.configuration.schema import Bridge, Configuration
from bridged.configuration.tunnel import tap_name
from bridged.errors import ConfigurationError, NetlinkError
from bridged.link_planning.links import HostLinks
from bridged.netlink.host import Host


def host_warnings(configuration: Configuration) -> list[Conflict]:
    """(path of the key, text) for ports that are missing, cannot join, or have another MTU."""
    found: list[Conflict] = []
    try:
        with Host() as host:
            names = {name for bridge in configuration.bridges.values() for name in bridge.ports}
            observed = host.observe(names | set(configuration.bridges))
            for name, bridge in configuration.bridges.items():
                found += _port_warnings(host, observed, name, bridge)
                found += _mtu_warnings(observed, configuration, name, bridge)
    except (NetlinkError, OSError):
        return found
    return found


def refuse_own_servers(configuration: Configuration) -> None:
    """Refuse a client that would call this very host, where a tunnel of the same bridge listens.

    Raises:
        ConfigurationError: `tunnel_loop`.
    """

    def is_ours(endpoint: Endpoint) -> bool:
        if not endpoint.is_numeric:
            return False
        try:
            with Host() as host:
                return bool(host.holders_of(endpoint.host.partition("%")[0]))
        except (NetlinkError, OSError):
            return False

    for path, text in own_servers(configuration, is_ours):
        raise ConfigurationError(text, key=dotted(path), code="tunnel_loop")


def _port_warnings(host: Host, observed: HostLinks, name: str, bridge: Bridge) -> Iterator[Conflict]:
    for index, port in enumerate(bridge.ports):
        path = ("bridges", name, "ports", index)
        link = observed.link(port)
        if link is None:
            close = get_close_matches(port, host.names(), n=1, cutoff=0.8)
            hint = f"; did you mean {close[0]}?" if close else ""
            yield path, f"{port} is missing: this host has no such interface. It joins when it appears{hint}"
        elif link.master != name:
            holder = host.holder_of(port)
            if holder is not None:
                yield path, f"{port} cannot join the bridge: {holder}"


def _mtu_warnings(
    observed: HostLinks, configuration: Configuration, name: str, bridge: Bridge
) -> Iterator[Conflict]:
    if bridge.mtu is not None:
        return  # the ports get this MTU, and `find_warnings` compares it with the tunnels'
    for tunnel_name, tunnel in configuration.tunnels.items():
        mtu = tunnel.adapter_mtu
        larger = [
            link.name for link in map(observed.link, bridge.ports) if link is not None and link.mtu > mtu
        ]
        if tunnel.bridge == name and larger:
            adapter = tap_name(tunnel_name, tunnel)
            text = (
                f"{', '.join(larger)} can carry larger frames than the {mtu} bytes of {adapter}: those do "
                "not cross the tunnel. Give both LANs the same MTU"
            )
            yield ("tunnels", tunnel_name, "mtu"), text
