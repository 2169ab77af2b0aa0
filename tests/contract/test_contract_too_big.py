"""Contract: `answer_too_big`. A host hears by ICMP of its packet that is too large for the path.

scapy builds the packets and says what the answer has to be.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest
from scapy.layers.inet import ICMP, IP, UDP, IPOption_NOP
from scapy.layers.inet6 import ICMPv6DestUnreach, ICMPv6PacketTooBig, IPv6, IPv6ExtHdrFragment
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Packet, Raw

from bridged.protocol.packets.framing import ADDED_MOST, Framing
from tests.contract.dataplane_rig import Rig, until
from tests.contract.large_frames import FITTING, PATH, TEXT, datagram, joined, may_be_cut, recomputed
from tests.contract.tcp_frames import LINKS, NETWORKS, A, B

Make = Callable[..., Rig]


@pytest.mark.parametrize("vnet", [0, 12])
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("link", LINKS)
def test_a_packet_that_must_not_be_cut_is_answered_for_its_destination(
    make_rig: Make, link: str, network: str, vnet: int
) -> None:
    rig = make_rig(vnet=vnet, wan_mtu=PATH, answer_too_big=True)
    peer = rig.peer(1)
    octets = datagram(link, network)
    rig.put(octets)
    found = rig.frames()[0]
    answered = Ether(found)
    assert found == recomputed(found)
    assert (answered.src, answered.dst) == (B, A)
    start = len(LINKS[link]())
    if link == "tagged":
        assert (answered[Dot1Q].vlan, answered[Dot1Q].prio) == (7, 3)
    if network == "IPv4":
        assert (answered[IP].src, answered[IP].dst) == ("10.0.0.2", "10.0.0.1")
        message = answered[ICMP]
        assert (message.type, message.code, message.nexthopmtu) == (3, 4, FITTING - start)
        assert len(found) - start == 576
        assert found[start + 28 :] == octets[start : start + 548]
    else:
        assert (answered[IPv6].src, answered[IPv6].dst) == ("fd00::2", "fd00::1")
        message = answered[ICMPv6PacketTooBig]
        assert (message.type, message.code, message.mtu) == (2, 0, FITTING - start)
        assert len(found) - start == 1280
        assert found[start + 48 :] == octets[start : start + 1232]
    rig.dropped("transmit", "too_big")
    until(lambda: rig.snapshot().counts["mtu_events"]["too_big_answered"] == 1, "too_big_answered")
    assert peer.is_quiet()


@pytest.mark.parametrize("network", NETWORKS)
def test_what_just_fits_crosses_and_one_byte_more_is_answered(make_rig: Make, network: str) -> None:
    rig = make_rig(wan_mtu=PATH, answer_too_big=True)
    peer = rig.peer(1)
    around = len(datagram("untagged", network, 0))
    fits = datagram("untagged", network, FITTING - around)
    rig.put(fits)
    (packet,) = peer.datagrams()
    assert (len(packet), peer.open(packet).payload) == (PATH - 28, fits)
    rig.put(datagram("untagged", network, FITTING - around + 1))
    assert len(rig.frames()) == 1
    assert peer.is_quiet()


def test_framing_counts(make_rig: Make) -> None:
    framing: Framing = "stub-v2"
    rig = make_rig(wan_mtu=PATH, answer_too_big=True)
    rig.peer(1, framing=framing)
    rig.put(datagram("untagged", "IPv4"))
    assert Ether(rig.frames()[0])[ICMP].nexthopmtu == FITTING - 14 - ADDED_MOST[framing]


def test_an_ipv6_host_hears_of_1280_at_least_and_1280_travel_as_before(make_rig: Make) -> None:
    rig = make_rig(wan_mtu=1280, answer_too_big=True)
    peer = rig.peer(1)
    rig.put(datagram("untagged", "IPv6"))
    assert Ether(rig.frames()[0])[ICMPv6PacketTooBig].mtu == 1280
    least = datagram("untagged", "IPv6", 1280 - 48)
    rig.put(least)
    assert peer.payloads() == [least]


def _unanswered() -> dict[str, bytes]:
    ether = Ether(src=A, dst=B)
    ipv4: Callable[..., Packet] = lambda **fields: IP(src="10.0.0.1", dst="10.0.0.2", **fields)  # noqa: E731
    text = Raw(TEXT)
    udp = UDP(sport=1, dport=2) / text
    group = NETWORKS["IPv6"]()
    group.dst = "ff02::1"
    packets = {
        "options": ether / ipv4(options=IPOption_NOP() * 4) / udp,
        "later fragment": ether / ipv4(flags="DF", frag=10) / text,
        "ICMP error": ether / ipv4(flags="DF") / ICMP(type=3, code=3) / text,
        "to a group": Ether(src=A, dst="01:00:5e:00:00:01")
        / IP(src="10.0.0.1", dst="224.0.0.1", flags="DF")
        / udp,
        "broadcast": Ether(src=A, dst="ff:ff:ff:ff:ff:ff") / ipv4(flags="DF") / udp,
        "group address behind a station": ether / IP(src="10.0.0.1", dst="239.0.0.1", flags="DF") / udp,
        "from nobody": ether / IP(src="0.0.0.0", dst="10.0.0.2", flags="DF") / udp,
        "ICMPv6 error": ether / NETWORKS["IPv6"]() / ICMPv6DestUnreach() / text,
        "later fragment, IPv6": ether / NETWORKS["IPv6"]() / IPv6ExtHdrFragment(offset=20, nh=17) / text,
        "IPv6 group": ether / group / udp,
        "no IP": Ether(src=A, dst=B, type=0x88B5) / text,
    }
    return {name: bytes(packet) for name, packet in packets.items()}


@pytest.mark.parametrize("name", _unanswered())
def test_what_must_not_be_answered_travels_as_before(make_rig: Make, name: str) -> None:
    rig = make_rig(wan_mtu=PATH, answer_too_big=True)
    peer = rig.peer(1)
    octets = _unanswered()[name]
    rig.put(octets)
    assert peer.payloads() == [octets]
    assert rig.tap_is_quiet()
    assert rig.drops("transmit", "too_big") == 0


@pytest.mark.parametrize("network", NETWORKS)
def test_without_the_setting_with_fragment_or_among_several_peers_all_travels_as_before(
    make_rig: Make, network: str
) -> None:
    octets = datagram("untagged", network)
    off = make_rig(wan_mtu=PATH)
    peer = off.peer(1)
    off.put(octets)
    assert peer.payloads() == [octets]
    cut = make_rig(wan_mtu=PATH, answer_too_big=True)
    peer = cut.peer(1, fragment=1000)
    cut.put(octets)
    assert len(peer.datagrams(2)) == 2
    several = make_rig(wan_mtu=PATH, answer_too_big=True)
    peers = [several.peer(number) for number in (1, 2)]
    several.put(octets)
    assert [peer.payloads() for peer in peers] == [[octets]] * 2
    assert off.tap_is_quiet()
    assert cut.tap_is_quiet()
    assert several.tap_is_quiet()


def test_a_station_gets_few_answers_and_loses_all_such_frames(make_rig: Make) -> None:
    rig = make_rig(wan_mtu=PATH, answer_too_big=True)
    peer = rig.peer(1)
    octets = datagram("untagged", "IPv4")
    for _ in range(20):
        rig.put(*[octets] * 10)
    rig.dropped("transmit", "too_big", 200)
    answered = rig.snapshot().counts["mtu_events"]["too_big_answered"]
    # 32 at once and 16 a second: 200 frames take far less than 6 s.
    assert 32 <= answered < 128
    assert peer.is_quiet()


@pytest.mark.parametrize("network", NETWORKS)
def test_of_a_udp_super_frame_the_last_datagram_crosses_if_it_fits(make_rig: Make, network: str) -> None:
    rig = make_rig(vnet=12, wan_mtu=PATH, answer_too_big=True, offloads=("csum", "uso4", "uso6"))
    peer = rig.peer(1)
    octets = datagram("untagged", network, 200) + bytes(2800)
    start = len(octets) - 3008
    length = 3008 + (20 if network == "IPv4" else 0)
    at = start - 18 if network == "IPv4" else start - 36
    octets = octets[:at] + length.to_bytes(2, "big") + octets[at + 2 :]
    rig.put(octets, header=struct.pack("=BBHHHH", 1, 5, start + 8, 1400, start, 6))
    assert [len(Ether(item)[UDP].payload) for item in peer.payloads()] == [200]
    rig.dropped("transmit", "too_big", 2)
    assert {len(Ether(item)) for item in rig.frames()} == {14 + (576 if network == "IPv4" else 1280)}


@pytest.mark.parametrize("vnet", [0, 12])
@pytest.mark.parametrize("link", LINKS)
def test_ipv4_that_may_be_cut_is_cut_as_a_router_does(make_rig: Make, link: str, vnet: int) -> None:
    rig = make_rig(vnet=vnet, wan_mtu=PATH, answer_too_big=True)
    peer = rig.peer(1)
    octets = may_be_cut(link)
    rig.put(octets)
    assert joined(peer.payloads(2), octets) == octets
    fits = may_be_cut(link, FITTING - len(may_be_cut(link, 0)))
    rig.put(fits)
    assert peer.payloads() == [fits]
    until(lambda: rig.snapshot().counts["mtu_events"]["ipv4_cut"] == 1, "ipv4_cut")
    assert rig.tap_is_quiet()


@pytest.mark.parametrize("flags", ["", "MF"])
def test_a_fragment_is_cut_further_and_a_small_path_takes_many(make_rig: Make, flags: str) -> None:
    rig = make_rig(wan_mtu=576, answer_too_big=True)
    peer = rig.peer(1)
    octets = may_be_cut(frag=185, flags=flags, size=1392)
    rig.put(octets)
    assert joined(peer.payloads(3), octets, 576 - 28 - 24) == octets


def test_what_floods_is_cut_for_each_peer_and_groups_are_cut_too(make_rig: Make) -> None:
    rig = make_rig(wan_mtu=PATH, answer_too_big=True)
    peers = [rig.peer(number) for number in (1, 2)]
    octets = bytearray(may_be_cut())
    octets[:6] = bytes.fromhex("01005e000001")
    rig.put(bytes(octets))
    for peer in peers:
        assert joined(peer.payloads(2), bytes(octets)) == octets


def test_datagrams_of_a_udp_super_frame_are_cut_one_by_one(make_rig: Make) -> None:
    rig = make_rig(vnet=12, wan_mtu=PATH, answer_too_big=True, offloads=("csum", "uso4", "uso6"))
    peer = rig.peer(1)
    octets = may_be_cut(size=200) + bytes(2800)
    octets = octets[:16] + (3028).to_bytes(2, "big") + octets[18:]
    rig.put(octets, header=struct.pack("=BBHHHH", 1, 5, 42, 1400, 34, 6))
    found = peer.payloads(5)
    assert max(map(len, found)) <= FITTING
    carried = [len(Ether(item)[IP].payload) for item in found]
    assert carried == [704, 704, 704, 704, 208]
    assert [Ether(item)[IP].id for item in found] == [77, 77, 78, 78, 79]


def test_frames_between_peers_are_cut_or_answered_to_the_peer_they_came_from(make_rig: Make) -> None:
    rig = make_rig(wan_mtu=PATH, answer_too_big=True)
    near, far = rig.peer(1), rig.peer(2)
    hello = bytes(Ether(src=B, dst=A, type=0x88B5) / Raw(bytes(60)))
    far.send(hello)
    assert rig.frames() == [hello]
    assert near.payloads() == [hello]
    octets = datagram("untagged", "IPv4")
    near.send(octets)
    (answered,) = near.payloads()
    assert answered == recomputed(answered)
    assert Ether(answered).src == B
    assert Ether(answered)[ICMP].nexthopmtu == FITTING - 14
    rig.dropped("transmit", "too_big")
    assert far.is_quiet()
    cut = may_be_cut()
    near.send(cut)
    assert joined(far.payloads(2), cut) == cut
    small = datagram("untagged", "IPv4", 900)
    near.send(small)
    assert far.payloads() == [small]
    assert rig.tap_is_quiet()


def test_large_frames_between_peers_that_flood_reach_tap_and_peers(make_rig: Make) -> None:
    rig = make_rig(wan_mtu=PATH, answer_too_big=True)
    near, far = rig.peer(1), rig.peer(2)
    cut, whole = may_be_cut(), datagram("untagged", "IPv4")
    near.send(cut, whole)
    assert rig.frames(2) == [cut, whole]
    *parts, last = far.payloads(3)
    assert joined(parts, cut) == cut
    assert last == whole
