"""TAP adapters on the real /dev/net/tun, in network namespaces of our own."""

from __future__ import annotations

import json
import os
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bridged_tap import (
    MacAddress,
    Offload,
    TapAdapter,
    TapError,
    adapter_info,
    address_owners,
    create_tap,
    delete_adapter,
    kernel_addresses,
    list_adapters,
    open_tap,
)
from bridged_tap import kernel as tap_kernel
from tests.lab.namespace import Namespace
from tests.lab.waiting import wait_for

pytestmark = pytest.mark.root

ETHERTYPE = b"\x88\xb5"
MAC = MacAddress.parse("02:00:5e:10:00:01")
SECONDS = 5.0
UDP_SEGMENT = 103
GSO_NONE = 0
GSO_UDP_L4 = 5


def ip_link(namespace: Namespace, name: str) -> dict[str, Any]:
    """What iproute2 says: an observer that shares nothing with the library."""
    return json.loads(namespace.run("ip", "-j", "-d", "link", "show", name))[0]


def has_link(namespace: Namespace, name: str) -> bool:
    return name in {link["ifname"] for link in json.loads(namespace.run("ip", "-j", "link", "show"))}


def read_where(tap: TapAdapter, wanted: Callable[[bytes], bool]) -> bytes:
    """The first frame for which `wanted(frame)` holds; namespaces are full of IPv6 chatter."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        ready, _, _ = select.select(tap.fds, [], [], deadline - time.monotonic())
        for queue in ready:
            frame = os.read(queue, 70000)
            if wanted(frame):
                return frame
    raise AssertionError("the frame did not come")


def refused(code: str, name: str, queues: int = 1, lock: bool = True) -> str:
    with pytest.raises(TapError) as caught:
        open_tap(name, queues=queues, lock=lock)
    assert caught.value.code == code
    return caught.value.message


def test_a_new_adapter_has_what_was_asked_for_and_goes_with_its_holder(inside: Namespace) -> None:
    with open_tap("tq0", mac=MAC, mtu=1600, txqueuelen=5000, owner=1234, group=2345) as tap:
        link = ip_link(inside, "tq0")
        assert not tap.adopted
        assert (tap.name, tap.mac, tap.mtu, tap.txqueuelen, tap.virtio_header_size) == (
            "tq0", MAC, 1600, 5000, 0,
        )  # fmt: skip
        assert link["ifindex"] == tap.ifindex
        assert (link["address"], link["mtu"], link["txqlen"]) == (str(MAC), 1600, 5000)
        data = link["linkinfo"]["info_data"]
        assert (data["type"], data["pi"], data["vnet_hdr"], data["persist"]) == ("tap", False, False, False)
        assert (str(data["user"]), str(data["group"])) == ("1234", "2345")
        assert "UP" not in link["flags"]
        tap.up()
        assert tap.is_up
        assert "UP" in ip_link(inside, "tq0")["flags"]
        tap.down()
        assert not tap.is_up
    assert not has_link(inside, "tq0")


def test_the_default_queue_holds_4000_frames(inside: Namespace) -> None:
    with open_tap("tq0"):
        assert ip_link(inside, "tq0")["txqlen"] == 4000


def test_the_kernel_numbers_a_pattern_and_all_queues_get_that_name(inside: Namespace) -> None:
    with open_tap("site%d") as first, open_tap("site%d", queues=3) as second:
        assert (first.name, second.name) == ("site0", "site1")
        assert len(second.fds) == 3
        assert first.is_locked and second.is_locked
        names = {tap_kernel.get_interface(queue)[0] for queue in second.fds}
        assert names == {"site1"}


def test_a_persistent_adapter_stays_and_is_adopted_with_its_values(inside: Namespace) -> None:
    with open_tap("keep", persistent=True, mac=MAC, mtu=1400) as tap:
        index = tap.ifindex
    assert has_link(inside, "keep")
    with open_tap("keep") as tap:
        assert tap.adopted
        assert (tap.ifindex, tap.mac, tap.mtu) == (index, MAC, 1400)
    assert has_link(inside, "keep")
    delete_adapter("keep")
    assert not has_link(inside, "keep")


def test_an_adapter_made_by_iproute2_is_adopted_single_and_multi_queue(inside: Namespace) -> None:
    inside.run("ip", "tuntap", "add", "dev", "one", "mode", "tap")
    inside.run("ip", "tuntap", "add", "dev", "many", "mode", "tap", "multi_queue")
    with open_tap("one") as one, open_tap("many") as many:
        assert one.adopted and many.adopted
    with open_tap("many", queues=4) as many:
        assert adapter_info("many").queues == 4
        assert len(set(many.fds)) == 4
    assert "single queue" in refused("tap_queues", "one", queues=2)


def test_a_tun_device_or_another_link_of_that_name_is_refused_by_its_kind(inside: Namespace) -> None:
    inside.run("ip", "tuntap", "add", "dev", "layer3", "mode", "tun")
    inside.run("ip", "link", "add", "bridge0", "type", "bridge")
    assert "TUN adapter" in refused("tap_not_a_tap", "layer3")
    assert "bridge" in refused("tap_not_a_tap", "bridge0")
    assert "TUN adapter" in refused("tap_not_a_tap", "layer3", lock=False)


def test_a_failed_opening_leaves_no_adapter_no_descriptor_and_no_lock(
    inside: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = len(os.listdir("/proc/self/fd"))
    # The real refusal of the real kernel: this MTU passes our check only because we let it.
    monkeypatch.setattr("bridged_tap.settings.MTU_MAXIMUM", 1 << 20)
    with pytest.raises(TapError) as caught:
        open_tap("half", persistent=True, mtu=1 << 19, queues=2)
    assert caught.value.code == "tap_io"
    assert not has_link(inside, "half")
    assert len(os.listdir("/proc/self/fd")) == before
    open_tap("half").close()


def test_create_refuses_a_name_in_use_and_delete_a_name_that_is_not_there(inside: Namespace) -> None:
    assert create_tap("made") == "made"
    for call, code in (
        (lambda: create_tap("made"), "tap_exists"),
        (lambda: delete_adapter("absent"), "tap_missing"),
        (lambda: delete_adapter("lo"), "tap_missing"),
        (lambda: adapter_info("absent"), "tap_missing"),
        (lambda: adapter_info("lo"), "tap_missing"),
    ):
        with pytest.raises(TapError) as caught:
            call()
        assert caught.value.code == code


def test_address_and_mtu_change_while_up_and_bad_ones_are_refused(inside: Namespace) -> None:
    with open_tap("tq0") as tap:
        tap.up()
        tap.set_mac(MAC)
        tap.set_mtu(9000)
        link = ip_link(inside, "tq0")
        assert (link["address"], link["mtu"]) == (str(MAC), 9000)
        with pytest.raises(TapError) as caught:
            tap.set_mac(MacAddress.parse("01:00:5e:00:00:01"))
        assert caught.value.code == "mac_address"
        with pytest.raises(TapError) as caught:
            tap.set_mtu(67)
        assert caught.value.code == "tap_settings"
        assert tap.mac == MAC


def test_frames_cross_the_bridge_byte_for_byte_both_ways(inside: Namespace) -> None:
    inside.run("ip", "link", "add", "br0", "type", "bridge")
    inside.run("ip", "link", "add", "lan", "type", "veth", "peer", "name", "host")
    with open_tap("tq0", mtu=1500) as tap:
        for name in ("lan", "tq0"):
            inside.run("ip", "link", "set", name, "master", "br0")
        for name in ("br0", "lan", "host", "tq0"):
            inside.run("ip", "link", "set", name, "up")
        assert adapter_info("tq0").master == "br0"
        for name in ("lan", "tq0"):
            show = ("bridge", "link", "show", "dev", name)
            wait_for(lambda show=show: "state forwarding" in inside.run(*show), f"{name} to forward")
        out = b"\xff" * 6 + MAC.octets + ETHERTYPE + os.urandom(1500)
        back = MAC.octets + bytes.fromhex("02aabbccddee") + ETHERTYPE + os.urandom(46)
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x88B5)) as host:
            host.bind(("host", 0x88B5))
            host.settimeout(SECONDS)
            assert tap.write(out) == len(out)
            assert host.recv(2000) == out
            host.send(back)
            assert read_where(tap, lambda frame: frame[12:14] == ETHERTYPE) == back


def test_the_virtio_header_precedes_each_frame_and_has_ten_octets(inside: Namespace) -> None:
    with open_tap("tq0", persistent=True, virtio_header=True) as tap:
        # What QEMU leaves behind; the next opening must not inherit it.
        tap.set_virtio_header_size(12)
    with open_tap("tq0", virtio_header=True) as tap:
        assert tap.virtio_header_size == 10
        assert ip_link(inside, "tq0")["linkinfo"]["info_data"]["vnet_hdr"] is True
        assert adapter_info("tq0").virtio_header
        tap.up()
        frame = b"\xff" * 6 + MAC.octets + ETHERTYPE + bytes(46)
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x88B5)) as wire:
            wire.bind(("tq0", 0x88B5))
            wire.settimeout(SECONDS)
            tap.write(bytes(10) + frame)
            assert wire.recv(2000) == frame
            wire.send(frame)
        seen = read_where(tap, lambda data: data[22:24] == ETHERTYPE)
        assert seen == bytes(10) + frame


def send_udp_burst(inside: Namespace, tap: TapAdapter) -> bytes:
    """Four datagrams of 1000 bytes in one sendmsg, through `tap`; the first frame that results."""
    inside.run("ip", "addr", "add", "192.0.2.1/24", "dev", tap.name)
    tap.up()
    inside.run("ip", "neigh", "replace", "192.0.2.2", "lladdr", "02:aa:bb:cc:dd:ee", "dev", tap.name)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 1000)
        sender.sendto(bytes(4000), ("192.0.2.2", 9))
    offset = tap.virtio_header_size
    return read_where(tap, lambda data: data[offset : offset + 6] == bytes.fromhex("02aabbccddee"))


def test_accepted_segmentation_offload_brings_one_super_frame(inside: Namespace) -> None:
    wanted = Offload.CSUM | Offload.TSO4 | Offload.TSO6 | Offload.TSO_ECN | Offload.USO4 | Offload.USO6
    with open_tap("tq0", virtio_header=True, offloads=wanted) as tap:
        assert tap.offloads | tap.refused_offloads == wanted
        assert Offload.USO4 in tap.offloads, "Linux 6.2 or later expected here"
        data = send_udp_burst(inside, tap)
        kind, _, size = struct.unpack_from("=xBHH", data)
        assert (kind & 0x7F, size) == (GSO_UDP_L4, 1000)
        assert len(data) == 10 + 14 + 20 + 8 + 4000


def test_without_offloads_the_kernel_segments_and_sums_by_itself(inside: Namespace) -> None:
    with open_tap("tq0", virtio_header=True, persistent=True, offloads=Offload.CSUM) as tap:
        assert tap.offloads == Offload.CSUM
    # Offloads stay with a persistent adapter; the next holder did not ask for them.
    with open_tap("tq0", virtio_header=True) as tap:
        data = send_udp_burst(inside, tap)
        flags, kind = struct.unpack_from("=BB", data)
        assert (flags & 1, kind) == (0, GSO_NONE)
        assert len(data) == 10 + 14 + 20 + 8 + 1000


def test_a_persistent_adapter_is_left_without_offloads(inside: Namespace) -> None:
    wanted = Offload.CSUM | Offload.TSO4 | Offload.TSO6
    with open_tap("tq0", virtio_header=True, persistent=True, offloads=wanted):
        assert "tx-tcp-segmentation: on" in inside.run("ethtool", "-k", "tq0")
    assert "tx-tcp-segmentation: off" in inside.run("ethtool", "-k", "tq0")
    delete_adapter("tq0")


def test_an_offload_the_kernel_refuses_is_dropped_alone_and_reported(inside: Namespace) -> None:
    wanted = Offload.CSUM | Offload.TSO4 | Offload.USO4
    with open_tap("tq0", virtio_header=True, offloads=wanted) as tap:
        # Linux takes USO4 only together with USO6.
        assert tap.offloads == Offload.CSUM | Offload.TSO4
        assert tap.refused_offloads == Offload.USO4
        features = inside.run("ethtool", "-k", "tq0")
        assert "tx-tcp-segmentation: on" in features
        assert "tx-tcp6-segmentation: off" in features
        tap.set_offloads(Offload.NONE)
        assert tap.offloads == tap.refused_offloads == Offload.NONE
        assert "tx-tcp-segmentation: off" in inside.run("ethtool", "-k", "tq0")


def test_queues_go_out_of_service_and_back(inside: Namespace) -> None:
    with open_tap("tq0", queues=2) as tap:
        tap.queues[1].disable()
        data = ip_link(inside, "tq0")["linkinfo"]["info_data"]
        assert (data["numqueues"], data["numdisabled"]) == (1, 1)
        tap.queues[1].enable()
        data = ip_link(inside, "tq0")["linkinfo"]["info_data"]
        assert (data["numqueues"], data["numdisabled"]) == (2, 0)


def test_reading_an_idle_adapter_does_not_block(inside: Namespace) -> None:
    inside.run("sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1")
    with open_tap("tq0") as tap:
        tap.up()
        assert tap.read_nowait() is None
        with pytest.raises(TimeoutError):
            tap.read(timeout=0.02)


def test_a_rename_is_followed_and_a_deletion_is_an_error_not_a_crash(inside: Namespace) -> None:
    with open_tap("old", persistent=True) as tap:
        inside.run("ip", "link", "set", "old", "name", "new")
        tap.set_mtu(1300)
        assert tap.name == "new"
        assert ip_link(inside, "new")["mtu"] == 1300
        inside.run("ip", "link", "delete", "new")
        with pytest.raises(TapError) as caught:
            _ = tap.mac
        assert caught.value.code == "tap_gone"
        with pytest.raises(TapError) as caught:
            tap.read()
        assert caught.value.code == "tap_gone"
    tap.close()
    with pytest.raises(TapError) as caught:
        tap.up()
    assert caught.value.code == "tap_closed"
    assert tap.fds == ()


def test_list_shows_both_kinds_and_of_this_namespace_alone(namespace: Namespace, other: Namespace) -> None:
    with other.entered():
        create_tap("elsewhere")
    with namespace.entered():
        namespace.run("ip", "tuntap", "add", "dev", "layer3", "mode", "tun")
        create_tap("idle", mac=MAC, mtu=1400, owner="1234")
        with open_tap("busy", queues=2) as tap:
            tap.up()
            layer3, idle, busy = list_adapters()
    assert (layer3.name, layer3.mode, layer3.mac) == ("layer3", "tun", None)
    assert (idle.mode, busy.mode) == ("tap", "tap")
    assert (idle.name, idle.mac, idle.mtu, idle.owner, idle.group) == ("idle", MAC, 1400, 1234, None)
    assert (idle.persistent, idle.multi_queue, idle.up, idle.carrier, idle.held) == (
        True, False, False, False, False,
    )  # fmt: skip
    assert (busy.name, busy.queues, busy.up, busy.carrier) == ("busy", 2, True, True)
    assert (busy.persistent, busy.multi_queue, busy.held) == (False, True, True)
    assert busy.holder_pid == os.getpid()


def test_a_thread_in_another_namespace_sees_its_own_and_an_adapter_stays_reachable_from_outside(
    namespace: Namespace,
) -> None:
    opened: list[TapAdapter] = []

    def work() -> None:
        with namespace.entered():
            opened.append(open_tap("inner"))
            assert [tap.name for tap in list_adapters()] == ["inner"]

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(timeout=SECONDS)
    (tap,) = opened
    with tap:
        assert "inner" not in {info.name for info in list_adapters()}
        tap.set_mtu(1234)
        assert ip_link(namespace, "inner")["mtu"] == 1234


def test_the_owner_attaches_without_root_and_a_stranger_is_told_why_not(inside: Namespace) -> None:
    create_tap("mine", owner=12345)
    code = (
        "import os, sys\n"
        "from bridged_tap import *\n"
        "os.setgid(int(sys.argv[1])); os.setuid(int(sys.argv[1]))\n"
        "try:\n"
        "    print(open_tap('mine').is_locked)\n"
        "except TapError as error:\n"
        "    print(error.code)\n"
    )
    # udev gives the device mode 0666; a machine without udev has 0600. The mount is private to the command.
    device = "mount -t tmpfs -o mode=755 none /dev/net && mknod -m 666 /dev/net/tun c 10 200"

    def attach_as(user: str) -> str:
        return inside.run("sh", "-ec", f'{device}; exec "$@"', "-", sys.executable, "-c", code, user).strip()

    assert attach_as("12345") == "True"
    assert attach_as("12346") == "tap_permission"


def test_kernel_addresses_cover_links_fdb_and_neighbours_but_not_the_adapter_itself(
    inside: Namespace,
) -> None:
    inside.run("ip", "link", "add", "br0", "type", "bridge")
    with open_tap("tq0", mac=MAC) as tap:
        inside.run("ip", "link", "set", "tq0", "master", "br0")
        inside.run("ip", "link", "set", "br0", "up")
        tap.up()
        inside.run("ip", "addr", "add", "192.0.2.1/24", "dev", "br0")
        inside.run("bridge", "fdb", "add", "02:00:00:00:00:0f", "dev", "tq0", "master", "static")
        inside.run("ip", "neigh", "add", "192.0.2.9", "lladdr", "02:00:00:00:00:04", "dev", "br0")
        inside.run("ip", "-6", "neigh", "add", "2001:db8::9", "lladdr", "02:00:00:00:00:06", "dev", "br0")
        # A learned address: a frame from that station came in through the TAP.
        tap.write(b"\xff" * 6 + bytes.fromhex("020000000011") + ETHERTYPE + bytes(46))
        expected = {MacAddress.parse(f"02:00:00:00:00:{last}") for last in ("0f", "04", "06", "11")}
        everybody = kernel_addresses()
        assert expected <= everybody
        assert MAC in everybody
        assert kernel_addresses(except_link="tq0") == everybody - {MAC}
        owners = address_owners(except_link="tq0")
        assert owners[MacAddress.parse("02:00:00:00:00:0f")] == "station on tq0"
        assert owners[MacAddress.parse("02:00:00:00:00:04")] == "neighbour 192.0.2.9 on br0"
        assert owners[MacAddress.parse("02:00:00:00:00:06")] == "neighbour 2001:db8::9 on br0"
        assert not any(mac.is_multicast for mac in owners)
        # Another station with our address is a conflict, whoever holds it.
        inside.run("ip", "link", "add", "twin", "address", str(MAC), "type", "bridge")
        assert address_owners(except_link="tq0")[MAC] == "link twin"


def test_the_example_script_answers_a_ping(inside: Namespace) -> None:
    script = Path(__file__).parents[2] / "tap/examples/hello.py"
    child = inside.start(sys.executable, "-u", str(script), "hello0")
    assert child.stdout is not None
    assert "hello0" in child.stdout.readline()
    inside.run("ip", "addr", "add", "192.0.2.1/24", "dev", "hello0")
    assert "1 received" in inside.run("ping", "-c", "1", "-W", "5", "192.0.2.77")
    child.terminate()
    assert child.wait(timeout=SECONDS) == 0
    assert not has_link(inside, "hello0")


def test_the_command_line_makes_shows_lists_and_deletes(inside: Namespace, tmp_path: Path) -> None:
    def bridged_tap(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "bridged.cli.tap", *arguments]
        return subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)

    state = ("--mac", "random", "--state", str(tmp_path))
    made = bridged_tap("create", "cli0", "--mtu", "1450", "--owner", "nobody", *state)
    assert (made.returncode, made.stdout, made.stderr) == (0, "cli0\n", "")
    link = ip_link(inside, "cli0")
    assert link["mtu"] == 1450
    assert link["linkinfo"]["info_data"]["persist"] is True
    shown = json.loads(bridged_tap("show", "cli0", "--json").stdout)
    assert (shown["mac"], shown["persistent"], shown["held"]) == (link["address"], True, False)
    assert [tap["name"] for tap in json.loads(bridged_tap("list", "--json").stdout)] == ["cli0"]
    assert "cli0" in bridged_tap("list").stdout
    assert (tmp_path / "mac/cli0").read_text() == f"{link['address']}\n"
    assert bridged_tap("create", "cli0").returncode == 1
    other = tmp_path / "other"
    assert bridged_tap("create", "cli0", "--mac", "random", "--state", str(other)).returncode == 1
    assert not other.exists()
    with open_tap("cli0"):
        busy = bridged_tap("delete", "cli0")
        assert busy.returncode == 1
        assert str(os.getpid()) in busy.stderr
        assert str(os.getpid()) in bridged_tap("show", "cli0").stdout
    assert bridged_tap("delete", "cli0").returncode == 0
    refused = bridged_tap("create", "cli1", "--mac", "random", "--state", "/proc")
    assert refused.returncode == 1 and "cannot be written" in refused.stderr
    assert [tap["name"] for tap in json.loads(bridged_tap("list", "--json").stdout)] == []
    assert not has_link(inside, "cli0")
    # The address was kept: the same adapter made again has the same one.
    assert bridged_tap("create", "cli0", *state).returncode == 0
    assert ip_link(inside, "cli0")["address"] == link["address"]
