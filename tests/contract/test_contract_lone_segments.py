"""Contract: full-size TCP segments that come out of the TAP one by one, on a path that bears less.

`native` cuts what can be cut; `portable` keeps its hosts from making such segments (`mss_limit`), and sends
those that come nevertheless as they are. What is not plain TCP data, or was damaged before, no build changes.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from bridged.errors import DataplaneError
from bridged.protocol.packets.framing import Framing
from tests.contract.dataplane_rig import HandPeer, Rig, until
from tests.contract.tcp_frames import LINKS, NETWORKS, STAMPS, A, sums_are_good, super_frame, syn

Make = Callable[..., Rig]
PATH = 1000
FITTING = PATH - 28 - 24  # IPv4 and UDP, our header and tag
BLOCK = 16
WHOLE = FITTING - FITTING % BLOCK  # full segments leave no partial AES block
TEXT = bytes(at % 251 for at in range(1400))


def lone(link: str, network: str, *, flags: str = "PA", options: object = None) -> bytes:
    tcp = TCP(sport=1, dport=2, seq=0xFFFFFF00, flags=flags, options=STAMPS if options is None else options)
    return bytes(LINKS[link]() / NETWORKS[network]() / tcp / Raw(TEXT))


def fitted(rig: Rig) -> int:
    return rig.snapshot().counts["mtu_events"].get("mss_fitted", 0)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("vnet", [0, 12])
def test_a_lone_segment_is_cut_to_the_path_or_goes_as_it_is(
    make_rig: Make, build: str, link: str, network: str, vnet: int
) -> None:
    rig = make_rig(vnet=vnet, wan_mtu=PATH)
    peer = rig.peer(1)
    octets = lone(link, network)
    rig.put(octets)
    if build == "portable":
        assert peer.payloads() == [octets]
        return
    frames = peer.payloads(2)
    assert all(sums_are_good(item) and len(item) <= FITTING for item in frames)
    parsed = [Ether(item) for item in frames]
    assert b"".join(bytes(item[TCP].payload) for item in parsed) == TEXT
    first = len(parsed[0][TCP].payload)
    assert len(frames[0]) % BLOCK == 0 and 700 <= first < 700 + BLOCK, "halves, but for the last block"
    assert [item[TCP].seq for item in parsed] == [0xFFFFFF00, 0xFFFFFF00 + first - (1 << 32)]
    assert [str(item[TCP].flags) for item in parsed] == ["A", "PA"]
    assert {item[:12] for item in frames} == {octets[:12]}
    until(lambda: fitted(rig) == 1, "mss_fitted")


@pytest.mark.native
@pytest.mark.parametrize("build", ["native"], indirect=True)
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("flags", ["S", "SA"])
def test_a_syn_offers_what_one_packet_to_the_peer_bears_in_both_directions(
    make_rig: Make, link: str, network: str, flags: str
) -> None:
    rig = make_rig(wan_mtu=PATH, mss_fits_path=True)
    peer = rig.peer(1)
    offered = syn(network, link, 1460, flags)
    wanted = WHOLE - len(LINKS[link]()) - (20 if network == "IPv4" else 40) - 20
    rig.put(offered)
    assert peer.payloads() == [syn(network, link, wanted, flags)]
    back = Ether(offered)
    back.src, back.dst = "02:00:5e:00:00:03", A
    peer.send(bytes(back))
    clamped = Ether(rig.frames()[0])
    assert dict(clamped[TCP].options)["MSS"] == wanted
    assert sums_are_good(bytes(clamped))
    assert rig.snapshot().counts["mtu_events"]["mss_clamped"] == 2
    small = syn(network, link, 300, flags)
    rig.put(small)
    assert peer.payloads() == [small]


@pytest.mark.native
@pytest.mark.parametrize("build", ["native"], indirect=True)
@pytest.mark.parametrize(
    ("framing", "fragment", "around"), [("comp-lzo", 0, 1), ("none", 900, 4), ("comp-lzo", 900, 5)]
)
def test_what_stands_around_a_frame_counts_for_whole_blocks(
    make_rig: Make, framing: Framing, fragment: int, around: int
) -> None:
    rig = make_rig(wan_mtu=PATH, mss_fits_path=True)
    peer = rig.peer(1, framing=framing, fragment=fragment)
    rig.put(syn("IPv4", "untagged", 1460))
    payload = peer.payloads()[0]
    assert len(payload) == len(syn("IPv4", "untagged", 1460)) + around
    room = fragment - 24 if fragment else FITTING
    mss = dict(Ether(payload[around:])[TCP].options)["MSS"]
    assert mss == room - room % BLOCK - around - 14 - 40


def untouched() -> dict[str, bytes]:
    good = lone("untagged", "IPv4")
    wrong = bytearray(good)
    wrong[-1] ^= 1
    wrong_header = bytearray(good)
    wrong_header[24] ^= 1
    udp: Packet = Ether(good[:14]) / NETWORKS["IPv4"]() / UDP(sport=1, dport=2) / Raw(TEXT)
    may_be_fragmented = Ether(good)
    may_be_fragmented[IP].flags = 0
    del may_be_fragmented[IP].chksum
    part = Ether(good)
    part[IP].flags = "MF"
    del part[IP].chksum
    return {
        "wrong TCP checksum": bytes(wrong),
        "wrong IPv4 checksum": bytes(wrong_header),
        "SYN": lone("untagged", "IPv4", flags="S"),
        "URG": lone("untagged", "IPv4", flags="AU"),
        "signature": lone("untagged", "IPv4", options=[("NOP", None), ("NOP", None), (19, bytes(16))]),
        "UDP": bytes(udp),
        "no DF": bytes(may_be_fragmented),
        "fragment": bytes(part),
        "padded": good + bytes(4),
        "another EtherType": good[:12] + b"\x88\xb5" + good[14:],
    }


@pytest.mark.parametrize("name", untouched())
def test_what_may_not_be_cut_goes_as_it_is(make_rig: Make, name: str) -> None:
    rig = make_rig(vnet=12, wan_mtu=PATH)
    peer = rig.peer(1)
    octets = untouched()[name]
    rig.put(octets)
    assert peer.payloads() == [octets]
    assert fitted(rig) == 0


def test_a_segment_whose_checksum_is_left_to_us_is_cut_with_good_ones(make_rig: Make, build: str) -> None:
    rig = make_rig(vnet=12, wan_mtu=PATH, offloads=("csum",))
    peer = rig.peer(1)
    header, octets = _partial()
    rig.put(octets, header=header)
    frames = peer.payloads(2 if build == "native" else 1)
    assert all(sums_are_good(item) for item in frames)
    assert b"".join(bytes(Ether(item)[TCP].payload) for item in frames) == octets[-1400:]


def test_all_peers_get_the_segment_of_a_station_that_nobody_knows(make_rig: Make, build: str) -> None:
    rig = make_rig(vnet=12, wan_mtu=PATH)
    peers = [rig.peer(number) for number in (1, 2, 3)]
    rig.put(lone("untagged", "IPv6"))
    count = 2 if build == "native" else 1
    got = [_text_of(peer, count) for peer in peers]
    assert got == [TEXT] * 3


def _text_of(peer: HandPeer, count: int) -> bytes:
    return b"".join(bytes(Ether(item)[TCP].payload) for item in peer.payloads(count))


def _partial() -> tuple[bytes, bytes]:
    header, octets = super_frame("untagged", "IPv4", 1400, 1448)
    return header[:1] + b"\0" + header[2:4] + b"\0\0" + header[6:], octets


@pytest.mark.native
@pytest.mark.parametrize("build", ["native"], indirect=True)
def test_a_peer_is_fitted_to_the_wan_mtu_that_holds_when_it_comes(make_rig: Make) -> None:
    rig = make_rig(wan_mtu=PATH, mss_fits_path=True)
    rig.plane.use_sizes(PATH - 200, 0)
    peer = rig.peer(1)
    link = next(iter(LINKS))
    rig.put(syn("IPv4", link, 1460))
    less = FITTING - 200
    wanted = less - less % BLOCK - len(LINKS[link]()) - 40
    assert peer.payloads() == [syn("IPv4", link, wanted)]
    with pytest.raises(DataplaneError) as refused:
        rig.plane.use_sizes(100, 0)
    assert refused.value.code == "bad_setting"
