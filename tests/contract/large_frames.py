"""IP packets that are too large for a path, and what their fragments have to be; scapy builds and checks."""

from __future__ import annotations

from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import ICMPv6PacketTooBig
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from tests.contract.tcp_frames import LINKS, NETWORKS

PATH = 1400
FITTING = PATH - 28 - 24  # IPv4 and UDP, our header and tag
TEXT = bytes(at % 251 for at in range(1400))


def datagram(link: str, network: str, size: int = 1400) -> bytes:
    return bytes(LINKS[link]() / NETWORKS[network]() / UDP(sport=1, dport=2) / Raw(TEXT[:size]))


def recomputed(octets: bytes) -> bytes:
    """The frame with all checksums as scapy has them; those that are quoted stay."""
    packet = Ether(octets)
    for layer, field in ((IP, "chksum"), (ICMP, "chksum"), (ICMPv6PacketTooBig, "cksum")):
        if layer in packet:
            delattr(packet[layer], field)
    return bytes(packet)


def may_be_cut(link: str = "untagged", size: int = 1400, **fields: int | str) -> bytes:
    ip = IP(src="10.0.0.1", dst="10.0.0.2", id=77, **fields)
    return bytes(LINKS[link]() / ip / UDP(sport=1, dport=2) / Raw(TEXT[:size]))


def joined(frames: list[bytes], whole: bytes, fit: int = FITTING) -> bytes:
    """What fragments carry, put together under the first one's header; each has to be right by itself."""
    packet = Ether(whole)[IP]
    text = b""
    for octets in frames:
        assert len(octets) <= fit
        assert octets == recomputed(octets)
        part = Ether(octets)[IP]
        assert (part.id, part.src, part.dst, part.proto) == (77, packet.src, packet.dst, packet.proto)
        assert part.frag == packet.frag + len(text) // 8
        assert ("MF" in part.flags) is (octets is not frames[-1] or "MF" in packet.flags)
        text += bytes(part.payload)
    start = len(whole) - len(packet)
    assert all(octets[:start] == whole[:start] for octets in frames)
    return whole[: start + 20] + text
