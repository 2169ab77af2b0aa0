"""Do one action of a plan: build its netlink message and send it.

Source: rtnetlink(7), Linux `if_link.h`, `if_addr.h`, `rtnetlink.h`.
Blocking, one or two requests per action.
"""

from __future__ import annotations

import errno
import ipaddress
import struct
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from socket import AF_INET, AF_INET6, if_nametoindex
from typing import Any, Final

from pyroute2.netlink.rtnl import (
    RTM_DELADDR,
    RTM_DELLINK,
    RTM_DELROUTE,
    RTM_NEWADDR,
    RTM_NEWLINK,
    RTM_NEWROUTE,
)
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from bridged.errors import NetlinkError
from bridged.netlink.inet6 import set_inet6
from bridged.netlink.observe import CENTISECONDS, FOR_EVER, IFF_UP, ROUTE_ONLINK, observe
from bridged.netlink.route_socket import NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, RouteSocket
from bridged.netlink.vlans import set_port_vlans
from bridged.switching.actions import (
    Action,
    AddAddress,
    AddRoute,
    Attach,
    CreateBridge,
    DeleteAddress,
    DeleteBridge,
    DeleteRoute,
    Detach,
    RenewAddress,
    SetInet6,
    SetMac,
    SetMtu,
    SetMulticastRouter,
    SetQueue,
    SetSettings,
    SetUp,
    SetVlans,
)
from bridged.switching.links import PROTOCOL_KERNEL, BridgeSettings, HostAddress, HostRoute, NextHop

NO_DUPLICATE_DETECTION = 0x02
"""The address is ours already: probing for a duplicate would only take it away for a second."""
IPV6_PREFIX_ROUTE_METRIC = 256
GONE: Final = frozenset({errno.ENODEV, errno.ENXIO, errno.EADDRNOTAVAIL, errno.ESRCH, errno.ENOENT})
"""What the kernel says when something to be removed is not there."""
_NO_WAY_TO_GATEWAY: Final = frozenset({errno.EHOSTUNREACH, errno.ENETUNREACH})


def perform(kernel: RouteSocket, action: Action) -> None:
    """Do it. Removing what is gone, and adding what is there, count as done.

    Raises:
        NetlinkError: the kernel refused; nothing was changed by this action.
    """
    _PERFORMERS[type(action)](kernel, action)


def _index(name: str, operation: str) -> int:
    try:
        return if_nametoindex(name)
    except OSError:
        raise NetlinkError(operation, name, errno.ENODEV, "no such link") from None


def _change_link(
    kernel: RouteSocket, operation: str, link: str, attributes: Any = (), *, up: bool | None = None
) -> None:
    message = ifinfmsg()
    message["index"] = _index(link, operation)
    if up is not None:
        message["flags"] = IFF_UP if up else 0
        message["change"] = IFF_UP
    message["attrs"] = list(attributes)
    kernel.request(message, RTM_NEWLINK, 0, operation=operation, link=link)


def _settings_attributes(settings: BridgeSettings, was: BridgeSettings | None) -> list[tuple[str, int]]:
    """Only what differs: a write also has side effects (STP restarts, for one)."""
    attributes: list[tuple[str, int]] = []
    if was is None or settings.forward_delay_seconds != was.forward_delay_seconds:
        attributes.append(("IFLA_BR_FORWARD_DELAY", round(settings.forward_delay_seconds * CENTISECONDS)))
    if was is None or settings.ageing_seconds != was.ageing_seconds:
        attributes.append(("IFLA_BR_AGEING_TIME", round(settings.ageing_seconds * CENTISECONDS)))
    if was is None or settings.stp != was.stp:
        attributes.append(("IFLA_BR_STP_STATE", int(settings.stp)))
    if was is None or settings.group_forward_mask != was.group_forward_mask:
        attributes.append(("IFLA_BR_GROUP_FWD_MASK", settings.group_forward_mask))
    if was is None or settings.multicast_snooping != was.multicast_snooping:
        attributes.append(("IFLA_BR_MCAST_SNOOPING", int(settings.multicast_snooping)))
    return attributes


def _link_information(data: list[tuple[str, int]]) -> tuple[str, Any]:
    return "IFLA_LINKINFO", {"attrs": [("IFLA_INFO_KIND", "bridge"), ("IFLA_INFO_DATA", {"attrs": data})]}


def _create_bridge(kernel: RouteSocket, action: CreateBridge) -> None:
    message = ifinfmsg()
    message["attrs"] = [
        ("IFLA_IFNAME", action.link),
        ("IFLA_ADDRESS", str(action.mac)),
        _link_information(_settings_attributes(action.settings, None)),
    ]
    kernel.request(
        message, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, operation="create bridge", link=action.link
    )


def _delete_bridge(kernel: RouteSocket, action: DeleteBridge) -> None:
    message = ifinfmsg()
    message["attrs"] = [("IFLA_IFNAME", action.link)]
    _unless_gone(lambda: kernel.request(message, RTM_DELLINK, 0, operation="delete bridge", link=action.link))


def _set_settings(kernel: RouteSocket, action: SetSettings) -> None:
    data = _settings_attributes(action.settings, action.was)
    if data:
        _change_link(kernel, "change bridge settings", action.link, [_link_information(data)])


def _set_mac(kernel: RouteSocket, action: SetMac) -> None:
    _change_link(kernel, "set MAC address", action.link, [("IFLA_ADDRESS", str(action.mac))])


def _set_mtu(kernel: RouteSocket, action: SetMtu) -> None:
    _change_link(kernel, f"set MTU {action.mtu}", action.link, [("IFLA_MTU", action.mtu)])


def _set_queue(kernel: RouteSocket, action: SetQueue) -> None:
    _change_link(kernel, f"set queue {action.frames}", action.link, [("IFLA_TXQLEN", action.frames)])


def _set_up(kernel: RouteSocket, action: SetUp) -> None:
    _change_link(kernel, "bring up" if action.up else "bring down", action.link, up=action.up)
    if not action.up:
        for address in action.keeps:
            _add_address(kernel, AddAddress(address))


def _attach(kernel: RouteSocket, action: Attach) -> None:
    bridge = _index(action.bridge, "attach port")
    _change_link(kernel, f"attach to {action.bridge}", action.link, [("IFLA_MASTER", bridge)])


def _detach(kernel: RouteSocket, action: Detach) -> None:
    operation = f"detach from {action.bridge}"
    _unless_gone(lambda: _change_link(kernel, operation, action.link, [("IFLA_MASTER", 0)]))


def _set_multicast_router(kernel: RouteSocket, action: SetMulticastRouter) -> None:
    port = {"attrs": [("IFLA_BRPORT_MULTICAST_ROUTER", action.value)]}
    information = {"attrs": [("IFLA_INFO_SLAVE_KIND", "bridge"), ("IFLA_INFO_SLAVE_DATA", port)]}
    operation = f"set multicast router {action.value}"
    _change_link(kernel, operation, action.link, [("IFLA_LINKINFO", information)])


def _set_vlans(kernel: RouteSocket, action: SetVlans) -> None:
    index = _index(action.link, "set VLANs")
    set_port_vlans(kernel, action.link, index, action.was, action.vlans)


def _lifetime(until: float | None) -> int:
    return FOR_EVER if until is None else max(0, round(until - time.monotonic()))


def _address_message(address: HostAddress, operation: str, flags: int) -> Any:
    interface = ipaddress.ip_interface(address.address)
    message = ifaddrmsg()
    message["family"] = AF_INET6 if interface.version == 6 else AF_INET
    message["prefixlen"] = interface.network.prefixlen
    message["scope"] = address.scope
    message["index"] = _index(address.link, operation)
    attributes: list[tuple[str, Any]] = [
        ("IFA_LOCAL", address.ip),
        ("IFA_ADDRESS", address.peer or address.ip),
        ("IFA_FLAGS", flags),
    ]
    if address.broadcast:
        attributes.append(("IFA_BROADCAST", address.broadcast))
    if address.label:
        attributes.append(("IFA_LABEL", address.label))
    if address.metric:
        attributes.append(("IFA_RT_PRIORITY", address.metric))
    if address.protocol:
        attributes.append(("IFA_PROTO", address.protocol))
    if address.valid_until is not None or address.preferred_until is not None:
        # A valid lifetime of 0 is refused; what has less than a second left keeps one.
        valid = max(1, _lifetime(address.valid_until))
        lifetimes = {
            "ifa_valid": valid,
            "ifa_preferred": min(valid, _lifetime(address.preferred_until)),
            "cstamp": 0,
            "tstamp": 0,
        }
        attributes.append(("IFA_CACHEINFO", lifetimes))
    message["attrs"] = attributes
    return message


def _add_address(kernel: RouteSocket, action: AddAddress) -> None:
    address = action.address
    operation = f"add address {address.address}"
    flags = address.flags | (NO_DUPLICATE_DETECTION if address.is_ipv6 else 0)
    message = _address_message(address, operation, flags)
    _unless_there(
        lambda: kernel.request(
            message, RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, operation=operation, link=address.link
        )
    )
    if address.is_ipv6:
        # Usable from the first moment, and yet without the flag, as it was before.
        _replace_address(kernel, address, operation)


def _replace_address(kernel: RouteSocket, address: HostAddress, operation: str) -> None:
    message = _address_message(address, operation, address.flags)
    kernel.request(message, RTM_NEWADDR, NLM_F_REPLACE, operation=operation, link=address.link)


def _renew_address(kernel: RouteSocket, action: RenewAddress) -> None:
    _replace_address(kernel, action.address, f"renew address {action.address.address}")


def _delete_address(kernel: RouteSocket, action: DeleteAddress) -> None:
    address = action.address
    operation = f"remove address {address.address}"

    def remove() -> None:
        message = _address_message(address, operation, address.flags)
        kernel.request(message, RTM_DELADDR, 0, operation=operation, link=address.link)

    _unless_gone(remove)
    if address.is_ipv6 and address.valid_until is not None:
        _delete_prefix_route(kernel, address)


def _delete_prefix_route(kernel: RouteSocket, address: HostAddress) -> None:
    """Remove the route to an address's network, which the kernel leaves where the address had a lifetime."""
    network = ipaddress.ip_interface(address.address).network
    for other in observe(kernel, (address.link,)).addresses:
        if other.link == address.link and ipaddress.ip_interface(other.address).network == network:
            return
    metric = address.metric or IPV6_PREFIX_ROUTE_METRIC
    route = HostRoute(AF_INET6, str(network), address.link, metric=metric, protocol=PROTOCOL_KERNEL)
    _delete_route(kernel, DeleteRoute(route))


def _gateway_attribute(family: int, gateway: str) -> tuple[str, Any]:
    version = AF_INET6 if ":" in gateway else AF_INET
    if version != family:
        return "RTA_VIA", {"family": version, "addr": gateway}
    return "RTA_GATEWAY", gateway


def _route_message(route: HostRoute, operation: str, *, whole: bool) -> Any:
    """`whole` is False for a removal, where the kernel needs (and takes) only what tells routes apart."""
    network = ipaddress.ip_network(route.destination)
    message = rtmsg()
    message["family"] = route.family
    message["dst_len"] = network.prefixlen
    message["tos"] = route.tos
    message["table"] = route.table if route.table < 256 else 0
    message["proto"] = route.protocol
    message["scope"] = route.scope
    message["type"] = route.kind
    message["flags"] = ROUTE_ONLINK if route.onlink and whole else 0
    attributes: list[tuple[str, Any]] = [("RTA_TABLE", route.table)]
    if network.prefixlen:
        attributes.append(("RTA_DST", str(network.network_address)))
    if route.source:
        source = ipaddress.ip_network(route.source)
        message["src_len"] = source.prefixlen
        attributes.append(("RTA_SRC", str(source.network_address)))
    if route.metric:
        attributes.append(("RTA_PRIORITY", route.metric))
    if route.nexthop_object is not None and whole:
        attributes.append(("RTA_NH_ID", route.nexthop_object))
    elif route.nexthops:
        attributes.append(
            ("RTA_MULTIPATH", [_hop_message(route.family, hop, operation) for hop in route.nexthops])
        )
    else:
        attributes.append(("RTA_OIF", _index(route.link, operation)))
        if route.gateway:
            attributes.append(_gateway_attribute(route.family, route.gateway))
    if whole:
        attributes += _route_details(route)
    message["attrs"] = attributes
    return message


def _route_details(route: HostRoute) -> list[tuple[str, Any]]:
    details: list[tuple[str, Any]] = []
    if route.preferred_source:
        details.append(("RTA_PREFSRC", route.preferred_source))
    if route.metrics:
        details.append(("RTA_METRICS", {"attrs": list(route.metrics)}))
    if route.family == AF_INET6 and route.preference:
        details.append(("RTA_PREF", route.preference))
    if route.expires_at is not None:
        details.append(("RTA_EXPIRES", struct.pack("=I", max(1, _lifetime(route.expires_at)))))
    return details


def _hop_message(family: int, hop: NextHop, operation: str) -> dict[str, Any]:
    attributes = [_gateway_attribute(family, hop.gateway)] if hop.gateway else []
    return {
        "oif": _index(hop.link, operation),
        "hops": hop.weight - 1,
        "flags": ROUTE_ONLINK if hop.onlink else 0,
        "attrs": attributes,
    }


def _add_route(kernel: RouteSocket, action: AddRoute) -> None:
    try:
        _append_route(kernel, action.route, action.link)
    except NetlinkError as error:
        if error.number not in _NO_WAY_TO_GATEWAY or action.route.gateway is None or action.route.onlink:
            raise
        # A route outlives the address that its gateway was reached by; the kernel bears that, but takes it
        # anew only where it is told not to look.
        _append_route(kernel, replace(action.route, onlink=True), action.link)


def _append_route(kernel: RouteSocket, route: HostRoute, link: str) -> None:
    operation = f"add route {route.destination}"
    message = _route_message(route, operation, whole=True)
    # Appended: a route with another link to the same destination must not be replaced.
    flags = NLM_F_CREATE | NLM_F_APPEND
    _unless_there(lambda: kernel.request(message, RTM_NEWROUTE, flags, operation=operation, link=link))


def _delete_route(kernel: RouteSocket, action: DeleteRoute) -> None:
    route = action.route
    operation = f"remove route {route.destination}"

    def remove() -> None:
        message = _route_message(route, operation, whole=False)
        kernel.request(message, RTM_DELROUTE, 0, operation=operation, link=action.link)

    _unless_gone(remove)


def _unless_gone(change: Callable[[], None]) -> None:
    try:
        change()
    except NetlinkError as error:
        if error.number not in GONE:
            raise


def _unless_there(change: Callable[[], None]) -> None:
    try:
        change()
    except NetlinkError as error:
        if error.number != errno.EEXIST:
            raise


_PERFORMERS: Final[Mapping[type[Any], Callable[[RouteSocket, Any], None]]] = {
    CreateBridge: _create_bridge,
    DeleteBridge: _delete_bridge,
    SetSettings: _set_settings,
    SetMac: _set_mac,
    SetMtu: _set_mtu,
    SetQueue: _set_queue,
    SetUp: _set_up,
    Attach: _attach,
    Detach: _detach,
    SetMulticastRouter: _set_multicast_router,
    SetVlans: _set_vlans,
    SetInet6: lambda kernel, action: set_inet6(action),
    AddAddress: _add_address,
    DeleteAddress: _delete_address,
    RenewAddress: _renew_address,
    AddRoute: _add_route,
    DeleteRoute: _delete_route,
}
