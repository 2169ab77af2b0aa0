from __future__ import annotations

import pytest
from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6NDOptDstLLAddr, IPv6
from scapy.layers.l2 import ARP, Ether

from bridged.addresses import MacAddress
from bridged.link_planning.links import HostAddress
from bridged.netlink.announce import announcement

MAC = MacAddress.parse("02:00:5e:00:00:07")


def test_an_ipv4_address_is_announced_by_arp() -> None:
    frame = Ether(announcement(HostAddress("br0", "192.0.2.2/24"), MAC))
    assert (frame.dst, frame.src) == ("ff:ff:ff:ff:ff:ff", str(MAC))
    arp = frame[ARP]
    assert (arp.op, arp.hwsrc, arp.psrc, arp.pdst) == (1, str(MAC), "192.0.2.2", "192.0.2.2")


@pytest.mark.parametrize("ip", ["2001:db8::2", "2001:db8:ffff:ffff:ffff:ffff:ffff:fffe"])
def test_an_ipv6_address_is_announced_by_an_unsolicited_advertisement(ip: str) -> None:
    octets = announcement(HostAddress("br0", f"{ip}/64"), MAC)
    frame = Ether(octets)
    assert (frame.dst, frame[IPv6].dst, frame[IPv6].hlim) == ("33:33:00:00:00:01", "ff02::1", 255)
    advertisement = frame[ICMPv6ND_NA]
    assert (advertisement.tgt, advertisement.R, advertisement.S, advertisement.O) == (ip, 0, 0, 1)
    assert frame[ICMPv6NDOptDstLLAddr].lladdr == str(MAC)
    given = advertisement.cksum
    del advertisement.cksum
    assert Ether(bytes(frame))[ICMPv6ND_NA].cksum == given
