"""What a host does to a bridge behind its back is found, said with its cure, and guarded against."""

from __future__ import annotations

import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from bridged.configuration import load
from bridged.errors import ConfigurationError, NetlinkError
from bridged.link_planning.wishes import BridgeWish
from bridged.netlink import BridgeAttachment
from bridged.netlink.netfilter import dropping_chains
from bridged.netlink.offloads import GRO, UDP_SEGMENTATION, link_offloads
from bridged.netlink.watch import LinkWatch
from bridged.runtime.site.bridge_lock import is_kept_by_another, lock_bridge
from bridged.runtime.site.host_warnings import host_warnings, refuse_own_servers
from bridged.runtime.site.site import Site
from bridged.runtime.watchers import host_watch
from bridged.runtime.watchers.host_hazards import wan_hazards, wan_links
from bridged.runtime.watchers.host_watch import HostWatch
from bridged_tap import TapError
from tests.lab.bridged_daemon import BRIDGED
from tests.lab.host_links import cable, ip, shell, within
from tests.lab.namespace import in_namespace
from tests.lab.odd_machine import odd_machine

pytestmark = pytest.mark.root

# The mounts go away with the mount namespace; $0 is the kind of container.
CONTAINER = (
    "exec unshare -m sh -ec 'mount -t tmpfs none /run; mkdir /run/systemd; "
    'echo "$0" >/run/systemd/container; mount -t tmpfs none /dev/net; exec "$@"\' "$0" "$@"'
)
SERVER = "{role: server, bridge: br0, listen: '192.0.2.1:1194', tls: {embedded: true}}"


def configuration(folder: Path, ports: str, tunnels: str = "") -> Path:
    path = folder / "site.yaml"
    path.write_text(f"bridges: {{br0: {{ports: [{ports}]}}}}\ntunnels: {{{tunnels}}}\n")
    return path


# --- the packet filter ----------------------------------------------------------------------------


@in_namespace
async def test_a_packet_filter_that_drops_bridged_packets_is_said_with_a_cure_that_works() -> None:
    shell("sysctl -qw net.bridge.bridge-nf-call-iptables=0 net.bridge.bridge-nf-call-ip6tables=0")
    ip("link add br0 type bridge", "link set br0 up")
    watch = HostWatch()
    watch.bridges = ("br0",)
    watch.look()
    assert "bridge_netfilter" not in watch.warnings
    shell("nft add table ip filter")
    shell("nft 'add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }'")
    watch.look()
    assert "bridge_netfilter" not in watch.warnings, "it sees nothing that is bridged"
    shell("sysctl -qw net.bridge.bridge-nf-call-iptables=1")
    watch.look()
    text = watch.warnings["bridge_netfilter"]
    assert "ip filter FORWARD" in text and "sysctl -w net.bridge.bridge-nf-call-iptables=0" in text
    # The cure as it is printed.
    shell("nft insert rule" + text.rpartition("nft insert rule")[2])
    watch.look()
    assert "bridge_netfilter" not in watch.warnings
    shell("nft flush chain ip filter FORWARD")
    watch.look()
    assert "bridge_netfilter" in watch.warnings
    shell("sysctl -qw net.bridge.bridge-nf-call-iptables=0")
    watch.look()
    assert "bridge_netfilter" not in watch.warnings


@pytest.mark.parametrize(
    ("family", "hook", "policy", "drops"),
    [
        ("ip", "forward", "drop", True),
        ("inet", "forward", "drop", True),
        ("ip6", "forward", "drop", False),
        ("ip", "forward", "accept", False),
        ("ip", "input", "drop", False),
        ("bridge", "forward", "drop", False),
    ],
)
@in_namespace
def test_chains_that_bridged_ipv4_packets_meet_are_told_from_others(
    family: str, hook: str, policy: str, drops: bool
) -> None:
    shell("sysctl -qw net.bridge.bridge-nf-call-iptables=1 net.bridge.bridge-nf-call-ip6tables=0")
    shell(f"nft add table {family} mine")
    shell(f"nft 'add chain {family} mine own {{ type filter hook {hook} priority 0; policy {policy}; }}'")
    found = [str(chain) for chain in dropping_chains(("br0",))]
    assert found == ([f"{family} mine own"] if drops else [])


# --- the machine ----------------------------------------------------------------------------------


@in_namespace
async def test_a_wan_link_without_its_offloads_is_said_until_the_printed_commands_have_run() -> None:
    cable("wan1")
    ip("addr add 192.0.2.1/24 dev wan1", "link add wan7 link wan1 type macvlan mode bridge")
    ip("link set wan7 up", "addr add 198.51.100.1/24 dev wan7", "route add default via 198.51.100.9")
    shell("ethtool -K wan1 gro on tx-udp-segmentation on")
    watch = HostWatch()
    destinations: list[str] = []
    watch.destinations = lambda: destinations

    def seen(*wanted: str) -> dict[str, str]:
        destinations[:] = wanted
        for _ in range(host_watch.WAN_ROUNDS):
            watch.look()
        return {kind: text for kind, text in watch.warnings.items() if kind.startswith("wan_")}

    assert seen("192.0.2.9", "0.0.0.0") == {}
    shell("ethtool -K wan1 gro off tx-udp-segmentation off")
    with capture_logs() as lines:
        seen("192.0.2.9")
    levels = {line["kind"]: line["log_level"] for line in lines if line["event"] == "host_hazard"}
    assert levels == {"wan_gro": "info", "wan_udp_segmentation": "info"}, "they cost speed only"
    # A neighbour, our own address, whatever the default route leads to (through the macvlan), and a far host.
    for wanted in ("192.0.2.9", "192.0.2.1", "0.0.0.0", "203.0.113.5"):
        assert set(seen(wanted)) == {"wan_gro", "wan_udp_segmentation"}, wanted
    assert wan_links(["127.0.0.1", "::", "vpn.example.net"]) == []
    assert seen("vpn.example.net"), "what is known stays while nobody is connected"
    for text in seen("0.0.0.0").values():
        shell(text.partition("Turn it on: ")[2])
    assert seen("0.0.0.0") == {}


@in_namespace
def test_an_offload_that_the_driver_cannot_turn_on_is_not_missed() -> None:
    ip("tuntap add bare mode tap", "addr add 192.0.2.1/24 dev bare", "link set bare up")
    # Without a program that takes super-frames: "off [requested on]".
    assert not link_offloads("bare")[UDP_SEGMENTATION].is_on
    assert wan_links(["192.0.2.1"]) == ["bare"] and wan_hazards(["bare"]) == {}
    shell("ethtool -K bare gro off")
    assert set(wan_hazards(["bare"])) == {"wan_gro"} and not link_offloads("bare")[GRO].is_on
    with pytest.raises(OSError, match="No such device"):
        link_offloads("none")


@in_namespace
def test_check_says_what_is_wrong_with_the_host(tmp_path: Path) -> None:
    cable("wan1")
    ip("addr add 192.0.2.1/24 dev wan1")
    shell("ethtool -K wan1 gro off")
    path = configuration(tmp_path, "", f"main: {SERVER}")
    environment = odd_machine(tmp_path, release="7.0.3", today=datetime(2020, 2, 2, tzinfo=UTC))
    done = subprocess.run(
        ["sh", "-c", CONTAINER, "docker", BRIDGED, "check", str(path)],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("this host: ")]
    wanted = (
        "warning: kernel 7.0.3 may damage packets",
        "warning: the clock shows 2020-02-02",
        "docker run --device",
        "note: wan1 carries tunnels with GRO off",
    )
    assert len(said) == len(wanted)
    for part in wanted:
        assert any(part in line for line in said), part


# --- ports ----------------------------------------------------------------------------------------


@in_namespace
def test_a_missing_port_is_called_missing_with_the_name_that_was_probably_meant(tmp_path: Path) -> None:
    cable("eth1")
    found = dict(host_warnings(load(configuration(tmp_path, "eth1, eth01"))))
    assert list(found) == [("bridges", "br0", "ports", 1)]
    text = found["bridges", "br0", "ports", 1]
    assert "eth01 is missing" in text and "did you mean eth1?" in text


@in_namespace
async def test_a_port_that_goes_and_comes_is_told_once_each() -> None:
    cable("eth1")
    events = []
    attachment = BridgeAttachment(BridgeWish("br0", ports=("eth1", "eth9")), report=events.append)
    await attachment.start()
    try:
        assert attachment.status().missing == ("eth9",)
        ip("link del eth1")
        await within(lambda: attachment.status().missing == ("eth1", "eth9"), "missing")
        cable("eth1")
        await within(lambda: attachment.status().ports["eth1"], "back in the bridge")
    finally:
        await attachment.stop()
    told = [(event.name, event.details["port"]) for event in events if event.name.startswith("bridge_port")]
    assert told == [("bridge_port_missing", "eth1"), ("bridge_port_found", "eth1")]


@pytest.mark.parametrize(
    ("commands", "said"),
    [
        (("link add mv0 link eth1 type macvlan mode bridge",), "the macvlan mv0"),
        (("link add br7 type bridge", "link set eth1 master br7"), "it is a port of bridge br7"),
    ],
)
@in_namespace
async def test_a_port_that_cannot_join_says_what_holds_it(
    tmp_path: Path, commands: tuple[str, ...], said: str
) -> None:
    cable("eth1")
    ip(*commands)
    found = dict(host_warnings(load(configuration(tmp_path, "eth1"))))
    assert said in found["bridges", "br0", "ports", 0]
    with pytest.raises((NetlinkError, ConfigurationError), match=said.rsplit(maxsplit=1)[-1]):
        await BridgeAttachment(BridgeWish("br0", ports=("eth1",))).start()


@in_namespace
def test_a_port_with_larger_frames_than_the_tunnel_is_told(tmp_path: Path) -> None:
    cable("eth1")
    ip("link set eth1 mtu 9000")
    found = dict(host_warnings(load(configuration(tmp_path, "eth1", f"main: {SERVER}"))))
    assert "1500" in found["tunnels", "main", "mtu"]


# --- two of a kind --------------------------------------------------------------------------------


@in_namespace
def test_one_bridge_has_one_daemon_and_the_other_one_is_named() -> None:
    assert not is_kept_by_another("br0")
    lock = lock_bridge("br0")
    with pytest.raises(ConfigurationError, match=rf"br0 is kept by process {os.getpid()}"):
        lock_bridge("br0")
    lock_bridge("br1").release()
    lock.release()
    lock_bridge("br0").release()


@in_namespace
async def test_a_bridge_that_cannot_be_made_stays_free_for_another_daemon(tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    path.write_text(f"state_directory: {tmp_path}/state\nbridges: {{}}\ntunnels: {{}}\n")
    site = Site(LinkWatch(), tmp_path)
    await site.become(load(path), {})
    (tmp_path / "state" / "mac").mkdir(parents=True)
    (tmp_path / "state" / "mac" / "br0").mkdir()
    path.write_text(f"state_directory: {tmp_path}/state\nbridges: {{br0: {{}}}}\ntunnels: {{}}\n")
    with pytest.raises(TapError) as caught:
        await site.become(load(path), {})
    assert caught.value.code == "mac_state" and not site.bridges
    lock_bridge("br0").release()
    await site.stop()


@in_namespace
def test_a_client_of_a_server_on_the_same_bridge_of_this_host_is_refused(tmp_path: Path) -> None:
    client = (
        "away: {role: client, bridge: BRIDGE, remotes: ['REMOTE'], tls: {ca: /c, certificate: /c, key: /k}}"
    )
    everywhere = SERVER.replace("192.0.2.1", "0.0.0.0")

    def refused(bridge: str, remote: str) -> bool:
        away = client.replace("BRIDGE", bridge).replace("REMOTE", remote)
        path = configuration(tmp_path, "", f"main: {everywhere}, {away}")
        path.write_text(path.read_text().replace("bridges: {", "bridges: {br1: {}, "))
        try:
            refuse_own_servers(load(path))
        except ConfigurationError as error:
            assert "tunnel main" in str(error)
            return True
        return False

    cable("eth1")
    ip("addr add 192.0.2.5/24 dev eth1")
    assert refused("br0", "127.0.0.1:1194") and refused("br0", "192.0.2.5:1194")
    assert not refused("br0", "192.0.2.6:1194") and not refused("br0", "192.0.2.5:1195")
    assert not refused("br1", "192.0.2.5:1194"), "two bridges may be joined"
