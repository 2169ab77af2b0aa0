"""The discovery kit: frames that people miss when a tunnel loses them, sent at one host, captured at another.

Every frame is complete (checksums included), so that "arrived" means byte for byte.

The kernel's bridge holds back link-local groups 01:80:c2:00:00:00 to 0f by default. LLDP (…0e) needs bit 14
of `group_fwd_mask` (0x4000): `Site.make_bridge` sets it; leave `lldp` out where a daemon's bridge does not.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import (
    ICMPv6MLQuery,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6NDOptPrefixInfo,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
    IPv6ExtHdrHopByHop,
    RouterAlert,
)
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether
from scapy.packet import Raw

from tests.lab.topology import HOST_PORT, Host
from tests.lab.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator

ETH_P_ALL = 0x0003
SOL_PACKET = 263
PACKET_AUXDATA = 8
PACKET_IGNORE_OUTGOING = 23
TP_STATUS_VLAN_VALID = 1 << 4
TP_STATUS_VLAN_TPID_VALID = 1 << 6
SNAPSHOT_OCTETS = 65_536
BROADCAST = "ff:ff:ff:ff:ff:ff"
QUIET_SECONDS = 0.05
"""Frames that come later than this after the last one are not waited for."""


def discovery_kit(sender: Host, receiver: Host, *, lldp: bool = True) -> dict[str, bytes]:
    """Named frames from one host to the other or to a group; all different, 60 bytes or more each."""
    kit = (
        _discovery(sender)
        | _addressing(sender, receiver)
        | _tagged(sender, receiver)
        | _foreign(sender, receiver)
    )
    if lldp:
        kit["lldp"] = _padded(_lldp(sender))
    return kit


def _discovery(sender: Host) -> dict[str, bytes]:
    """Service discovery: what printers, casting and old Windows shares live from."""
    mac, ip4 = sender.mac, sender.ipv4
    question = b"\x0b_googlecast\x04_tcp\x05local\x00\x00\x0c\x00\x01"
    mdns = struct.pack("!6H", 0, 0, 1, 0, 0, 0) + question
    ssdp = (
        b"M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\n"
        b'MAN: "ssdp:discover"\r\nMX: 1\r\nST: ssdp:all\r\n\r\n'
    )
    probe = (
        b'<?xml version="1.0" encoding="utf-8"?><soap:Envelope xmlns:soap="http://www.w3.org/2003/05/soap-envelope"'
        b' xmlns:wsd="http://schemas.xmlsoap.org/ws/2005/04/discovery"><soap:Body><wsd:Probe/></soap:Body>'
        b"</soap:Envelope>"
    )
    netbios = struct.pack("!6H", 0x1234, 0x0110, 1, 0, 0, 0) + b"\x20" + b"CK" + b"A" * 30 + b"\0\0\x21\0\x01"
    subnet = ip4.rsplit(".", 1)[0] + ".255"
    source6 = IPv6(src=sender.ipv6, dst="ff02::fb", hlim=255)
    multicast = Ether(src=mac, dst="01:00:5e:00:00:fb") / IP(src=ip4, dst="224.0.0.251", ttl=255)
    ssdp_ip = Ether(src=mac, dst="01:00:5e:7f:ff:fa") / IP(src=ip4, dst="239.255.255.250", ttl=2)
    directed = Ether(src=mac, dst=BROADCAST) / IP(src=ip4, dst=subnet)
    return {
        "mdns": bytes(multicast / UDP(sport=5353, dport=5353) / Raw(mdns)),
        "mdns6": bytes(
            Ether(src=mac, dst="33:33:00:00:00:fb") / source6 / UDP(sport=5353, dport=5353) / Raw(mdns)
        ),
        "ssdp": bytes(ssdp_ip / UDP(sport=50000, dport=1900) / Raw(ssdp)),
        "ws-discovery": bytes(ssdp_ip / UDP(sport=50001, dport=3702) / Raw(probe)),
        "netbios": bytes(directed / UDP(sport=137, dport=137) / Raw(netbios)),
        "steam": bytes(
            directed / UDP(sport=27036, dport=27036) / Raw(b"\xff\xff\xff\xff\x21\x4c\x5f\xa0" + b"d" * 24)
        ),
    }


def _addressing(sender: Host, receiver: Host) -> dict[str, bytes]:
    """ARP and neighbour discovery, DHCP with its router option, router advertisements, group queries."""
    mac, ip4 = sender.mac, sender.ipv4
    arp = Ether(src=mac, dst=BROADCAST) / ARP(hwsrc=mac, psrc=ip4, pdst="10.99.0.250")
    offer = [
        *(("message-type", "offer"), ("server_id", ip4), ("lease_time", 600)),
        *(("subnet_mask", "255.255.255.0"), ("router", "10.99.0.254"), ("name_server", "10.99.0.253"), "end"),
    ]
    bootp = BOOTP(
        op=2, xid=0x1234ABCD, yiaddr="10.99.0.77", chaddr=bytes.fromhex(receiver.mac.replace(":", ""))
    )
    link_local = "fe80::1"
    advertisement = (
        ICMPv6ND_RA(chlim=64, routerlifetime=0)
        / ICMPv6NDOptPrefixInfo(prefix="fd77::", prefixlen=64, A=0, L=0, validlifetime=0, preferredlifetime=0)
        / ICMPv6NDOptSrcLLAddr(lladdr=mac)
    )
    group = Ether(src=mac, dst="33:33:00:00:00:01")
    igmp = Ether(src=mac, dst="01:00:5e:00:00:01") / IP(
        src=ip4, dst="224.0.0.1", ttl=1, tos=0xC0, options=[_router_alert()]
    )
    mld = IPv6(src=link_local, dst="ff02::1", hlim=1) / IPv6ExtHdrHopByHop(options=[RouterAlert()])
    return {
        "arp": _padded(bytes(arp)),
        "neighbour-solicitation": bytes(
            Ether(src=mac, dst="33:33:ff:00:00:fa")
            / IPv6(src=sender.ipv6, dst="ff02::1:ff00:fa", hlim=255)
            / ICMPv6ND_NS(tgt="fd99::fa")
            / ICMPv6NDOptSrcLLAddr(lladdr=mac)
        ),
        "dhcp-offer-with-router": bytes(
            Ether(src=mac, dst=BROADCAST)
            / IP(src=ip4, dst="255.255.255.255")
            / UDP(sport=67, dport=68)
            / bootp
            / DHCP(options=offer)
        ),
        "router-advertisement": bytes(group / IPv6(src=link_local, dst="ff02::1", hlim=255) / advertisement),
        "igmp-query": _padded(bytes(igmp / Raw(b"\x11\x14\xee\xeb" + bytes(4)))),
        "mld-query": bytes(group / mld / ICMPv6MLQuery()),
        "icmp-unicast": bytes(
            Ether(src=mac, dst=receiver.mac) / IP(src=ip4, dst=receiver.ipv4) / ICMP(type=0) / Raw(b"q" * 56)
        ),
    }


def _tagged(sender: Host, receiver: Host) -> dict[str, bytes]:
    """802.1Q with and without priority, priority tags, and 802.1ad (QinQ)."""
    inner = IP(src=sender.ipv4, dst=receiver.ipv4) / UDP(sport=4000, dport=4001) / Raw(b"tagged payload" * 4)
    unicast = Ether(src=sender.mac, dst=receiver.mac)
    group = Ether(src=sender.mac, dst=BROADCAST)
    return {
        "vlan": bytes(unicast / Dot1Q(vlan=42) / inner),
        "vlan-with-priority": bytes(unicast / Dot1Q(vlan=7, prio=5) / inner),
        "vlan-drop-eligible": bytes(group / Dot1Q(vlan=4094, prio=3, dei=1) / inner),
        "priority-tag": bytes(group / Dot1Q(vlan=0, prio=6) / inner),
        "qinq": bytes(unicast / Dot1AD(vlan=100, prio=4) / Dot1Q(vlan=200, prio=2) / inner),
        "double-802.1q": bytes(group / Dot1Q(vlan=300) / Dot1Q(vlan=301) / inner),
    }


def _foreign(sender: Host, receiver: Host) -> dict[str, bytes]:
    """What is not IP: IPX, wake-on-LAN, PROFINET, unknown EtherTypes, 802.3 length frames, odd sizes."""
    source = bytes.fromhex(sender.mac.replace(":", ""))
    target = bytes.fromhex(receiver.mac.replace(":", ""))
    everyone = b"\xff" * 6
    socket_0x452 = bytes(4) + everyone + b"\x04\x52" + bytes(4) + source + b"\x04\x52"
    ipx = b"\xff\xff" + struct.pack("!HBB", 48, 0, 1) + socket_0x452 + b"\x00\x01" + b"s" * 16
    magic = everyone + target * 16
    subnet = sender.ipv4.rsplit(".", 1)[0] + ".255"
    wake = IP(src=sender.ipv4, dst=subnet) / UDP(sport=9, dport=9) / Raw(magic)
    return {
        "ipx-ethernet-ii": everyone + source + b"\x81\x37" + ipx,
        "ipx-802.3-raw": everyone + source + struct.pack("!H", len(ipx)) + ipx,
        "netbeui-802.2": _padded(b"\x03\x00\x00\x00\x00\x01" + source + b"\x00\x2f\xf0\xf0\x03" + b"n" * 44),
        "wake-on-lan": everyone + source + b"\x08\x42" + magic,
        "wake-on-lan-udp": bytes(Ether(src=sender.mac, dst=BROADCAST) / wake),
        "profinet": _padded(b"\x01\x0e\xcf\x00\x00\x00" + source + b"\x88\x92\xfe\xfe\x05\x00" + b"p" * 20),
        "local-experimental": _padded(target + source + b"\x88\xb5" + b"short"),
        "unknown-ethertype": target + source + b"\xbe\xef" + bytes(range(256)) * 2,
        "padding-not-zero": target + source + b"\x88\xb6" + b"\x5a" * 46,
        "largest": target + source + b"\x88\xb6" + bytes(index % 251 for index in range(1500)),
    }


def _lldp(sender: Host) -> bytes:
    source = bytes.fromhex(sender.mac.replace(":", ""))
    chassis = b"\x02\x07\x04" + source
    port = b"\x04\x05\x05eth0"
    return bytes.fromhex("0180c200000e") + source + b"\x88\xcc" + chassis + port + b"\x06\x02\x00\x78\x00\x00"


def _router_alert() -> object:
    from scapy.layers.inet import IPOption_Router_Alert

    return IPOption_Router_Alert()


def _padded(frame: bytes) -> bytes:
    """At least the 60 bytes that a wire carries (without FCS)."""
    return frame.ljust(60, b"\0")


def open_capture(host: Host, interface: str = HOST_PORT) -> socket.socket:
    """A packet socket in the host's namespace that sees every frame that arrives, VLAN tags included."""
    with host.namespace.entered():
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        sock.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        sock.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
        sock.bind((interface, ETH_P_ALL))
        # Promiscuous: a frame to somebody else must be seen too (PACKET_ADD_MEMBERSHIP = 1, PROMISC = 1).
        sock.setsockopt(SOL_PACKET, 1, struct.pack("IHH8s", socket.if_nametoindex(interface), 1, 0, b""))
    sock.setblocking(False)
    return sock


def received_frames(sock: socket.socket) -> list[bytes]:
    """All frames that wait in the socket, as they were on the wire (the kernel's tag put back)."""
    frames: list[bytes] = []
    while True:
        try:
            data, ancillary, _, _ = sock.recvmsg(SNAPSHOT_OCTETS, 256)
        except BlockingIOError:
            return frames
        frames.append(_with_tag(data, ancillary))


def _with_tag(data: bytes, ancillary: list[tuple[int, int, bytes]]) -> bytes:
    """The kernel takes the outer tag off and reports it beside the frame (struct tpacket_auxdata)."""
    for level, kind, value in ancillary:
        if level == SOL_PACKET and kind == PACKET_AUXDATA:
            status, _, _, _, _, tci, tpid = struct.unpack_from("IIIHHHH", value)
            if status & TP_STATUS_VLAN_VALID:
                ethertype = tpid if status & TP_STATUS_VLAN_TPID_VALID else 0x8100
                return data[:12] + struct.pack("!HH", ethertype, tci) + data[12:]
    return data


def send_frames(
    host: Host, frames: Sequence[bytes], *, interface: str = HOST_PORT, gap_seconds: float = 0.0
) -> None:
    """Put frames on the host's wire as they are."""
    with host.namespace.entered():
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        with sock:
            sock.bind((interface, 0))
            for frame in frames:
                sock.send(frame)
                if gap_seconds:
                    time.sleep(gap_seconds)


@contextmanager
def capturing(*hosts: Host) -> Iterator[list[socket.socket]]:
    """Packet sockets at several hosts, closed at the end; see `received_frames`."""
    with ExitStack() as stack:
        yield [stack.enter_context(open_capture(host)) for host in hosts]


def missing_at(
    sender: Host, receiver: Host, *kits: dict[str, bytes], seconds: float = 3.0, gap_seconds: float = 0.002
) -> dict[str, str]:
    """Send kits, each when the one before is there, and compare; `{}` where every frame came once, unchanged.

    Otherwise names and what is wrong with each: `lost`, `2 copies`, or `altered: …` with both in hexadecimal.
    Frames that are of no kit are ignored; those of all kits must differ. OpenVPN as server drops a unicast to
    an address that it has not learned (it never floods one): let the receiver speak first, e.g. by a ping.
    """
    seen: Counter[bytes] = Counter()
    with capturing(receiver) as (sock,):
        for kit in kits:
            send_frames(sender, list(kit.values()), gap_seconds=gap_seconds)
            _await_frames(sock, set(kit.values()), seen, seconds)
        # What comes twice comes at once.
        deadline = time.monotonic() + seconds * PATIENCE
        while select.select([sock], [], [], QUIET_SECONDS)[0] and time.monotonic() < deadline:
            seen.update(received_frames(sock))
    frames = {name: frame for kit in kits for name, frame in kit.items()}
    return {name: problem for name, frame in frames.items() if (problem := _problem(frame, seen))}


def _await_frames(sock: socket.socket, wanted: set[bytes], seen: Counter[bytes], seconds: float) -> None:
    """Count what arrives until all of `wanted` did, or it is too late."""
    deadline = time.monotonic() + seconds * PATIENCE
    while not wanted <= seen.keys() and (left := deadline - time.monotonic()) > 0:
        if select.select([sock], [], [], left)[0]:
            seen.update(received_frames(sock))


def _problem(frame: bytes, seen: Counter[bytes]) -> str:
    if seen[frame] == 1:
        return ""
    if seen[frame] > 1:
        return f"{seen[frame]} copies"
    for other in seen:
        # Same addresses and the same end, or the same beginning: the frame, but changed on its way.
        if other[:12] == frame[:12] and (other[-16:] == frame[-16:] or other[:30] == frame[:30]):
            return f"altered: sent {frame.hex()}, received {other.hex()}"
    return "lost"
