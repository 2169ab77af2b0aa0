"""Contract: `priority`, the DSCP of outer packets and the order in which frames that wait are sent."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether
from scapy.packet import Packet, Raw

from bridged.addresses import Endpoint
from bridged.dataplane import create_dataplane
from bridged.dataplane.contract import TapPort
from bridged.errors import DataplaneError
from bridged.protocol.role import Role
from tests.contract.dataplane_rig import HandPeer, Rig, enlarge, frame, until
from tests.contract.kernel_end import End
from tests.contract.tcp_frames import super_frame
from tests.lab import Lab, TwoSites
from tests.lab.frames import received_frames

Make = Callable[..., Rig]
A, B, C = "02:00:5e:00:00:01", "02:00:5e:00:00:02", "02:00:5e:00:00:03"
EF, CS1, AF41 = 46, 8, 34
DSCP_OF_PCP = (0, 8, 16, 24, 32, 46, 48, 56)
BULK, URGENT = 600, 5
SLOW = ("rate", "10mbit", "burst", "70k", "limit", "8m")


def v4(dscp: int, ecn: int = 0, text: bytes = b"") -> Packet:
    return IP(src="10.0.0.1", dst="10.0.0.2", tos=dscp << 2 | ecn) / UDP(sport=1, dport=2) / Raw(text)


def v6(dscp: int, ecn: int = 0) -> Packet:
    return IPv6(src="fd00::1", dst="fd00::2", tc=dscp << 2 | ecn, fl=0xFFFFF) / UDP(sport=1, dport=2)


def octets(*layers: Packet, to: str = B) -> bytes:
    made: Packet = Ether(src=A, dst=to)
    for layer in layers:
        made = made / layer
    return bytes(made).ljust(60, b"\0")


SAMPLES: dict[str, tuple[bytes, int, int]] = {
    # name: frame, DSCP outside with `dscp`, with `pcp`
    "IPv4": (octets(v4(EF, ecn=1)), EF, 0),
    "IPv6": (octets(v6(AF41, ecn=3)), AF41, 0),
    "IPv4 of DSCP 63": (octets(v4(63)), 63, 0),
    "IPv4 of DSCP 0": (octets(v4(0, ecn=3)), 0, 0),
    "tagged": (octets(Dot1Q(prio=6, vlan=4), v4(CS1)), CS1, 48),
    "tagged twice": (octets(Dot1AD(prio=1, vlan=4), Dot1Q(prio=7, vlan=5), v6(EF)), EF, 8),
    "priority tag": (octets(Dot1Q(prio=5, vlan=0), v4(0)), 0, 46),
    "ARP": (octets(ARP(pdst="10.0.0.2"), to="ff:ff:ff:ff:ff:ff"), 0, 0),
    "tagged ARP": (octets(Dot1Q(prio=3, vlan=1), ARP(pdst="10.0.0.2")), 0, 24),
    "GOOSE": (octets(Dot1Q(prio=4, vlan=0, type=0x88B8), Raw(bytes(80))), 0, 32),
    "not what it says": (octets(Raw(b"\x08\x00\xff\xff" + bytes(60)))[:12] + b"\x08\x00\xff" * 16, 0, 0),
    "cut short": (octets()[:12] + b"\x81\x00", 0, 0),
    "cut shorter": (octets()[:12] + b"\x08\x00", 0, 0),
} | {
    f"PCP {pcp}": (octets(Dot1Q(prio=pcp, dei=1, vlan=4095), v4(63 - pcp)), 63 - pcp, dscp)
    for pcp, dscp in enumerate(DSCP_OF_PCP)
}


def marked(peer: HandPeer, count: int) -> list[tuple[bytes, int]]:
    """The next frames at a peer, each with the TOS byte that it came with."""
    found: list[tuple[bytes, int]] = []

    def arrived() -> bool:
        try:
            data, ancillary, _, _ = peer.socket.recvmsg(65535, 64)
        except BlockingIOError:
            return False
        (tos,) = [
            value[0]
            for level, kind, value in ancillary
            if (level, kind) == (socket.IPPROTO_IP, socket.IP_TOS)
        ]
        found.append((peer.open(data).payload, tos))
        return len(found) == count

    until(arrived, f"{count} datagrams")
    return found


def tells_tos(peer: HandPeer) -> HandPeer:
    peer.socket.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
    return peer


@pytest.mark.parametrize("priority", ["off", "pcp", "dscp"])
@pytest.mark.parametrize("vnet", [0, 12])
def test_the_outer_dscp_is_that_of_the_frame_and_the_frame_stays_as_it_is(
    make_rig: Make, priority: str, vnet: int
) -> None:
    rig = make_rig(priority=priority, vnet=vnet)
    peer = tells_tos(rig.peer(1))
    for name, (item, dscp, pcp) in SAMPLES.items():
        rig.put(item)
        wanted = {"off": 0, "pcp": pcp, "dscp": dscp}[priority] << 2
        assert marked(peer, 1) == [(item, wanted)], name
    # And as a burst, where runs of one size have different marks.
    frames = [item for item, _, _ in SAMPLES.values()] * 10
    rig.put(*frames)
    expected = {item: (dscp if priority == "dscp" else pcp) << 2 for item, dscp, pcp in SAMPLES.values()}
    got = marked(peer, len(frames))
    assert sorted(item for item, _ in got) == sorted(frames)
    assert all(tos == (0 if priority == "off" else expected[item]) for item, tos in got)


@pytest.mark.parametrize("priority", ["off", "dscp"])
def test_all_segments_of_a_super_frame_have_its_dscp(make_rig: Make, priority: str) -> None:
    rig = make_rig(priority=priority, vnet=12, offloads=("csum", "tso4", "tso6"))
    peer = tells_tos(rig.peer(1))
    header, whole = super_frame("untagged", "IPv6", 20_000, 1448)
    whole = whole[:14] + bytes([0x60 | EF >> 2, (EF & 3) << 6 | whole[15] & 0x3F]) + whole[16:]
    rig.put(whole, header=header)
    assert {tos for _, tos in marked(peer, 14)} == {EF << 2 if priority == "dscp" else 0}


def test_pings_and_control_packets_have_no_mark(make_rig: Make) -> None:
    rig = make_rig(priority="dscp")
    peer = tells_tos(rig.peer(1))
    rig.put(octets(v4(EF)))
    assert marked(peer, 1)[0][1] == EF << 2
    rig.plane.send_payload(peer.handle, b"payload")
    assert marked(peer, 1) == [(b"payload", 0)]
    rig.plane.send_control(b"\x38control", peer.endpoint)
    until(lambda: peer.socket.recvmsg(100, 64, socket.MSG_PEEK), "the control packet")
    data, ancillary, _, _ = peer.socket.recvmsg(100, 64)
    assert (data, [value[0] for _, _, value in ancillary]) == (b"\x38control", [0])


def test_frames_between_peers_are_marked_as_well(make_rig: Make) -> None:
    rig = make_rig(priority="dscp")
    first, second = rig.peer(1), tells_tos(rig.peer(2))
    for dscp in (EF, 0, CS1):
        first.send(octets(v4(dscp)))
        assert marked(second, 1) == [(octets(v4(dscp)), dscp << 2)]


def waiting_in(rig: Rig, stack: ExitStack, frames: list[bytes]) -> TapPort:
    """An adapter whose queue holds frames already: more than the host's limit may allow but root."""
    far, near = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    stack.callback(far.close)
    stack.callback(near.close)
    for end in (far, near):
        end.setblocking(False)
        enlarge(end, 16 << 20)
    for item in frames:
        far.send(item)
    return replace(rig.settings.tap, fds=(near.fileno(),))


@pytest.mark.root
@pytest.mark.parametrize("priority", ["off", "pcp", "dscp"])
def test_urgent_frames_overtake_those_that_wait_and_each_kind_keeps_its_order(
    make_rig: Make, build: str, priority: str
) -> None:
    rig = make_rig(priority=priority)
    peer = rig.peer(1)
    bulk = [octets(v4(CS1 if at % 3 else 0, text=at.to_bytes(2, "big") * 600)) for at in range(BULK)]
    urgent = [octets(Dot1Q(prio=6, vlan=1), v4(EF, text=bytes([at]))) for at in range(URGENT)]
    with ExitStack() as stack:
        rig.plane.attach_tap(waiting_in(rig, stack, bulk + urgent))
        got = peer.payloads(BULK + URGENT)
    assert [item for item in got if item in bulk] == bulk
    assert [item for item in got if item in urgent] == urgent
    last = max(got.index(item) for item in urgent)
    if priority == "off":
        assert got == bulk + urgent
    elif build == "native":
        assert last < BULK / 2, "it reads far ahead"
    else:
        assert last < BULK, "it sorts what it reads in one turn"


@pytest.mark.root
def test_urgent_frames_without_end_let_others_through(make_rig: Make) -> None:
    rig = make_rig(priority="dscp")
    peer = rig.peer(1)
    calm = octets(v4(0))
    with ExitStack() as stack:
        urgent = octets(v4(EF))
        rig.plane.attach_tap(waiting_in(rig, stack, [urgent] * 200 + [calm] + [urgent] * 3000))
        assert peer.payloads(2500).index(calm) < 1800


@pytest.mark.parametrize("value", ["", "on", "PCP", "high"])
def test_another_priority_is_refused_with_what_there_is(rig: Rig, build: str, value: str) -> None:
    with pytest.raises(DataplaneError, match=r"priority: .* is not off, pcp or dscp") as caught:
        create_dataplane(build, replace(rig.settings, priority=value))  # type: ignore[arg-type]
    assert caught.value.code == "bad_setting"


@pytest.fixture
def sites() -> Iterator[TwoSites]:
    with Lab("dpprio") as lab:
        yield TwoSites(lab, bridges=False)


@pytest.mark.root
@pytest.mark.parametrize("priority", ["off", "dscp"])
@pytest.mark.parametrize("network", ["IPv4", "IPv6", "IPv4 from an IPv6 socket"])
def test_on_the_wan_the_ip_header_has_the_dscp_and_no_ecn(
    build: str, sites: TwoSites, network: str, priority: str
) -> None:
    bind = Endpoint("0.0.0.0" if network == "IPv4" else "::", 11940)
    remote = sites.b.wan_ipv6 if network == "IPv6" else sites.b.wan_ipv4
    end = End(build, sites.a.namespace, bind)
    with end.stack:
        end.start(priority=priority)
        end.join(Endpoint(remote, 11940), Role.SERVER)
        wan = End(build, sites.b.namespace, bind, stack=end.stack).capture("wan0")
        frames = [octets(v4(EF, ecn=2)), octets(v6(CS1, ecn=1)), frame(1, 2)]
        for item in frames:
            end.inject(item)
        seen: list[Packet] = []

        def arrived() -> bool:
            packets = [Ether(item) for item in received_frames(wan)]
            seen.extend(item for item in packets if UDP in item and item[UDP].dport == 11940)
            return len(seen) >= len(frames)

        until(arrived, "three datagrams")
        classes = [item[IPv6].tc if network == "IPv6" else item[IP].tos for item in seen]
        assert classes == ([EF << 2, CS1 << 2, 0] if priority == "dscp" else [0, 0, 0])


@pytest.mark.root
@pytest.mark.alone
def test_urgent_frames_overtake_what_a_slow_wan_keeps_waiting(build: str, sites: TwoSites) -> None:
    """More waits than the kernel's own queues hold: what is urgent has to pass it before it gets there."""
    sites.a.namespace.run("tc", "qdisc", "add", "dev", "wan0", "root", "tbf", *SLOW)
    first = End(build, sites.a.namespace, Endpoint(sites.a.wan_ipv4, 11940))
    second = End(build, sites.b.namespace, Endpoint(sites.b.wan_ipv4, 11940))
    with first.stack, second.stack:
        for end, far, role in ((first, sites.b, Role.SERVER), (second, sites.a, Role.CLIENT)):
            end.start(priority="dscp")
            end.join(Endpoint(far.wan_ipv4, 11940), role)
        arriving = second.capture()
        bulk = [octets(v4(0, text=at.to_bytes(2, "big") * 650)) for at in range(1500)]
        urgent = [octets(v4(EF, text=bytes([at]))) for at in range(URGENT)]
        first.inject(*bulk, *urgent)
        got: list[bytes] = []
        wanted = {*bulk, *urgent}

        def arrived() -> bool:
            got.extend(item for item in received_frames(arriving) if item in wanted)
            return len(got) == len(wanted)

        until(arrived, "all frames", 10)
        assert [item for item in got if item in bulk] == bulk
        assert [item for item in got if item in urgent] == urgent
        if build == "native":
            assert got.index(urgent[-1]) < len(bulk) / 2
