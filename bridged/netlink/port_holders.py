"""Why a link cannot become a bridge port: what holds it.

Source: Linux `net/bridge/br_if.c` (br_add_if): another receiver of its frames (EBUSY), or a driver that
allows no bridge (EOPNOTSUPP).
Blocking, a dump of the links. Used only after a refusal of the kernel, and by checks.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pyroute2.netlink.rtnl import RTM_GETLINK
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from bridged.netlink.host_values import STACKED_KINDS
from bridged.netlink.multicast import attributes
from bridged.netlink.observe import EXTENSION_SKIP_STATISTICS, link_named
from bridged.netlink.route_socket import RouteSocket

_LINK_ATTRIBUTES_OFFSET: Final = 32
_IFLA_LINK: Final = 5
_SYSFS: Final = Path("/sys/class/net")
_MASTERS: Final = {
    "bridge": "it is a port of bridge {0}",
    "bond": "it is part of the bond {0}: name the bond as the port",
    "team": "it is part of the team {0}: name the team as the port",
    "vrf": "it is in the VRF {0}",
}
WIFI_CLIENT: Final = (
    "it is a Wi-Fi client, and an access point accepts no frames of other stations from it: connect this "
    "host by cable, or use an access point that allows four addresses (`iw dev {0} set 4addr on`)"
)


def holder_of(kernel: RouteSocket, name: str) -> str | None:
    """What keeps the link from becoming a port, in words that could follow "because"; None: unknown.

    Raises:
        NetlinkError: the kernel did not answer.
    """
    link = link_named(kernel, name)
    if link is None:
        return None
    if link.master is not None:
        master = link_named(kernel, link.master)
        words = _MASTERS.get(master.kind if master is not None else "", "it belongs to {0}")
        return words.format(link.master)
    stacked = [
        f"the {kind} {upper}" for upper, kind in _links_on(kernel, link.index) if kind in _TAKES_THE_FRAMES
    ]
    if stacked:
        upper = stacked[0].split()[-1]
        more = f" (and {len(stacked) - 1} more)" if len(stacked) > 1 else ""
        return (
            f"{stacked[0]}{more} takes its frames: remove it (ip link del {upper}), or put it on the bridge"
        )
    if is_wifi(name):
        return WIFI_CLIENT.format(name)
    return None


_TAKES_THE_FRAMES: Final = STACKED_KINDS - {"vlan"}


def is_wifi(name: str, sysfs: Path = _SYSFS) -> bool:
    """Whether it is a wireless interface."""
    return any((sysfs / name / mark).exists() for mark in ("phy80211", "wireless"))


def _links_on(kernel: RouteSocket, index: int) -> list[tuple[str, str]]:
    """(name, kind) of the links on top of this one."""
    request = ifinfmsg()
    request["attrs"] = [("IFLA_EXT_MASK", EXTENSION_SKIP_STATISTICS)]
    wanted = index.to_bytes(4, "little"), index.to_bytes(4, "big")

    def stands_on(message: bytes) -> bool:
        return any(
            kind == _IFLA_LINK and value in wanted
            for kind, value in attributes(message, _LINK_ATTRIBUTES_OFFSET)
        )

    found = []
    for raw in kernel.dump(request, RTM_GETLINK, stands_on):
        info = raw.get_attr("IFLA_LINKINFO")
        kind = str(info.get_attr("IFLA_INFO_KIND") or "") if info is not None else ""
        if raw.get_attr("IFLA_LINK") == index:
            found.append((str(raw.get_attr("IFLA_IFNAME")), kind))
    return found
