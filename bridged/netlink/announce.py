"""Tell the neighbours which MAC address an IP address has now.

An address that moves from a port to the bridge, or back, may get another MAC address. Without an
announcement, neighbours keep sending to the old one, some routers for hours.

Source: RFC 5227, section 3 (ARP announcement); RFC 4861, section 7.2.6 (unsolicited neighbour advertisement).
Best effort: neighbours find out by themselves in the end.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Iterable

from bridged.addresses import MacAddress
from bridged.checksum import checksum_octets, word_sum
from bridged.link_planning.actions import Action, AddAddress
from bridged.link_planning.links import HostAddress, HostLinks, is_link_local

ETHERTYPE_ARP = 0x0806
ETHERTYPE_IPV6 = 0x86DD
ALL_NODES = "ff02::1"
BROADCAST_MAC = b"\xff" * 6
_ICMPV6 = 58
_NEIGHBOUR_ADVERTISEMENT = 136
_FLAG_OVERRIDE = 0x20000000
_TARGET_LINK_LAYER_ADDRESS = 2


def announce(actions: Iterable[Action], host: HostLinks) -> None:
    """Send one frame for each address that `actions` added; `host` was observed after them."""
    for action in actions:
        if not isinstance(action, AddAddress) or is_link_local(action.address):
            continue
        link = host.link(action.link)
        if link is None or not link.up or link.mac is None:
            continue
        frame = announcement(action.address, link.mac)
        try:
            with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
                raw.bind((link.name, 0))
                raw.send(frame)
        except OSError:
            continue


def announcement(address: HostAddress, mac: MacAddress) -> bytes:
    """The frame that announces `address` at `mac`."""
    return _advertisement(address, mac) if address.is_ipv6 else _arp(address, mac)


def _arp(address: HostAddress, mac: MacAddress) -> bytes:
    ip = ipaddress.IPv4Address(address.ip).packed
    body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + mac.octets + ip + bytes(6) + ip
    return BROADCAST_MAC + mac.octets + struct.pack("!H", ETHERTYPE_ARP) + body


def _advertisement(address: HostAddress, mac: MacAddress) -> bytes:
    body = ipaddress.IPv6Address(address.ip).packed
    body += struct.pack("!BB", _TARGET_LINK_LAYER_ADDRESS, 1) + mac.octets
    head = struct.pack("!BBHI", _NEIGHBOUR_ADVERTISEMENT, 0, 0, _FLAG_OVERRIDE)
    return icmpv6_frame(mac, address.ip, ALL_NODES, head + body)


def icmpv6_frame(mac: MacAddress, source: str, group: str, message: bytes) -> bytes:
    """A frame with one ICMPv6 message (its checksum field 0, its length even) to a multicast group."""
    target = ipaddress.IPv6Address(group).packed
    origin = ipaddress.IPv6Address(source).packed
    pseudo = origin + target + struct.pack("!II", len(message), _ICMPV6)
    message = message[:2] + checksum_octets(word_sum(pseudo + message)) + message[4:]
    packet = struct.pack("!IHBB", 6 << 28, len(message), _ICMPV6, 255) + origin + target + message
    return b"\x33\x33" + target[-4:] + mac.octets + struct.pack("!H", ETHERTYPE_IPV6) + packet
