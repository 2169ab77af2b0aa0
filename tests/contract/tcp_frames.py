"""TCP and UDP frames that scapy builds and checks: alone, as a train of segments, and as a super-frame."""

from __future__ import annotations

import struct
from collections.abc import Callable

from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Packet, Raw

A, B = "02:00:5e:00:00:01", "02:00:5e:00:00:02"


NETWORKS: dict[str, Callable[[], Packet]] = {
    "IPv4": lambda: IP(src="10.0.0.1", dst="10.0.0.2", flags="DF", id=100, tos=2),
    "IPv6": lambda: IPv6(src="fd00::1", dst="fd00::2", tc=2, fl=0x12345),
}


LINKS: dict[str, Callable[[], Packet]] = {
    "untagged": lambda: Ether(src=A, dst=B),
    "tagged": lambda: Ether(src=A, dst=B) / Dot1Q(vlan=7, prio=3),
}


STAMPS = [("NOP", None), ("NOP", None), ("Timestamp", (1000, 2000))]


def segments(
    network: str, count: int, size: int, *, last: int | None = None, flags: str = "A", first_id: int = 100
) -> list[bytes]:
    """Consecutive TCP segments as a host without offloads sends them; PSH on the last."""
    made = []
    for index in range(count):
        layer = NETWORKS[network]()
        if network == "IPv4":
            layer.id = (first_id + index) & 0xFFFF
        text = bytes((index + at) & 0xFF for at in range(size if index < count - 1 or last is None else last))
        tcp = TCP(
            sport=1000,
            dport=2000,
            seq=(0xFFFFF000 + index * size) & 0xFFFFFFFF,
            ack=5,
            flags=flags + ("P" if index == count - 1 else ""),
            options=STAMPS,
        )
        made.append(bytes(Ether(src=B, dst=A) / layer / tcp / Raw(text)))
    return made


def datagrams(network: str, count: int, size: int) -> list[bytes]:
    """UDP datagrams of one flow as a host without offloads sends them."""
    made = []
    for index in range(count):
        layer = NETWORKS[network]()
        if network == "IPv4":
            layer.id = 100 + index
        text = bytes((index + at) & 0xFF for at in range(size))
        made.append(bytes(Ether(src=B, dst=A) / layer / UDP(sport=1000, dport=2000) / Raw(text)))
    return made


def sums_are_good(octets: bytes) -> bool:
    """scapy computes the same checksums."""
    packet = Ether(octets)
    for layer, field in ((IP, "chksum"), (TCP, "chksum"), (UDP, "chksum")):
        if layer in packet:
            delattr(packet[layer], field)
    return bytes(packet.__class__(bytes(packet))) == octets


def super_frame(
    link: str, network: str, size: int, segment_size: int, *, flags: str = "PA"
) -> tuple[bytes, bytes]:
    """A virtio-net header and a TCP super-frame as the kernel leaves it: a partial checksum."""
    text = bytes(at % 253 for at in range(size))
    tcp = TCP(sport=1, dport=2, seq=7, flags=flags, options=STAMPS)
    octets = bytearray(bytes(LINKS[link]() / NETWORKS[network]() / tcp / Raw(text)))
    start = len(octets) - size - 32
    addresses = octets[start - 8 : start] if network == "IPv4" else octets[start - 32 : start]
    pseudo = addresses + struct.pack("!HH", 6, size + 32)
    total = sum(struct.unpack(f"!{len(pseudo) // 2}H", pseudo))
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    octets[start + 16 : start + 18] = total.to_bytes(2, "big")
    gso = 1 if network == "IPv4" else 4
    ecn = 0x80 if "C" in flags else 0
    return struct.pack("=BBHHHH", 1, gso | ecn, start + 32, segment_size, start, 16), bytes(octets)


def syn(network: str, link: str, mss: int, flags: str = "S") -> bytes:
    options = [("NOP", None), ("MSS", mss), ("NOP", None), ("NOP", None), ("NOP", None)]
    return bytes(LINKS[link]() / NETWORKS[network]() / TCP(sport=1, dport=2, flags=flags, options=options))
