"""Whatever a LAN sends crosses the tunnel byte for byte, both ways, in all sizes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab import Host, Lab, TwoSites, bridged_pair
from tests.lab.frames import discovery_kit, missing_at
from tests.system.daemon_lab import stop_all

pytestmark = pytest.mark.root

SMALLEST, LARGEST, TAG = 60, 1514, 4


@pytest.fixture(scope="module")
def sites() -> Iterator[TwoSites]:
    with Lab("frames") as lab:
        made = TwoSites(lab)
        server, client = bridged_pair(made.a, made.b)
        made.a.host.ping(made.b.host.ipv4, count=2)
        yield made
        stop_all(client, server)


@pytest.mark.parametrize("direction", ["server to client", "client to server"])
def test_discovery_kit_crosses_octet_for_octet(sites: TwoSites, direction: str) -> None:
    sender, receiver = _ends(sites, direction)
    kit = discovery_kit(sender, receiver)
    assert {"lldp", "qinq", "vlan-with-priority", "router-advertisement", "ipx-802.3-raw"} <= kit.keys()
    assert missing_at(sender, receiver, kit) == {}


@pytest.mark.parametrize("direction", ["server to client", "client to server"])
@pytest.mark.parametrize("tag", ["", "802.1Q"])
def test_every_frame_size_crosses_octet_for_octet(sites: TwoSites, direction: str, tag: str) -> None:
    sender, receiver = _ends(sites, direction)
    addresses = bytes.fromhex((receiver.mac + sender.mac).replace(":", ""))
    head = addresses + (b"\x81\x00\x60\x2a" if tag else b"") + b"\x88\xb6"
    largest = LARGEST + (TAG if tag else 0)
    kit = {f"{size} bytes": _filled(head, size) for size in range(SMALLEST, largest + 1)}
    assert missing_at(sender, receiver, kit, seconds=6.0, gap_seconds=0.0003) == {}


def test_hundred_equal_frames_in_a_row_arrive_as_hundred(sites: TwoSites) -> None:
    sender, receiver = sites.a.host, sites.b.host
    addresses = bytes.fromhex((receiver.mac + sender.mac).replace(":", ""))
    kit = {f"{number}": addresses + b"\x88\xb6" + number.to_bytes(2, "big") * 500 for number in range(100)}
    assert missing_at(sender, receiver, kit, gap_seconds=0.0) == {}


def _ends(sites: TwoSites, direction: str) -> tuple[Host, Host]:
    ends = sites.a.host, sites.b.host
    return ends if direction == "server to client" else ends[::-1]


def _filled(head: bytes, size: int) -> bytes:
    return head + bytes((size + index) % 253 for index in range(size - len(head)))
