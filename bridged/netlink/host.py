"""The host's links as the daemon sees and changes them, in the network namespace of the calling thread.

Source: rtnetlink(7).
Blocking, each call for a few milliseconds; `BridgeAttachment` runs it in a thread of its own.
"""

from __future__ import annotations

import socket
from collections.abc import Collection, Sequence
from types import TracebackType
from typing import Self

from bridged.addresses import MacAddress
from bridged.errors import NetlinkError
from bridged.link_planning.actions import Action, inverse
from bridged.link_planning.links import HostLinks
from bridged.link_planning.wishes import BridgeWish
from bridged.netlink import port_holders, stations, tunnel_route
from bridged.netlink.observe import holders, observe
from bridged.netlink.perform import perform
from bridged.netlink.route_socket import RouteSocket


class Host:
    """Reads and changes links, addresses and routes. Not thread-safe; one per thread.

    Raises:
        NetlinkError: from all methods; `operation` and `link` tell what the kernel refused.
    """

    def __init__(self) -> None:
        self.kernel = RouteSocket()
        self.failed_action: Action | None = None

    def close(self) -> None:
        self.kernel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def observe(self, names: Collection[str], *, routes_by: Collection[str] = ()) -> HostLinks:
        """These links as they are now; see `observe.observe`."""
        return observe(self.kernel, names, routes_by=routes_by)

    def names(self) -> list[str]:
        """Of all links but loopback."""
        return [name for _, name in socket.if_nameindex() if name != "lo"]

    def holders_of(self, ip: str) -> list[str]:
        """The links that have this IP address."""
        return holders(self.kernel, ip)

    def holder_of(self, name: str) -> str | None:
        """Why a link cannot become a port; see `port_holders.holder_of`."""
        return port_holders.holder_of(self.kernel, name)

    def apply(self, actions: Sequence[Action]) -> None:
        """Do all of the actions or none: when one fails, those before it are undone, newest first.

        Raises:
            NetlinkError: of the action that failed, which is then in `failed_action`. Its notes name what
                could not be undone.
        """
        self.failed_action = None
        for position, action in enumerate(actions):
            try:
                perform(self.kernel, action)
            except NetlinkError as error:
                self.failed_action = action
                for undone in self.apply_all(inverse(actions[:position])):
                    error.add_note(f"not undone: {undone}")
                raise

    def apply_all(self, actions: Sequence[Action]) -> list[NetlinkError]:
        """Do every action that can be done. Returns the errors of the others, in order."""
        errors: list[NetlinkError] = []
        for action in actions:
            try:
                perform(self.kernel, action)
            except NetlinkError as error:
                errors.append(error)
        return errors


def hold_station(mac: MacAddress, port: str) -> None:
    """Bind a station to a port of a kernel bridge; see `stations.hold`.

    Raises:
        NetlinkError: the port is in no bridge, or gone.
    """
    with RouteSocket() as kernel:
        stations.hold(kernel, mac, port)


def release_station(mac: MacAddress, port: str) -> None:
    """Let the kernel bridge learn where the station is; nothing happens where it is not held.

    Raises:
        NetlinkError: the kernel refused.
    """
    with RouteSocket() as kernel:
        stations.release(kernel, mac, port)


def set_port_blocked(port: str, is_blocked: bool) -> None:
    """Keep a port of a kernel bridge from sending and receiving, or let it; see `stations.set_blocked`.

    Raises:
        NetlinkError: the kernel refused.
    """
    with RouteSocket() as kernel:
        stations.set_blocked(kernel, port, is_blocked)


def protected_stations(bridge: str) -> set[MacAddress]:
    """Addresses that no peer may ever hold in `bridge`; see `stations.protected_stations`.

    Raises:
        NetlinkError: the kernel did not answer.
    """
    with RouteSocket() as kernel:
        return stations.protected_stations(kernel, bridge)


def learned_stations(ports: Collection[int]) -> list[tuple[MacAddress, int]]:
    """The stations that the kernel's bridges know behind these ports; see `stations.learned`.

    Raises:
        NetlinkError: the kernel did not answer.
    """
    with RouteSocket() as kernel:
        return stations.learned(kernel, ports)


def check_ports(wish: BridgeWish, destinations: Collection[str]) -> None:
    """Refuse ports that carry the tunnel itself; see `tunnel_route.check_ports`.

    For use before a `BridgeAttachment` exists; it checks by itself from then on.

    Raises:
        ConfigurationError: `carries_tunnel`.
        NetlinkError: the kernel did not answer.
    """
    with RouteSocket() as kernel:
        tunnel_route.check_ports(kernel, wish, destinations)
