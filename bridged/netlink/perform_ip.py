"""Carries out one change of an address or a route: builds its netlink message and sends it.

Source: rtnetlink(7), Linux `if_addr.h`, `rtnetlink.h`.
Blocking, one or two requests per change.
"""

from __future__ import annotations

import errno
import ipaddress
import struct
import time
from collections.abc import Callable
from dataclasses import replace
from socket import AF_INET, AF_INET6, if_nametoindex
from typing import Any, Final

from pyroute2.netlink.rtnl import RTM_DELADDR, RTM_DELROUTE, RTM_NEWADDR, RTM_NEWROUTE
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from bridged.errors import NetlinkError
from bridged.link_planning.actions import AddAddress, AddRoute, DeleteAddress, DeleteRoute, RenewAddress
from bridged.link_planning.links import PROTOCOL_KERNEL, HostAddress, HostRoute, NextHop
from bridged.netlink.host_values import FOR_EVER, ROUTE_ONLINK
from bridged.netlink.observe import observe
from bridged.netlink.route_socket import NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, RouteSocket

NO_DUPLICATE_DETECTION = 0x02
"""The address is ours already: probing for a duplicate would only make it unusable for a second."""
IPV6_PREFIX_ROUTE_METRIC = 256
GONE: Final = frozenset({errno.ENODEV, errno.ENXIO, errno.EADDRNOTAVAIL, errno.ESRCH, errno.ENOENT})
"""Errors for the removal of something that is not there."""
_GATEWAY_UNREACHABLE: Final = frozenset({errno.EHOSTUNREACH, errno.ENETUNREACH})


def index_of(name: str, operation: str) -> int:
    try:
        return if_nametoindex(name)
    except OSError:
        raise NetlinkError(operation, name, errno.ENODEV, "no such link") from None


def unless_gone(change: Callable[[], None]) -> None:
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


def _lifetime(until: float | None) -> int:
    return FOR_EVER if until is None else max(0, round(until - time.monotonic()))


def _address_message(address: HostAddress, operation: str, flags: int) -> Any:
    interface = ipaddress.ip_interface(address.address)
    message = ifaddrmsg()
    message["family"] = AF_INET6 if interface.version == 6 else AF_INET
    message["prefixlen"] = interface.network.prefixlen
    message["scope"] = address.scope
    message["index"] = index_of(address.link, operation)
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
        # The kernel refuses a valid lifetime of 0, so the last fraction of a second becomes a whole one.
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


def add_address(kernel: RouteSocket, action: AddAddress) -> None:
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
        # Remove the flag again: the address did not have it before.
        _replace_address(kernel, address, operation)


def _replace_address(kernel: RouteSocket, address: HostAddress, operation: str) -> None:
    message = _address_message(address, operation, address.flags)
    kernel.request(message, RTM_NEWADDR, NLM_F_REPLACE, operation=operation, link=address.link)


def renew_address(kernel: RouteSocket, action: RenewAddress) -> None:
    _replace_address(kernel, action.address, f"renew address {action.address.address}")


def delete_address(kernel: RouteSocket, action: DeleteAddress) -> None:
    address = action.address
    operation = f"remove address {address.address}"

    def remove() -> None:
        message = _address_message(address, operation, address.flags)
        kernel.request(message, RTM_DELADDR, 0, operation=operation, link=address.link)

    unless_gone(remove)
    if address.is_ipv6 and address.valid_until is not None:
        _delete_prefix_route(kernel, address)


def _delete_prefix_route(kernel: RouteSocket, address: HostAddress) -> None:
    """Remove the route to an address's network: the kernel leaves it where the address had a lifetime."""
    network = ipaddress.ip_interface(address.address).network
    for other in observe(kernel, (address.link,)).addresses:
        if other.link == address.link and ipaddress.ip_interface(other.address).network == network:
            return
    metric = address.metric or IPV6_PREFIX_ROUTE_METRIC
    route = HostRoute(AF_INET6, str(network), address.link, metric=metric, protocol=PROTOCOL_KERNEL)
    delete_route(kernel, DeleteRoute(route))


def _gateway_attribute(family: int, gateway: str) -> tuple[str, Any]:
    version = AF_INET6 if ":" in gateway else AF_INET
    if version != family:
        return "RTA_VIA", {"family": version, "addr": gateway}
    return "RTA_GATEWAY", gateway


def _route_message(route: HostRoute, operation: str, *, whole: bool) -> Any:
    """`whole` is False for a removal: the kernel takes only what distinguishes routes then."""
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
        attributes.append(("RTA_OIF", index_of(route.link, operation)))
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
        "oif": index_of(hop.link, operation),
        "hops": hop.weight - 1,
        "flags": ROUTE_ONLINK if hop.onlink else 0,
        "attrs": attributes,
    }


def add_route(kernel: RouteSocket, action: AddRoute) -> None:
    try:
        _append_route(kernel, action.route, action.link)
    except NetlinkError as error:
        if error.number not in _GATEWAY_UNREACHABLE or action.route.gateway is None or action.route.onlink:
            raise
        # A route outlives the address by which its gateway was reached. The kernel keeps such a route, but
        # adds it again only with the flag that skips this check.
        _append_route(kernel, replace(action.route, onlink=True), action.link)


def _append_route(kernel: RouteSocket, route: HostRoute, link: str) -> None:
    operation = f"add route {route.destination}"
    message = _route_message(route, operation, whole=True)
    # Append: a route by another link to the same destination must not be replaced.
    flags = NLM_F_CREATE | NLM_F_APPEND
    _unless_there(lambda: kernel.request(message, RTM_NEWROUTE, flags, operation=operation, link=link))


def delete_route(kernel: RouteSocket, action: DeleteRoute) -> None:
    route = action.route
    operation = f"remove route {route.destination}"

    def remove() -> None:
        message = _route_message(route, operation, whole=False)
        kernel.request(message, RTM_DELROUTE, 0, operation=operation, link=action.link)

    unless_gone(remove)
