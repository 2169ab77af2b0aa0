"""A daemon that was killed gives back, after its next run, what the killed one had made and moved."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from socket import if_nametoindex

import pytest

from bridged.addresses import MacAddress
from bridged.link_planning.wishes import BridgeWish
from bridged.netlink import BridgeAttachment
from bridged.netlink.leftovers import undo_leftovers
from tests.lab.host_links import addresses, assert_same_host, cable, ip, link, members, photograph, within
from tests.lab.namespace import in_namespace

pytestmark = pytest.mark.root

WISH = BridgeWish("br0", ports=("eth1",), mtu=1400, fallback_mac=MacAddress.parse("02:00:5e:00:00:07"))
KILLED = """
import asyncio, os, pickle, signal, sys
from pathlib import Path
from bridged.addresses import MacAddress
from bridged.netlink import BridgeAttachment
from bridged.netlink.leftovers import undo_leftovers
from bridged.link_planning.wishes import BridgeWish
async def main():
    wish = pickle.loads(bytes.fromhex(sys.argv[2]))
    await BridgeAttachment(wish, journal=Path(sys.argv[1])).start()
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""


def run_and_be_killed(journal: Path, wish: BridgeWish = WISH) -> None:
    what = pickle.dumps(wish).hex()
    ended = subprocess.run([sys.executable, "-c", KILLED, str(journal), what], timeout=30, check=False)
    assert ended.returncode == -signal.SIGKILL


@pytest.mark.parametrize("adopted", [False, True])
@in_namespace
async def test_what_a_killed_daemon_left_is_given_back_by_the_next(tmp_path: Path, adopted: bool) -> None:
    cable("eth1")
    ip(
        "addr add 192.0.2.2/24 dev eth1",
        "addr add 2001:db8::2/64 dev eth1",
        "route add default via 192.0.2.1",
        "route add ::/0 via 2001:db8::1",
    )
    if adopted:
        ip("link add br0 type bridge ageing_time 7000")
    before = photograph()
    journal = tmp_path / "bridges" / "br0.json"
    run_and_be_killed(journal)
    assert addresses("br0") == {"192.0.2.2", "2001:db8::2"}
    assert journal.stat().st_mode & 0o777 == 0o600
    attachment = BridgeAttachment(WISH, journal=journal)
    await attachment.start()
    try:
        assert members("br0") == {"eth1"} and addresses("br0") == {"192.0.2.2", "2001:db8::2"}
        assert attachment.status().adopted == adopted
    finally:
        await attachment.stop()
    assert_same_host(photograph(), before)
    assert not journal.exists()


@in_namespace
async def test_a_bridge_deleted_in_the_meantime_is_made_again_with_its_addresses(tmp_path: Path) -> None:
    cable("eth1")
    ip("addr add 192.0.2.2/24 dev eth1")
    journal = tmp_path / "br0.json"
    run_and_be_killed(journal)
    ip("link del br0")
    attachment = BridgeAttachment(WISH, journal=journal)
    await attachment.start()
    await within(lambda: addresses("br0") == {"192.0.2.2"}, "back on the bridge")
    await attachment.stop()
    assert addresses("eth1") == {"192.0.2.2"} and link("br0") is None


@pytest.mark.parametrize(
    "damage",
    ["cut", "empty", "other boot", "other namespace", "wrong type", "nonsense", "not JSON", "directory"],
)
@in_namespace
async def test_a_record_that_cannot_be_used_is_passed_over(tmp_path: Path, damage: str) -> None:
    cable("eth1")
    journal = tmp_path / "br0.json"
    run_and_be_killed(journal)
    record = json.loads(journal.read_text())
    match damage:
        case "cut":
            journal.write_text(journal.read_text()[:100])
        case "other boot":
            record["where"][0] = "another"
            journal.write_text(json.dumps(record))
        case "empty":
            journal.write_text("")
        case "other namespace":
            record["where"][1] += 1
            journal.write_text(json.dumps(record))
        case "nonsense":
            record["ownership"]["added"] = [{"link": "br0", "address": "nowhere"}]
            journal.write_text(json.dumps(record))
        case "wrong type":
            record["ownership"]["bridge_index"] = "two"
            journal.write_text(json.dumps(record))
        case "not JSON":
            journal.write_bytes(os.urandom(64))
        case "directory":
            journal.unlink()
            journal.mkdir()
    events = []
    attachment = BridgeAttachment(replace(WISH, mtu=1300), journal=journal, report=events.append)
    await attachment.start()
    try:
        assert attachment.status().adopted and members("br0") == {"eth1"}
        said = [event for event in events if event.name == "bridge_journal_damaged"]
        # After a restart of the machine nothing of it is left: that is no damage.
        assert len(said) == (damage != "other boot")
        assert journal.with_name("br0.json.damaged").exists() == (damage != "other boot")
        assert all(str(journal) in event.details["reason"] for event in said)
    finally:
        await attachment.stop()
    assert link("br0") is not None


@pytest.mark.parametrize("leaves", ["the bridge", "a port", "an address", "a setting"])
@in_namespace
def test_what_left_the_configuration_after_a_crash_is_given_back_at_the_next_start(
    tmp_path: Path, leaves: str
) -> None:
    cable("eth1")
    cable("eth2")
    ip("addr add 192.0.2.2/24 dev eth1", "route add default via 192.0.2.1")
    before = photograph()
    wish = replace(WISH, ports=("eth1", "eth2"), addresses=("198.51.100.7/24",))
    run_and_be_killed(tmp_path / "br0.json", wish)
    assert members("br0") == {"eth1", "eth2"} and addresses("br0") == {"192.0.2.2", "198.51.100.7"}
    now = {
        "the bridge": {},
        "a port": {"br0": replace(wish, ports=("eth1",))},
        "an address": {"br0": replace(wish, addresses=())},
        "a setting": {"br0": replace(wish, mtu=None)},
    }[leaves]
    events = undo_leftovers(tmp_path, now)
    assert [event.name for event in events] == ["bridge_leftovers_given_back"]
    assert_same_host(photograph(), before)
    assert not list(tmp_path.iterdir()) and undo_leftovers(tmp_path, now) == []


@pytest.mark.parametrize("wish", ["the same", "more", None])
@in_namespace
def test_a_bridge_that_is_wished_as_before_loses_nothing_at_the_next_start(
    tmp_path: Path, wish: str | None
) -> None:
    cable("eth1")
    run_and_be_killed(tmp_path / "br0.json", WISH)
    index = if_nametoindex("br0")
    wishes = {"the same": WISH, "more": replace(WISH, ports=("eth1", "eth3")), None: None}
    assert undo_leftovers(tmp_path, {"br0": wishes[wish]}) == []
    assert members("br0") == {"eth1"} and if_nametoindex("br0") == index
