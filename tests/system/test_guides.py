"""The guides, followed command by command on two machines: two offices, rotated certificates, a backup."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial

import pytest

from tests.lab import wait_for
from tests.lab.containers import DOCKER_CAPABILITIES
from tests.lab.offices import Offices, joined_offices
from tests.lab.openvpn import COMPLETED
from tests.lab.pictures import FOLDER, is_of_this_kind, printed
from tests.lab.processes import Process
from tests.unit.documents.guides import guide

pytestmark = pytest.mark.root

CONTAINER = f"setpriv --inh-caps -all --bounding-set -all,+{',+'.join(DOCKER_CAPABILITIES)}"


def _says(daemon: Process, *words: str) -> bool:
    """One line of its log has all of them."""
    return any(all(word in line for word in words) for line in daemon.output().splitlines())


@pytest.fixture(scope="module")
def offices() -> Iterator[Offices]:
    with joined_offices() as both:
        yield both


def test_two_offices_are_joined_and_the_picture_shows_the_status(offices: Offices) -> None:
    picture = printed((FOLDER / "status.svg").read_text(encoding="utf-8"))
    status = partial(offices.machines["office-b"].run, "bridged status")
    shown = "a status as in the picture (python -m tests.lab.pictures draws it)"
    wait_for(lambda: is_of_this_kind(picture, status()), shown, 20, 1.0)


def test_the_commands_around_an_upgrade_work_beside_a_running_daemon(offices: Offices) -> None:
    before, after = (block for block in guide("install") if block.place == "office-a")
    assert offices.follow(before).startswith("OK\n")
    assert "warehouse" in offices.follow(after)


def test_the_page_about_slowness_names_what_exists(offices: Offices) -> None:
    first, counters, explain = (block for block in guide("slow") if block.kind == "sh")
    assert "data plane native" in offices.follow(first)
    assert "bridged_mtu_events_total" in offices.follow(counters)
    assert "tap_down" in offices.follow(explain)


def test_a_single_computer_joins_with_openvpn_and_is_locked_out(offices: Offices) -> None:
    """The page is about Windows; here it is OpenVPN on Linux, which takes the same file."""
    invite, revoke = guide("windows")
    offices.follow(invite)
    offices.copy("laptop.ovpn")
    machine = offices.machines["office-b"]
    client = machine.popen("openvpn --config laptop.ovpn --dev tap9", "laptop")
    client.wait_for_output(COMPLETED, 30)
    machine.run("ip addr add 10.99.0.77/24 dev tap9 && ip link set tap9 up")
    target = offices.sites.a.host.ipv4
    ping = f"ping -c1 -W1 -I tap9 {target}"
    wait_for(lambda: " 1 received" in machine.run(ping, check=False), "the LAN of office A", 20)
    offices.follow(revoke)
    wait_for(
        lambda: _says(offices.daemons["office-a"], "peer_disconnected", "laptop"), "the laptop's end", 20
    )
    client.stop()


def test_the_pages_about_other_places_have_commands_that_work(offices: Offices) -> None:
    (invite,) = (block for block in guide("over-wireguard") if block.kind == "sh")
    offices.follow(invite)
    assert "remote 100.64.0.1 1194" in offices.machines["office-a"].run("cat hut.ovpn")
    links = next(block for block in guide("raspberry-pi") if block.place == "office-b")
    assert "br0" in offices.follow(links)


def test_a_backup_brings_back_a_server_that_lost_everything_also_in_a_container(offices: Offices) -> None:
    """As docs/guides/docker.md starts it: Docker's capabilities, NET_ADMIN, and a read-only /proc/sys."""
    backup, restore = guide("backup")
    listed = offices.follow(backup)
    assert "etc/bridged/bridged.yaml" in listed and "var/lib/bridged/pki/ca.key" in listed
    machine = offices.machines["office-a"]
    assert offices.daemons["office-a"].stop() == 0
    machine.run("rm -r /etc/bridged /var/lib/bridged/*")
    assert offices.follow(restore).startswith("OK")
    machine.run("mount --bind /proc/sys /proc/sys && mount -o remount,ro,bind /proc/sys")
    run = f"{CONTAINER} bridged run --config /etc/bridged/bridged.yaml"
    offices.daemons["office-a"] = machine.popen(run, "restored")
    offices.wait_reach()


def test_a_certificate_is_rotated_and_a_lost_machine_locked_out(offices: Offices) -> None:
    replace, join, keys, revoke, refuse = guide("certificates")

    def rotate() -> None:
        offices.follow(replace)
        offices.copy("warehouse-new.ovpn")
        offices.follow(join)
        offices.wait_reach()

    rotate()
    assert re.search(r"^[0-9a-f]{32}\nmade \d{4}-", offices.follow(keys), re.MULTILINE)
    assert "refused" in offices.follow(refuse)
    unanswered = offices.daemons["office-b"].output().count("no_answer")
    offices.follow(revoke)
    host, other = offices.sites.b.host, offices.sites.a.host
    wait_for(lambda: not host.reaches(other.ipv4), "the revoked machine to be cut off", 30)
    # Its wrap key is refused as well: it gets no answer.
    offices.daemons["office-b"].wait_for_output("no_answer", 60, unanswered + 1)
    # For the other tests.
    offices.machines["office-a"].run("rm warehouse-new.ovpn *-v2.key")
    offices.machines["office-b"].run("rm new.yaml warehouse-new.ovpn; rm -r /var/lib/bridged/joined/*.old")
    rotate()
