"""With any number of workers the order within a flow is kept, and peers are shared out among them."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml
from scapy.layers.inet import IP, UDP
from scapy.utils import rdpcap

from bridged.configuration.tunnel import Tunnel
from bridged.dataplane.contract import TapPort
from bridged.runtime.tunnels.adapter import TunnelAdapter
from tests.bench.order import measure
from tests.bench.tunnels import CARD_FEATURES
from tests.lab import WAN_PORT, Lab, TwoSites, bridged_pair, capture, wait_for
from tests.lab.namespace import Namespace
from tests.lab.waiting import PATIENCE
from tests.system.daemon_lab import stop_all

pytestmark = [pytest.mark.root, pytest.mark.native]
FRAMES = 300_000
FLOWS = 16
HASHED_FLOWS = 32
"""So many that some go to each of two queues, whatever the kernel hashes with."""
PORT = 7000
UDP_GRO = 104
DATA_OPCODES = (6, 9)


@pytest.mark.alone
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_no_numbered_frame_of_any_flow_overtakes_another(workers: int) -> None:
    """`make order` counts ten million; these are enough to find what goes wrong at once."""
    outcome = measure(workers, FRAMES, FLOWS, "native")
    assert outcome.total("received") >= FRAMES
    assert (outcome.total("backwards"), outcome.total("damaged")) == (0, 0), outcome.examples
    # Nothing is sent far ahead: what is lost would be lost for another reason than a full queue.
    assert outcome.total("lost") <= outcome.total("received") // 100, outcome.document()
    assert outcome.hub["offloads"]["udp_steering"] == (workers > 1)
    busy = {name for name, seconds in outcome.hub["thread_cpu"].items() if seconds > 0.01}
    # Three peers, so no more than three that receive.
    assert busy >= {f"wire-{number}" for number in range(min(workers, 3))}
    assert busy >= {f"tap-{number}" for number in range(workers)}


def test_without_the_choice_by_peer_id_frames_cross_and_log_and_counter_say_so() -> None:
    tunnel = {"dataplane": "native", "workers": 2}
    with Lab("nosteer") as lab:
        sites = TwoSites(lab)
        daemons = bridged_pair(
            sites.a, sites.b, server_tunnel=tunnel, client_tunnel=tunnel, refusals=("steering",)
        )
        sites.a.host.ping(sites.b.host.ipv4, count=5)
        server, client = daemons
        plane = server.tunnel()["dataplane"]
        assert plane["offloads"]["udp_steering"] is False
        assert plane["offload_fallbacks"] == {"udp_steering": {"einval": 1}}
        server.started.wait_for_output("SO_ATTACH_REUSEPORT_CBPF", 5.0)
        assert client.tunnel()["dataplane"]["offload_fallbacks"] == {}, "a client has one socket"
        stop_all(*daemons)


JOINED = 20


@pytest.fixture
def card() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two UDP sockets, the second behind an interface that joins datagrams as a card's driver does."""
    with Lab("joins") as lab, ExitStack() as undo:
        near, far = lab.namespace("near"), lab.namespace("far")
        lab.veth((near, "v0"), (far, "v0"))
        for number, space in enumerate((near, far), start=1):
            space.ip("addr", "add", f"10.9.1.{number}/24", "dev", "v0")
            space.run("ethtool", "-K", "v0", *CARD_FEATURES)
        # What it receives waits for a thread, and for more.
        far.run("sh", "-c", "echo 1 > /sys/class/net/v0/threaded")
        made = []
        for number, space in enumerate((near, far), start=1):
            with space.entered():
                made.append(undo.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)))
            made[-1].bind((f"10.9.1.{number}", PORT))
        made[0].connect(("10.9.1.2", PORT))
        made[1].setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
        made[1].settimeout(2 * PATIENCE)
        yield made[0], made[1]


def joined_pairs(near: socket.socket, far: socket.socket, hops: int) -> int:
    """Of 1000 long datagrams with this hop limit, each before a shorter one: how many came joined."""
    found = 0
    limit = [(socket.IPPROTO_IP, socket.IP_TTL, struct.pack("i", hops))]
    for _ in range(50):
        for _ in range(JOINED):
            near.sendmsg([b"c" * 1000], limit)
            near.send(b"d" * 500)
        octets = 0
        while octets < 1500 * JOINED:
            read = far.recv(65_536)
            octets += len(read)
            found += b"cd" in read
    return found


def test_the_kernel_joins_no_data_packet_to_a_control_packet_of_ours(
    card: tuple[socket.socket, socket.socket],
) -> None:
    """Ours have a hop limit of one less: native/worker/src/transport/udp/batch_sender.rs."""
    near, far = card
    own = near.getsockopt(socket.IPPROTO_IP, socket.IP_TTL)
    # A kernel that is interrupted after each packet joins none.
    rounds = next((number for number in range(1, 31) if joined_pairs(near, far, own) > 0), 0)
    assert rounds, "then there would be nothing to prevent"
    assert sum(joined_pairs(near, far, own - 1) for _ in range(rounds)) == 0


def test_control_packets_have_another_hop_limit_than_data() -> None:
    with Lab("hops") as lab:
        sites = TwoSites(lab)
        file = lab.directory / "wan.pcap"
        capture(sites.b.namespace, WAN_PORT, file, "udp")
        tunnel = {"dataplane": "native"}
        daemons = bridged_pair(sites.a, sites.b, server_tunnel=tunnel, client_tunnel=tunnel)
        sites.a.host.ping(sites.b.host.ipv4, count=5)
        stop_all(*daemons)

        def hops() -> dict[bool, set[int]]:
            seen: dict[bool, set[int]] = {True: set(), False: set()}
            for packet in rdpcap(str(file)):
                if UDP in packet and packet[UDP].payload:
                    seen[bytes(packet[UDP].payload)[0] >> 3 in DATA_OPCODES].add(packet[IP].ttl)
            return seen

        wait_for(lambda: all(hops().values()), "tcpdump to have written both kinds")
        assert hops() == {True: {64}, False: {63}}


@pytest.fixture
def adapter(inside: Namespace, tmp_path: Path) -> Iterator[tuple[TapPort, socket.socket]]:
    """A TAP of two queues as tunnels have it, up, and a socket of the kernel's behind it."""
    with ExitStack() as undo:
        tunnel = Tunnel.model_validate(yaml.safe_load(TUNNEL))
        made = TunnelAdapter("tq0", tunnel, tmp_path, (), queues=2)
        port = made.open()
        undo.callback(made.close)
        inside.run("ip", "addr", "add", "10.9.0.1/24", "dev", "tq0")
        inside.run("ip", "neigh", "add", "10.9.0.2", "lladdr", "02:00:00:00:00:02", "dev", "tq0")
        near = undo.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        near.bind(("10.9.0.1", PORT))
        near.settimeout(2 * PATIENCE)
        yield port, near


TUNNEL = """
role: client
bridge: br0
remotes: ["192.0.2.1:1194"]
tls: {ca: x, certificate: x, key: x}
tap: {offload: false}
"""


def queues_of(port: TapPort, near: socket.socket) -> dict[int, int]:
    """By far port: the queue on which the kernel gives that flow."""
    for far in range(HASHED_FLOWS):
        near.sendto(b"x", ("10.9.0.2", 9000 + far))
    found = {}
    for queue, descriptor in enumerate(port.fds):
        while True:
            try:
                frame = os.read(descriptor, 2000)
            except BlockingIOError:
                break
            if frame[12:14] == b"\x08\x00" and frame[23] == socket.IPPROTO_UDP:
                found[int.from_bytes(frame[36:38], "big") - 9000] = queue
    assert len(found) == HASHED_FLOWS
    return found


def answer(port: TapPort, near: socket.socket, write: Callable[[bytes], object]) -> None:
    """One datagram of each of the same flows, from the far end."""
    for far in range(HASHED_FLOWS):
        ip = struct.pack(
            ">BBHHHBBH4s4s", 0x45, 0, 29, 0, 0, 64, 17, 0, bytes((10, 9, 0, 2)), bytes((10, 9, 0, 1))
        )
        total = sum(struct.unpack(">10H", ip))
        total = (total & 0xFFFF) + (total >> 16)
        ip = ip[:10] + struct.pack(">H", 0xFFFF ^ total) + ip[12:]
        ethernet = port.mac.octets + bytes((2, 0, 0, 0, 0, 2)) + b"\x08\x00"
        write(ethernet + ip + struct.pack(">HHHH", 9000 + far, PORT, 9, 0) + b"y")
        assert near.recv(9) == b"y"


def test_what_is_written_to_the_tap_moves_no_flow_to_another_queue(
    adapter: tuple[TapPort, socket.socket],
) -> None:
    port, near = adapter
    writer = port.writer
    assert writer is not None and writer not in port.fds and len(port.fds) == 2
    before = queues_of(port, near)
    assert set(before.values()) == {0, 1}
    answer(port, near, lambda frame: os.write(writer, frame))
    assert queues_of(port, near) == before
    # Why there is such a queue: through one in service, every flow moves to that one.
    answer(port, near, lambda frame: os.write(port.fds[1], frame))
    assert set(queues_of(port, near).values()) == {1}
