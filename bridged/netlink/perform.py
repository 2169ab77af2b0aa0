"""Carries out one action of a plan: builds its netlink message and sends it.

Source: rtnetlink(7), Linux `if_link.h`. Addresses and routes: `perform_ip`.
Blocking, one or two requests per action.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any, Final

from pyroute2.netlink.rtnl import (
    RTM_DELLINK,
    RTM_NEWLINK,
)
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from bridged.link_planning.actions import (
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
from bridged.link_planning.links import BridgeSettings
from bridged.netlink.host_values import CENTISECONDS, IFF_UP
from bridged.netlink.inet6 import set_inet6
from bridged.netlink.learned_defaults import learned_defaults_kept
from bridged.netlink.perform_ip import (
    add_address,
    add_route,
    delete_address,
    delete_route,
    index_of,
    renew_address,
    unless_gone,
)
from bridged.netlink.route_socket import NLM_F_CREATE, NLM_F_EXCL, RouteSocket
from bridged.netlink.vlans import set_port_vlans


def perform(kernel: RouteSocket, action: Action) -> None:
    """Carry out `action`. Removing what is gone and adding what is there succeed.

    Raises:
        NetlinkError: the kernel refused; nothing was changed by this action.
    """
    _PERFORMERS[type(action)](kernel, action)


def _change_link(
    kernel: RouteSocket, operation: str, link: str, attributes: Any = (), *, up: bool | None = None
) -> None:
    message = ifinfmsg()
    message["index"] = index_of(link, operation)
    if up is not None:
        message["flags"] = IFF_UP if up else 0
        message["change"] = IFF_UP
    message["attrs"] = list(attributes)
    kernel.request(message, RTM_NEWLINK, 0, operation=operation, link=link)


def _settings_attributes(settings: BridgeSettings, was: BridgeSettings | None) -> list[tuple[str, int]]:
    """Only what differs, because a write has side effects: it restarts STP, for example."""
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
    unless_gone(lambda: kernel.request(message, RTM_DELLINK, 0, operation="delete bridge", link=action.link))


def _set_settings(kernel: RouteSocket, action: SetSettings) -> None:
    data = _settings_attributes(action.value, action.was)
    if data:
        _change_link(kernel, "change bridge settings", action.link, [_link_information(data)])


def _set_mac(kernel: RouteSocket, action: SetMac) -> None:
    _change_link(kernel, "set MAC address", action.link, [("IFLA_ADDRESS", str(action.value))])


def _set_mtu(kernel: RouteSocket, action: SetMtu) -> None:
    _change_link(kernel, f"set MTU {action.value}", action.link, [("IFLA_MTU", action.value)])


def _set_queue(kernel: RouteSocket, action: SetQueue) -> None:
    _change_link(kernel, f"set queue {action.value}", action.link, [("IFLA_TXQLEN", action.value)])


def _set_up(kernel: RouteSocket, action: SetUp) -> None:
    _change_link(kernel, "bring up" if action.up else "bring down", action.link, up=action.up)
    if not action.up:
        for address in action.keeps:
            add_address(kernel, AddAddress(address))


def _attach(kernel: RouteSocket, action: Attach) -> None:
    bridge = index_of(action.bridge, "attach port")
    _change_link(kernel, f"attach to {action.bridge}", action.link, [("IFLA_MASTER", bridge)])


def _detach(kernel: RouteSocket, action: Detach) -> None:
    operation = f"detach from {action.bridge}"
    unless_gone(lambda: _change_link(kernel, operation, action.link, [("IFLA_MASTER", 0)]))


def _set_multicast_router(kernel: RouteSocket, action: SetMulticastRouter) -> None:
    port = {"attrs": [("IFLA_BRPORT_MULTICAST_ROUTER", action.value)]}
    information = {"attrs": [("IFLA_INFO_SLAVE_KIND", "bridge"), ("IFLA_INFO_SLAVE_DATA", port)]}
    operation = f"set multicast router {action.value}"
    _change_link(kernel, operation, action.link, [("IFLA_LINKINFO", information)])


def _set_inet6(kernel: RouteSocket, action: SetInet6) -> None:
    begins_to_forward = action.value.forwarding and not action.was.forwarding
    with learned_defaults_kept(kernel, action) if begins_to_forward else nullcontext():
        set_inet6(action)


def _set_vlans(kernel: RouteSocket, action: SetVlans) -> None:
    index = index_of(action.link, "set VLANs")
    set_port_vlans(kernel, action.link, index, action.was, action.value)


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
    SetInet6: _set_inet6,
    AddAddress: add_address,
    DeleteAddress: delete_address,
    RenewAddress: renew_address,
    AddRoute: add_route,
    DeleteRoute: delete_route,
}
