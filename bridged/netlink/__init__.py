"""The host's links through netlink: bridges, ports, addresses, routes and the kernel's FDB.

The only package that imports pyroute2. Everything happens in the network namespace of the calling thread.
"""

import bridged.netlink.package  # noqa: F401  # before what imports pyroute2
from bridged.netlink.attachment import BridgeAttachment, random_mac
from bridged.netlink.attachment_state import AttachmentEvent, AttachmentStatus
from bridged.netlink.host import (
    Host,
    check_ports,
    hold_station,
    learned_stations,
    protected_stations,
    release_station,
    set_port_blocked,
)
from bridged.netlink.netfilter import bridge_netfilter
from bridged.netlink.watch import HostEvent, LinkWatch

__all__ = [
    "AttachmentEvent",
    "AttachmentStatus",
    "BridgeAttachment",
    "Host",
    "HostEvent",
    "LinkWatch",
    "bridge_netfilter",
    "check_ports",
    "hold_station",
    "learned_stations",
    "protected_stations",
    "random_mac",
    "release_station",
    "set_port_blocked",
]
