"""Troubles that come while four watched daemons run: each is caused on entry and mended on exit.

`NOT_HERE` names the alerts that none of them can provoke, with the reason and the test that shows the rest.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.lab import Host, Namespace, wait_for
from tests.lab.frames import send_frames
from tests.lab.processes import Process
from tests.lab.reflector import reflecting
from tests.lab.topology import HOST_PORT, LAN_PORT
from tests.lab.wan_noise import open_halves
from tests.system.monitoring_daemons import (
    ATTACKED,
    CABLE_END,
    JUMBO_MTU,
    STATUS_FOLDER,
    TAKEN,
    THIEF,
    UNPLUGGED,
    UNWRAPPED,
    TroubledDaemons,
)
from tests.system.monitoring_lab import FDB_CAPACITY, RELAY, SITE_A, SITE_B, WatchedAlert

LAB = Path(__file__).parents[1] / "lab"
NOISE_SECONDS = 240
"""Noise ends before, with its trouble."""
HALVES = 150
STOPPED_SECONDS, RUNNING_SECONDS = 0.45, 0.25
WANDERERS = tuple(b"\x02\xaa\0\0\0" + bytes([number]) for number in range(10))


@dataclass(frozen=True, slots=True)
class Trouble:
    """`cause`: a context manager; the trouble lasts while it is entered."""

    alerts: frozenset[WatchedAlert]
    cause: Callable[[TroubledDaemons], AbstractContextManager[None]]


TROUBLES: Final[list[Trouble]] = []
"""In the order in which they come."""

NOT_HERE: Final = {
    "BridgedKeyExhausting": (
        "90 % of a key's packet ids are 3,900,000,000 packets, and the key is replaced long before",
        "tests/contract/test_contract_keys.py::test_a_received_packet_id_near_the_end_asks_for_a_new_key",
    ),
}
"""Alert -> why the troubles here cannot provoke it, and the test that shows what it stands on."""

SILENT_HERE: Final = {
    "bridged_peer_aead_used_ratio": (
        "two of our ends change keys by epochs; only keys of older peers wear out",
        "tests/contract/test_contract_keys.py::test_a_received_packet_id_near_the_end_asks_for_a_new_key",
    ),
}
"""Metric -> why it stays 0 here, and the test in which it does not."""

Course = Callable[[TroubledDaemons], Iterator[None]]
"""Causes a trouble, waits in its `yield`, and mends."""


def trouble(*alerts: WatchedAlert) -> Callable[[Course], Course]:
    """Puts a course among TROUBLES."""

    def put(cause: Course) -> Course:
        TROUBLES.append(Trouble(frozenset(alerts), contextmanager(cause)))
        return cause

    return put


@trouble(("BridgedAdmissionBusy", ATTACKED))
def half_open_calls(made: TroubledDaemons) -> Iterator[None]:
    """Very many clients return their cookie and say nothing more. They are forgotten after 10 s."""
    target = (made.sites.a.wan_ipv4, UNWRAPPED)
    assert made.sites.wan_namespace.call(lambda: open_halves(target, HALVES)) == HALVES
    made.wait_firing({("BridgedAdmissionBusy", ATTACKED)}, made.hour)
    yield


@trouble(
    ("BridgedForgedTraffic", ATTACKED),
    ("BridgedMalformedTraffic", ATTACKED),
    ("BridgedOverflow", ATTACKED),
    ("BridgedKernelOverflow", ATTACKED),
    ("BridgedControlLoopSlow", ATTACKED),
)
def an_attack_on_a_slow_machine(made: TroubledDaemons) -> Iterator[None]:
    """Strangers send faster than the server reads, which gets a third of its processor."""
    where = (made.sites.a.wan_ipv4, str(UNWRAPPED), str(NOISE_SECONDS))
    noise = made.sites.wan_namespace.popen("python3", str(LAB / "wan_noise.py"), *where, log="wan-noise")
    with interrupted(int(made.attacked.status()["pid"])), ending(noise):
        yield


@trouble(("BridgedReloadFailed", SITE_A), ("BridgedCrlRejected", SITE_A))
def a_rejected_reload(made: TroubledDaemons) -> Iterator[None]:
    """The new revocation list is no list."""
    crl = made.a.file.with_name("crl.pem")
    crl.write_text("no list\n")
    made.a.command("reload", "--config", str(made.a.file), check=False)
    assert made.a.status()["reload"]["outcome"] == "rejected"
    yield
    crl.write_text(made.profile.authority.revocation_list())


@trouble(("BridgedBridgeWrong", SITE_B))
def a_port_that_another_bridge_has(made: TroubledDaemons) -> Iterator[None]:
    made.sites.b.namespace.ip("link", "set", TAKEN, "master", THIEF)
    yield
    made.sites.b.namespace.ip("link", "set", TAKEN, "nomaster")


@trouble(("BridgedDutyUndone", SITE_B))
def a_folder_that_is_gone(made: TroubledDaemons) -> Iterator[None]:
    """The status file cannot be written."""
    folder = made.sites.b.namespace.directory / STATUS_FOLDER
    gone = folder.rename(folder.with_name("gone"))
    yield
    gone.rename(folder)


@trouble(("BridgedPeerFlapping", SITE_A))
def a_peer_sent_away_again_and_again(made: TroubledDaemons) -> Iterator[None]:
    def connections() -> int:
        (peer,) = (peer for peer in made.a.tunnel("ring")["peers"] if peer["name"] == "ring2")
        return int(peer["connections"])

    for number in range(connections() + 1, connections() + 7):
        made.a.command("kick", "ring2", "--config", str(made.a.file))
        wait_for(lambda wanted=number: connections() >= wanted, "the peer to be back", 20)
    yield


@trouble(("BridgedLinksRepaired", SITE_A))
def a_port_detached_again_and_again(made: TroubledDaemons) -> Iterator[None]:
    space = made.sites.a.namespace
    for _ in range(6):
        space.ip("link", "set", LAN_PORT, "nomaster")
        wait_for(lambda: "master br0" in space.ip("link", "show", LAN_PORT), "the port to be put back")
    yield


@trouble(("BridgedStationsFlapping", SITE_A))
def stations_on_both_sides(made: TroubledDaemons) -> Iterator[None]:
    """Before the table is full: who is in it may move."""
    names = {source.hex(":") for source in WANDERERS}
    with wandering(made.sites.b.host, made.sites.a.host):
        wait_for(lambda: names <= made.a.stations().keys(), "the stations to be known")
        yield


@trouble(("BridgedFramesReturn", SITE_A), ("BridgedMacConflict", SITE_A))
def frames_that_come_back(made: TroubledDaemons) -> Iterator[None]:
    with reflecting(made.sites.a.host, made.sites.b.host.mac):
        yield


@trouble(("BridgedFdbNearlyFull", SITE_A), ("BridgedFragments", SITE_A))
def unruly_hosts(made: TroubledDaemons) -> Iterator[None]:
    """Ever new stations at both sites, and frames of full size, which the WAN fragments."""
    near, far = made.sites.a.host, made.sites.b.host
    noises = [
        host.namespace.popen(
            "python3",
            *(str(LAB / "lan_noise.py"), HOST_PORT, host.mac, other.mac, str(size), str(NOISE_SECONDS)),
            log="lan-noise",
        )
        for host, other, size in ((near, far, 1514), (far, near, 1214))
    ]
    with ending(*noises):
        yield
    # The FDB's setting restarts the tunnel: an empty table.
    made.a.configuration["tunnels"]["lab"]["fdb_capacity"] = 4 * FDB_CAPACITY


@trouble(("BridgedInputOutputErrors", SITE_B))
def a_packet_filter_on_the_way_out(made: TroubledDaemons) -> Iterator[None]:
    """It refuses large packets to the main server."""
    nft = made.sites.b.namespace.run
    nft("nft", "add table ip troubled")
    nft("nft", "add chain ip troubled out { type filter hook output priority 0; }")
    nft("nft", f"add rule ip troubled out ip daddr {RELAY[0]} udp length > 1000 drop")
    yield
    nft("nft", "delete table ip troubled")


@trouble(("BridgedMtuTrouble", SITE_B))
def frames_larger_than_any_datagram(made: TroubledDaemons) -> Iterator[None]:
    large = b"\xff" * 6 + b"\x02\xbb\0\0\0\1" + b"\x88\xb6" + bytes(JUMBO_MTU)
    with sending(made.sites.b.namespace, "jumbo", large):
        yield


@trouble(("BridgedPolicyDrops", SITE_B))
def frames_from_a_group(made: TroubledDaemons) -> Iterator[None]:
    """This host itself sends them; those of a LAN are held back by the kernel's bridge."""
    from_a_group = b"\xff" * 6 + b"\x03\xbb\0\0\0\1" + b"\x88\xb6" + bytes(50)
    with sending(made.sites.b.namespace, "jumbo", *[from_a_group] * 30):
        yield


@trouble(("BridgedPacketLoss", SITE_A))
def a_lossy_line(made: TroubledDaemons) -> Iterator[None]:
    made.relay.change(loss=0.1, only="data")
    made.relay.rebind()
    host, far = made.sites.b.host.namespace, made.sites.a.host.ipv4
    with ending(host.popen("ping", "-f", "-i", "0.01", far, log="flood")):
        yield
    made.relay.change(loss=0.0)
    made.sites.b.namespace.ip("link", "set", CABLE_END, "up")
    made.sites.b.namespace.ip("link", "set", UNPLUGGED, "up")


@contextmanager
def sending(space: Namespace, interface: str, *frames: bytes) -> Iterator[None]:
    """Frames of this host, ten times a second."""
    over, host = threading.Event(), Host(space, "", "", "")

    def send() -> None:
        while not over.wait(0.1):
            send_frames(host, frames, interface=interface)

    with at_work(send, over):
        yield


@contextmanager
def ending(*processes: Process) -> Iterator[None]:
    try:
        yield
    finally:
        for process in processes:
            process.stop(signal.SIGKILL)


@contextmanager
def at_work(work: Callable[[], None], over: threading.Event) -> Iterator[None]:
    """`work` in a thread, until `over` is set at the end."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextmanager
def interrupted(pid: int) -> Iterator[None]:
    """Stop a process and let it go on, again and again."""
    over = threading.Event()

    def interrupt() -> None:
        while not over.wait(RUNNING_SECONDS):
            os.kill(pid, signal.SIGSTOP)
            over.wait(STOPPED_SECONDS)
            os.kill(pid, signal.SIGCONT)

    with at_work(interrupt, over):
        yield


@contextmanager
def wandering(*hosts: Host) -> Iterator[None]:
    """Stations that are heard at one host, then at the other."""
    over = threading.Event()
    frames = [b"\xff" * 6 + source + b"\x88\xb6" + bytes(50) for source in WANDERERS]

    def wander() -> None:
        # A station that a peer sent within a quarter of a second is not believed to have moved.
        while not over.wait(0.3):
            for host in hosts:
                send_frames(host, frames)
                over.wait(0.3)

    with at_work(wander, over):
        yield
