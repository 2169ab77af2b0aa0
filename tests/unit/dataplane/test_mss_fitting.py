"""MSS fitting: which segments are changed, and that checksums stay as right or wrong as they were."""

from __future__ import annotations

import pytest
from scapy.layers.inet import IP, TCP, UDP, IPOption
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt
from scapy.layers.l2 import Dot1AD, Dot1Q, Ether
from scapy.packet import Packet, Raw

from bridged.dataplane.portable.headers.mss import clamp_mss

LINK = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
V4 = IP(src="10.0.0.1", dst="10.0.0.2")
V6 = IPv6(src="fd00::1", dst="fd00::2")


def syn(mss: int = 1460, before: int = 0, flags: str = "S") -> Packet:
    """A SYN whose MSS option stands behind `before` fillers: at odd offsets as well."""
    options = [("NOP", None)] * before + [("MSS", mss)] + [("NOP", None)] * ((-before) % 4)
    return TCP(sport=1, dport=2, seq=9, flags=flags, options=options)


@pytest.mark.parametrize("before", range(8))
@pytest.mark.parametrize("limit", [536, 1368, 1459])
@pytest.mark.parametrize("network", [V4, V6], ids=["v4", "v6"])
@pytest.mark.parametrize(
    "tags", [(), (Dot1Q(vlan=5),), (Dot1AD(vlan=5), Dot1Q(vlan=6))], ids=["", "q", "qinq"]
)
def test_an_mss_above_the_limit_is_lowered_and_the_checksum_follows(
    before: int, limit: int, network: Packet, tags: tuple[Packet, ...]
) -> None:
    link: Packet = LINK
    for tag in tags:
        link = link / tag
    wanted = limit if network is V4 else limit - 20
    changed = clamp_mss(bytes(link / network / syn(1460, before) / Raw(b"early data")), limit)
    assert changed == bytes(link / network / syn(wanted, before) / Raw(b"early data"))


def test_a_wrong_checksum_stays_wrong_by_the_same_amount() -> None:
    octets = bytearray(bytes(LINK / V4 / syn()))
    good = clamp_mss(bytes(octets), 1000)
    octets[50] ^= 0x40
    bad = clamp_mss(bytes(octets), 1000)
    assert good is not None
    assert bad is not None
    assert bad != good
    assert bad[:50] + bad[52:] == good[:50] + good[52:]


@pytest.mark.parametrize(
    "octets",
    [
        bytes(LINK / V4 / syn(1300)),
        bytes(LINK / V4 / syn(1368)),
        bytes(LINK / V4 / syn(1460, flags="A")),
        bytes(LINK / IP(src="10.0.0.1", dst="10.0.0.2", frag=1) / syn()),
        bytes(LINK / IP(src="10.0.0.1", dst="10.0.0.2", flags="MF") / syn()),
        bytes(LINK / V6 / IPv6ExtHdrDestOpt() / syn()),
        bytes(LINK / V4 / UDP(sport=1, dport=2) / Raw(bytes(40))),
        bytes(LINK / V4 / TCP(flags="S", options=[])),
        bytes(LINK / V4 / syn())[:50],
        bytes(LINK / V4 / syn())[:20],
        bytes(LINK)[:14],
        b"",
    ],
)
def test_nothing_else_is_touched(octets: bytes) -> None:
    assert clamp_mss(octets, 1368) is None


@pytest.mark.parametrize(
    "options", [b"\x02\x03\x05", b"\x02\x04\x05", b"\x02\x00\x05\xb4", b"\x05\xff\0\0", b"\x02"]
)
def test_malformed_options_are_left_alone(options: bytes) -> None:
    head = bytearray(bytes(LINK / V4 / TCP(sport=1, dport=2, flags="S")))
    head[46] = 0x60
    assert clamp_mss(bytes(head) + options, 536) is None


def test_an_ip_header_with_options_is_read() -> None:
    with_options = IP(src="10.0.0.1", dst="10.0.0.2", options=IPOption(b"\x94\x04\0\0"))
    changed = clamp_mss(bytes(LINK / with_options / syn()), 1000)
    assert changed == bytes(LINK / with_options / syn(1000))
