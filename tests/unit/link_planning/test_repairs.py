from __future__ import annotations

from bridged.link_planning.actions import AddAddress, Attach, DeleteAddress, SetUp
from bridged.link_planning.links import HostAddress, HostLinks, Link
from bridged.link_planning.repairs import FORGIVEN_AFTER_SECONDS, FREE_REPAIRS, LONGEST_DELAY_SECONDS, Repairs

ATTACH = Attach("eth1", "br0")
HOST = HostLinks((Link("eth1", 3), Link("br0", 2)))


def test_what_is_done_for_the_first_time_is_no_repair() -> None:
    repairs = Repairs()
    assert not repairs.note([ATTACH], HOST, 0.0)
    assert repairs.note([ATTACH], HOST, 1.0) == {"attach": 1}
    assert repairs.counts == {"attach": 1}


def test_what_a_settled_link_needs_is_repair_though_we_never_did_it() -> None:
    repairs = Repairs()
    repairs.settle(HOST)
    assert repairs.note([SetUp("eth1", up=True)], HOST, 0.0) == {"up": 1}


def test_a_new_address_is_no_repair_and_the_other_half_of_a_move_is_not_counted() -> None:
    repairs = Repairs()
    repairs.settle(HOST)
    address = HostAddress("br0", "192.0.2.1/24")
    assert not repairs.note([AddAddress(address), DeleteAddress(address.on("eth1"))], HOST, 0.0)
    assert repairs.note([AddAddress(address)], HOST, 1.0) == {"address": 1}


def test_after_the_free_repairs_the_delay_doubles_up_to_its_limit() -> None:
    repairs = Repairs()
    repairs.note([ATTACH], HOST, 0.0)
    now, waits = 0.0, []
    for _ in range(FREE_REPAIRS + 12):
        assert not repairs.held_back(now)
        repairs.note([ATTACH], HOST, now)
        due = repairs.next_due(now)
        waits.append(0.0 if due is None else due - now)
        now = due or now
    assert waits[: FREE_REPAIRS + 3] == [0.0] * (FREE_REPAIRS - 1) + [0.5, 1.0, 2.0, 4.0]
    assert waits[-1] == LONGEST_DELAY_SECONDS


def test_after_a_quiet_time_all_is_forgiven() -> None:
    repairs = Repairs()
    for _ in range(FREE_REPAIRS + 2):
        repairs.note([ATTACH], HOST, 0.0)
    assert repairs.held_back(0.1) == {("attach", "eth1")}
    later = FORGIVEN_AFTER_SECONDS + 10
    repairs.note([ATTACH], HOST, later)
    assert not repairs.held_back(later)


def test_a_link_that_came_back_is_no_fight() -> None:
    repairs = Repairs()
    for index in range(3, 30):
        repairs.note([ATTACH], HostLinks((Link("eth1", index),)), 0.0)
    assert not repairs.held_back(0.0)
    assert repairs.counts == {"attach": 26}


def test_a_port_whose_bridge_came_back_is_no_fight() -> None:
    repairs = Repairs()
    for index in range(3, 30):
        repairs.note([ATTACH], HostLinks((Link("eth1", 2), Link("br0", index))), 0.0)
        repairs.note([ATTACH], HostLinks((Link("eth1", 2),)), 0.0)
    assert not repairs.held_back(0.0)
