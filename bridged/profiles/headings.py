"""What is left to do with a client's profile, on each system: the comment at its top. Pure."""

from __future__ import annotations

from typing import Final

_LEFT_TO_DO: Final = """\
# Profile of {name} for {remote}, written by bridged.
# Keep it secret: it holds a private key, and whoever has the file can join the network.
#
# With bridged, which sets up adapter and bridge by itself:
#   bridged join FILE --bridge br0 --port eth1 --output client.yaml
#   bridged run --config client.yaml
# OpenVPN does not bridge. What is left to do with it:
#
# Linux (OpenVPN 2.4 or later, as root). Once it is connected, its adapter is still down: add it to the
# bridge of the LAN, here br0, and set it up. Make the bridge first, with the LAN port in it.
#   openvpn --config FILE --dev tap0
#   ip link set tap0 master br0
#   ip link set tap0 up
#   To have both done at each start, write these lines into the file:
#     script-security 2
#     up "/bin/sh -c 'ip link set $dev master br0 up'"
#   Start it as openvpn-client@NAME.service: VPN connections of NetworkManager cannot be ports of a bridge.
# OpenWrt: copy it to /etc/openvpn/NAME.ovpn with `dev tap0` in it, and add tap0 to the ports of br-lan
#   (LuCI: Network, Interfaces, Devices).
# FreeBSD, pfSense, OPNsense: add the tap interface to a bridge that has the LAN port:
#     ifconfig bridge0 addm tap0 up
# Windows: choose the component "TAP-Windows6 adapter" in OpenVPN's installer (Wintun and DCO carry no
#   Ethernet frames), then select it and the LAN adapter in "Network Connections": Bridge Connections.
# macOS: only Tunnelblick has TAP adapters, with its system extension; it joins this computer, no LAN.
# Android, iOS: no TAP adapters; OpenVPN's apps refuse the profile.
"""


def what_is_left_to_do(name: str, remote: str) -> str:
    """The comment. `name` and `remote` must be one line, and printable."""
    return _LEFT_TO_DO.format(name=name, remote=remote)
