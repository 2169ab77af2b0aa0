"""Contract: real TAPs, real paths and the real kernel on both sides. In namespaces of the tests' own."""

from __future__ import annotations

import ipaddress
import select
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from bridged.addresses import Endpoint
from bridged.dataplane.contract import (
    ControlReceived,
    TapFailed,
)
from bridged.protocol.role import Role
from bridged.units import Octets
from bridged_tap import Offload
from tests.contract.dataplane_rig import BROADCAST, frame, station, until
from tests.contract.kernel_end import SUPER, End, port_of
from tests.contract.tcp_frames import segments
from tests.lab import Lab
from tests.lab.frames import open_capture, received_frames
from tests.lab.iperf import iperf3
from tests.lab.topology import Host, Site, TwoSites
from tests.lab.waiting import PATIENCE

pytestmark = pytest.mark.root


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab("dpkernel") as made:
        yield made


@pytest.fixture
def alone(build: str, lab: Lab) -> Iterator[End]:
    """One data plane on loopback of a namespace of its own, started."""
    end = End(build, lab.namespace("one"), Endpoint("127.0.0.1", 0))
    with end.stack:
        end.start()
        yield end


def awaited(sock: socket.socket, wanted: list[bytes], seconds: float = 5.0) -> list[bytes]:
    """Frames of `wanted` in the order in which they were captured, until all are there."""
    seen: list[bytes] = []
    deadline = time.monotonic() + seconds * PATIENCE
    while len(seen) < len(wanted) and time.monotonic() < deadline:
        select.select([sock], [], [], 0.1)
        seen += [item for item in received_frames(sock) if item in wanted]
    return seen


def test_a_tap_that_vanishes_is_told_once_and_another_one_goes_on(alone: End) -> None:
    hand = alone.join_hand()
    alone.inject(frame(1, 2))
    assert hand.payloads() == [frame(1, 2)]
    alone.space.ip("link", "del", "tap0")
    until(lambda: alone.plane.poll_events() == [TapFailed(number=77)], "TapFailed with EBADFD")
    for _ in range(5):
        hand.send(frame(2, 1))
    until(lambda: alone.plane.snapshot().drops.get(("receive", "tap_down")) == 5, "drops")
    assert alone.plane.poll_events() == []
    other = alone.open_tap("tap1")
    alone.plane.attach_tap(port_of(other))
    sock = alone.capture("tap1")
    hand.send(frame(2, 1, b"again"))
    assert awaited(sock, [frame(2, 1, b"again")]) == [frame(2, 1, b"again")]
    alone.inject(frame(1, 2), interface="tap1")
    assert hand.payloads() == [frame(1, 2)]


def test_a_tap_that_vanishes_unread_is_noticed_by_the_next_write_or_poll(alone: End) -> None:
    alone.join_hand()
    alone.space.ip("link", "del", "tap0")
    until(lambda: any(isinstance(event, TapFailed) for event in alone.plane.poll_events()), "TapFailed")


def test_frames_may_be_as_long_as_the_adapter_s_mtu_of_now_both_ways(alone: End) -> None:
    """A bridge sets it to the MTU of the LAN while it is in use."""
    hand = alone.join_hand()
    inward, outward = frame(2, 1).ljust(9014, b"\1"), frame(1, 2).ljust(9014, b"\2")
    sock = alone.capture()
    hand.send(inward)
    until(lambda: alone.plane.snapshot().drops.get(("receive", "long_frame")) == 1, "long_frame")
    alone.space.ip("link", "set", "tap0", "mtu", "9000")

    def came_in() -> bool:
        hand.send(inward)
        return awaited(sock, [inward], 0.2) == [inward]

    def went_out() -> bool:
        alone.inject(outward)
        return not hand.is_quiet(0.2)

    until(came_in, "a long frame from the peer")
    until(went_out, "a long frame from the LAN")
    assert hand.payloads() == [outward]


def test_a_tap_that_is_down_drops_and_goes_on_when_it_is_up(alone: End) -> None:
    hand = alone.join_hand()
    alone.space.ip("link", "set", "tap0", "down")
    hand.send(frame(2, 1))
    until(lambda: alone.plane.snapshot().drops.get(("receive", "tap_down")) == 1, "tap_down")
    assert alone.plane.poll_events() == []
    alone.space.ip("link", "set", "tap0", "up")
    sock = alone.capture()
    hand.send(frame(2, 1, b"up"))
    assert awaited(sock, [frame(2, 1, b"up")])


@pytest.mark.parametrize("network", ["IPv4", "IPv6"])
@pytest.mark.parametrize("port_offloads", ["on", "off"])
def test_what_is_joined_is_taken_apart_by_the_kernel_octet_for_octet(
    alone: End, lab: Lab, network: str, port_offloads: str
) -> None:
    """A LAN port without offloads sees the very segments that the peer sent."""
    host = lab.namespace("lan")
    lab.veth((host, "eth0"), (alone.space, "lan0"))
    alone.space.ip("link", "add", "br0", "type", "bridge", "forward_delay", "0")
    for port in ("lan0", "tap0"):
        alone.space.ip("link", "set", port, "master", "br0", "up")
    alone.space.ip("link", "set", "br0", "up")
    if port_offloads == "off":
        for feature in ("tso", "gso", "sg", "tx"):
            alone.space.run("ethtool", "-K", "lan0", feature, "off", check=False)
    hand = alone.join_hand()
    sock = alone.stack.enter_context(open_capture(Host(host, "", "", "")))
    frames = segments(network, 30, 1400, first_id=65530)
    hand.send_batch([hand.seal(item) for item in frames])
    if port_offloads == "off":
        assert awaited(sock, frames) == frames
        histogram = alone.plane.snapshot().histograms["frames_per_tap_write"]
        assert sum(histogram.counts) < 30
        return
    # With offloads the super-frame stays whole; its bytes are those of all segments together.
    whole: list[bytes] = []

    def arrived() -> bool:
        whole.extend(item for item in received_frames(sock) if item[:12] == frames[0][:12])
        return sum(len(item) - 66 for item in whole) >= 30 * 1400 - 30 * 20

    until(arrived, "all bytes of the segments")
    assert any(len(item) > 1500 for item in whole)
    assert len(whole) < 30


@pytest.mark.parametrize("sender", ["plain", "vnet", "super"])
@pytest.mark.parametrize("receiver", ["plain", "vnet"])
def test_tcp_and_udp_cross_between_any_two_kinds_of_tap(
    build: str, lab: Lab, sender: str, receiver: str
) -> None:
    """A plain receiver shows every wrong checksum that a super-frame sender would make."""
    sites = TwoSites(lab, wan_mtu=9000)
    with ExitStack() as stack:
        kinds = {"plain": (False, Offload.NONE), "vnet": (True, Offload.NONE), "super": (True, SUPER)}
        ends = [
            _joined(build, site, *kinds[kind], stack)
            for site, kind in ((sites.a, sender), (sites.b, receiver))
        ]
        for end, other, role in ((ends[0], sites.b, Role.SERVER), (ends[1], sites.a, Role.CLIENT)):
            end.join(Endpoint(other.wan_ipv4, 11940), role)
        until(lambda: sites.a.host.reaches(sites.b.host.ipv4), "the far host", 10)
        near, far = sites.a.host.namespace, sites.b.host.namespace
        for address in (sites.b.host.ipv4, sites.b.host.ipv6):
            for load in (("-n", "20M"), ("-u", "-l", "1400", "-b", "20M", "-t", "1")):
                iperf3(near, far, address, *load, seconds=40)
        for namespace in (near, far):
            counters = namespace.run(
                "nstat", "-asz", "TcpInCsumErrors", "UdpInCsumErrors", "Udp6InCsumErrors"
            )
            assert [line.split()[1] for line in counters.splitlines()[1:]] == ["0"] * 3, counters
        assert ends[0].plane.snapshot().offloads["tap_tso"] == (sender == "super")


def _joined(build: str, site: Site, vnet: bool, offloads: Offload, stack: ExitStack) -> End:
    end = End(build, site.namespace, Endpoint(site.wan_ipv4, 11940), vnet, offloads)
    stack.enter_context(end.stack)
    end.start()
    site.attach("tap0")
    return end


@pytest.fixture
def crossing(request: pytest.FixtureRequest, build: str, lab: Lab) -> Iterator[tuple[End, End, TwoSites]]:
    """Two ends over a WAN of 1500 bytes, not joined yet. A parameter: their `wan_mtu`."""
    sites = TwoSites(lab, wan_mtu=1500, bridges=False)
    with ExitStack() as stack:
        ends = [End(build, site.namespace, Endpoint(site.wan_ipv4, 11940)) for site in sites.sites]
        for end in ends:
            stack.enter_context(end.stack)
            end.start(wan_mtu=getattr(request, "param", 0))
        yield ends[0], ends[1], sites


@pytest.mark.parametrize("crossing", [0, 1400, 9000], indirect=True, ids="told {}".format)
def test_frames_larger_than_the_path_are_fragmented_not_dropped(crossing: tuple[End, End, TwoSites]) -> None:
    first, second, sites = crossing
    first.join(Endpoint(sites.b.wan_ipv4, 11940), Role.SERVER)
    second.join(Endpoint(sites.a.wan_ipv4, 11940), Role.CLIENT)
    frames = [frame(1, 2, bytes([number]) * 1500) for number in range(60)]
    sock = second.capture()
    first.inject(*frames)
    assert awaited(sock, frames) == frames
    snapshot = first.plane.snapshot()
    assert snapshot.drops == {}
    fallbacks = sum(count for (name, _), count in snapshot.offload_fallbacks.items() if name == "udp_gso")
    assert fallbacks <= 1, "the size that failed is remembered"
    small = [frame(1, 2, bytes([number]) * 1200) for number in range(60)]
    first.inject(*small)
    assert awaited(sock, small) == small


def test_runs_that_the_kernel_refuses_go_singly_and_in_order_after_one_try(build: str, lab: Lab) -> None:
    """Everything fits the configured MTU, but the route to the peers takes less."""
    space = lab.namespace("hub")
    space.ip("link", "set", "lo", "up")
    route = ("local", "127.0.0.1", "dev", "lo", "table", "local", "scope", "host")
    space.ip("route", "replace", *route, "proto", "kernel", "mtu", "lock", "1000")
    end = End(build, space, Endpoint("127.0.0.2", 11940))
    with end.stack:
        end.start(wan_mtu=9000)
        first, second = end.join_hand(1), end.join_hand(2)
        for hand in (first, second):
            hand.send(frame(10 + hand.number, BROADCAST))
        second.payloads()
        first.payloads()
        frames = [frame(11, 12, number.to_bytes(2, "big")).ljust(1400, b"x") for number in range(400)]
        packets = [first.seal(item) for item in frames]
        for start in range(0, len(packets), 40):
            first.send_batch(packets[start : start + 40])
        assert second.payloads(len(frames)) == frames
        snapshot = end.plane.snapshot()
        assert snapshot.drops == {}
        refusals = {
            cause: n for (name, cause), n in snapshot.offload_fallbacks.items() if name == "udp_gso" and n
        }
        assert sum(refusals.values()) == 1 and refusals.keys() <= {"emsgsize", "einval"}


@pytest.mark.parametrize("bind", ["0.0.0.0", "::"])
def test_an_answer_leaves_from_the_address_that_was_addressed(build: str, lab: Lab, bind: str) -> None:
    sites = TwoSites(lab, bridges=False)
    sites.a.namespace.ip("addr", "add", "203.0.113.200/24", "dev", "wan0")
    sites.a.namespace.ip("addr", "add", "2001:db8::200/64", "dev", "wan0", "nodad")
    end = End(build, sites.a.namespace, Endpoint(bind, 11940))
    with end.stack:
        end.start()
        for address in ["203.0.113.200"] + (["2001:db8::200"] if bind == "::" else []):
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            with sites.b.namespace.entered():
                far = end.stack.enter_context(socket.socket(family, socket.SOCK_DGRAM))
            far.settimeout(3 * PATIENCE)
            far.sendto(bytes([7 << 3]), (address, 11940))
            until(lambda: end.plane.snapshot().queues["control"][0] == 1, "the datagram")
            (event,) = end.plane.poll_events()
            assert isinstance(event, ControlReceived)
            end.plane.send_control(b"answer", event.source)
            assert far.recvfrom(100)[1][0] == address
            # The address goes away: better an answer from another one than none.
            sites.a.namespace.ip("addr", "del", f"{address}/{64 if ':' in address else 24}", "dev", "wan0")
            end.plane.send_control(b"still here", event.source)
            data, source = far.recvfrom(100)[:2]
            assert data == b"still here"
            assert source[0] != address


def test_frames_answer_from_the_address_that_was_addressed_too(build: str, lab: Lab) -> None:
    sites = TwoSites(lab, bridges=False)
    sites.a.namespace.ip("addr", "add", "203.0.113.200/24", "dev", "wan0")
    server = End(build, sites.a.namespace, Endpoint("0.0.0.0", 11940))
    client = End(build, sites.b.namespace, Endpoint(sites.b.wan_ipv4, 11940))
    with server.stack, client.stack:
        server.start()
        client.start()
        server.join(Endpoint(sites.b.wan_ipv4, 11940), Role.SERVER)
        client.join(Endpoint("203.0.113.200", 11940), Role.CLIENT)
        at_server, at_client = server.capture(), client.capture()
        client.inject(frame(1, 2))
        assert awaited(at_server, [frame(1, 2)])
        server.inject(frame(2, 1))
        assert awaited(at_client, [frame(2, 1)])
        assert client.plane.snapshot().peers[0].endpoint == Endpoint("203.0.113.200", 11940)
        assert client.plane.poll_events() == [], "no float: the answer came from where it was expected"


def test_datagrams_that_the_kernel_drops_for_want_of_room_are_counted(build: str, lab: Lab) -> None:
    end = End(build, lab.namespace("small"), Endpoint("127.0.0.1", 0))
    with end.stack:
        end.start(socket_buffer=Octets(4096))
        hand = end.join_hand()
        packets = [hand.seal(frame(2, station(number), bytes(1400))) for number in range(200)]

        def overflow() -> bool:
            for packet in packets:
                hand.send_raw(packet)
            return end.plane.snapshot().counts["kernel_drops"]["udp_receive_buffer"] > 0

        until(overflow, "an overflow", 10)


def test_an_ipv6_path_carries_frames_and_follows_a_float(build: str, lab: Lab) -> None:
    sites = TwoSites(lab, bridges=False)
    server = End(build, sites.a.namespace, Endpoint("::", 11940))
    client = End(build, sites.b.namespace, Endpoint("::", 11940))
    with server.stack, client.stack:
        server.start()
        client.start()
        server.join(Endpoint("2001:db8::9", 1), Role.SERVER)
        client.join(Endpoint(sites.a.wan_ipv6, 11940), Role.CLIENT)
        at_server, at_client = server.capture(), client.capture()
        client.inject(frame(1, 2))
        assert awaited(at_server, [frame(1, 2)])
        client_address = str(ipaddress.ip_address(sites.b.wan_ipv6))
        assert server.plane.snapshot().peers[0].endpoint == Endpoint(client_address, 11940)
        server.inject(frame(2, 1))
        assert awaited(at_client, [frame(2, 1)])
