"""Contract: `probe_path`, `use_path_mtu`. Probes leave whole or not at all, and frames fit what is known."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from scapy.layers.inet import ICMP, IP, TCP
from scapy.layers.inet6 import ICMPv6PacketTooBig
from scapy.layers.l2 import Ether

from bridged.dataplane.contract import OCC_OCTETS, OccReceived
from bridged.errors import DataplaneError
from bridged.protocol.keys.cipher import Cipher
from bridged.protocol.packets.framing import ADDED_MOST, Framing
from bridged.protocol.packets.occ import OCC_MAGIC
from bridged.units import PeerHandle
from tests.contract.dataplane_rig import Rig, frame
from tests.contract.large_frames import FITTING, PATH, datagram, joined, may_be_cut
from tests.contract.tcp_frames import A, B

Make = Callable[..., Rig]
PAYLOAD = (OCC_MAGIC + b"\2\1\x40").ljust(1518, b"\0")
REQUEST, REPLY, MTU_LOAD_REQUEST, MTU_LOAD = range(4)


@pytest.mark.parametrize("octets", [576, 1280, 1420, 1492])
def test_a_probe_is_as_much_of_the_payload_as_the_packet_holds(make_rig: Make, octets: int) -> None:
    rig = make_rig()
    peer = rig.peer(1)
    assert rig.plane.probe_path(peer.handle, PAYLOAD, octets) == octets
    (packet,) = peer.datagrams()
    assert len(packet) == octets - 28
    assert peer.open(packet).payload == PAYLOAD[: octets - 28 - 24]
    rig.put(frame(1, 2))
    assert peer.payloads() == [frame(1, 2)], "packet ids go on"


def test_a_short_payload_is_a_short_probe(make_rig: Make) -> None:
    rig = make_rig()
    peer = rig.peer(1)
    assert rig.plane.probe_path(peer.handle, PAYLOAD, 9000) == 28 + 24 + 1518
    assert peer.payloads() == [PAYLOAD]


@pytest.mark.parametrize("framing", ["none", "comp-lzo", "stub", "stub-v2"])
def test_framing_stands_around_it(make_rig: Make, framing: Framing) -> None:
    rig = make_rig()
    peer = rig.peer(1, framing=framing)
    sent = rig.plane.probe_path(peer.handle, PAYLOAD, 1420)
    assert 1420 - ADDED_MOST[framing] <= sent <= 1420
    (packet,) = peer.datagrams()
    assert len(packet) == sent - 28


def test_cbc_and_epoch_packets_are_no_larger_than_asked_for(make_rig: Make) -> None:
    rig = make_rig()
    cbc = rig.peer(1, Cipher.AES_256_CBC, digest="SHA256")
    epoch = rig.peer(2, is_epoch=True)
    for peer, least in ((cbc, 1420 - 16), (epoch, 1420)):
        sent = rig.plane.probe_path(peer.handle, PAYLOAD, 1420)
        assert least <= sent <= 1420
        (packet,) = peer.datagrams()
        assert len(packet) == sent - 28
        assert PAYLOAD.startswith(peer.open(packet).payload)


def test_what_the_link_here_does_not_take_is_neither_sent_nor_counted_as_a_loss(make_rig: Make) -> None:
    rig = make_rig()
    peer = rig.peer(1)
    payload = PAYLOAD.ljust(65_500, b"\0")
    assert rig.plane.probe_path(peer.handle, payload, 65_534) in (0, 65_534)
    while peer.is_quiet() is False:
        peer.datagrams()
    assert rig.drops("transmit", "emsgsize") == 0
    # The next ones may be cut again.
    rig.put(frame(1, 2, bytes(1500)))
    assert peer.payloads() == [frame(1, 2, bytes(1500))]


def test_without_a_key_and_with_fragment_nothing_is_sent(make_rig: Make) -> None:
    rig = make_rig()
    bare, cut = rig.peer(1, with_key=False), rig.peer(2, fragment=1300)
    for peer in (bare, cut):
        assert rig.plane.probe_path(peer.handle, PAYLOAD, 1420) == 1420
        assert peer.is_quiet()


def test_frames_fit_the_path_that_is_known_and_wan_mtu_after_it_is_forgotten(make_rig: Make) -> None:
    rig = make_rig(wan_mtu=9000, answer_too_big=True)
    peer, other = rig.peer(1), rig.peer(2)
    hello = frame(2, 1, bytes(60))
    peer.send(hello)
    assert rig.frames() == [hello]
    assert other.payloads() == [hello]
    for network, layer, value in (("IPv4", ICMP, "nexthopmtu"), ("IPv6", ICMPv6PacketTooBig, "mtu")):
        octets = datagram("untagged", network)
        rig.put(octets)
        assert peer.payloads() == [octets]
        rig.plane.use_path_mtu(peer.handle, PATH)
        rig.put(octets)
        answered = Ether(rig.frames()[0])
        assert getattr(answered[layer], value) == FITTING - 14
        cut = may_be_cut()
        rig.put(cut)
        assert joined(peer.payloads(2), cut) == cut
        rig.plane.use_path_mtu(peer.handle, 0)
    rig.put(octets)
    assert peer.payloads() == [octets]
    assert other.is_quiet()


def test_unknown_peers_are_refused(make_rig: Make) -> None:
    rig = make_rig()
    for call in (
        lambda: rig.plane.probe_path(PeerHandle(7), PAYLOAD, 1420),
        lambda: rig.plane.use_path_mtu(PeerHandle(7), 1420),
    ):
        with pytest.raises(DataplaneError) as caught:
            call()
        assert caught.value.code == "unknown_peer"


@pytest.mark.parametrize("kind", [MTU_LOAD_REQUEST, MTU_LOAD])
def test_long_probes_are_handed_up_shortened_and_never_reach_the_tap(make_rig: Make, kind: int) -> None:
    rig = make_rig()
    peer = rig.peer(1)
    payload = (OCC_MAGIC + bytes((kind, 1, 64))).ljust(1518, b"\0")
    peer.send(payload)
    assert rig.event(OccReceived) == OccReceived(
        peer.handle, payload[:OCC_OCTETS], left_out=1518 - OCC_OCTETS
    )
    assert rig.tap_is_quiet()
    peer.send((OCC_MAGIC + bytes((REPLY,))).ljust(1518, b"\0"))
    rig.dropped("receive", "occ_length")


def test_tcp_is_fitted_to_the_path_that_is_known(make_rig: Make) -> None:
    rig = make_rig(mss_limit=1366, wan_mtu=1492, answer_too_big=True, mss_fits_path=True)
    peer = rig.peer(1)
    ip = IP(src="10.0.0.1", dst="10.0.0.2")
    syn = bytes(Ether(src=A, dst=B) / ip / TCP(sport=1, dport=2, flags="S", options=[("MSS", 1460)]))

    def offered() -> int:
        rig.put(syn)
        return int(dict(Ether(peer.payloads()[0])[TCP].options)["MSS"])

    assert offered() == 1366
    rig.plane.use_path_mtu(peer.handle, 1300)
    # Portable leaves room for a VLAN tag: it does not look at each frame.
    assert offered() in (1300 - 28 - 24 - 54, 1300 - 28 - 24 - 58)
    rig.plane.use_path_mtu(peer.handle, 9000)
    assert offered() == 1366
