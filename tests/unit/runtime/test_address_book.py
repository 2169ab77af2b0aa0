"""Who gets which address of a pool, also after a restart; and names that are banned."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

from bridged.configuration.access import AddressPool, Client
from bridged.runtime.server.address_book import AddressBook
from bridged.runtime.server.bans import Bans
from bridged.runtime.server.client_rules import ClientRules
from bridged.runtime.tunnels.tunnel_plan import AdmissionPlan
from bridged.supervision import SUPERVISOR
from bridged.units import PeerHandle

POOL = AddressPool(first=IPv4Address("10.0.0.50"), last=IPv4Address("10.0.0.52"), prefix=24)


class Counter:
    """Opens sessions with the book, one after the other."""

    def __init__(self, path: Path | None, **clients: Client) -> None:
        self.book = AddressBook(path)
        self.clients = clients
        self.handle = 0

    def take(self, name: str, *, shares_name: bool = False) -> str | None:
        self.handle += 1
        found = self.book.take(PeerHandle(self.handle), name, POOL, self.clients, shares_name=shares_name)
        return None if found is None else str(found).rpartition(".")[2]


def test_a_name_keeps_its_address_also_after_a_restart(tmp_path: Path) -> None:
    first = Counter(tmp_path / "addresses" / "main")
    assert [first.take(name) for name in ("a", "b", "a")] == ["50", "51", "50"]
    second = Counter(tmp_path / "addresses" / "main")
    assert [second.take(name) for name in ("c", "b", "a")] == ["52", "51", "50"]
    assert second.take("d") is None, "all are in use"


def test_the_owner_who_left_longest_ago_loses_an_address(tmp_path: Path) -> None:
    counter = Counter(tmp_path / "main")
    for name in ("a", "b", "c"):
        counter.take(name)
        counter.book.release(PeerHandle(counter.handle))
    counter.take("a")
    counter.book.release(PeerHandle(counter.handle))
    assert counter.take("d") == "51"


def test_a_fixed_address_is_nobody_elses_and_may_lie_outside_of_the_pool() -> None:
    fixed = {"a": Client(address=IPv4Address("10.0.0.7")), "b": Client(address=IPv4Address("10.0.0.50"))}
    counter = Counter(None, **fixed)
    assert [counter.take(name) for name in ("c", "a", "b")] == ["51", "7", "50"]


def test_sessions_that_share_a_name_have_addresses_of_their_own() -> None:
    counter = Counter(None)
    assert [counter.take("a", shares_name=True) for _ in range(4)] == ["50", "51", "52", None]


@pytest.mark.parametrize("content", ["", "x\n", "10.0.0.50\n", "10.0.0.51 a\n10.0.0.51 b\n", "\0\xff"])
def test_a_damaged_file_costs_no_more_than_its_content(tmp_path: Path, content: str) -> None:
    (tmp_path / "main").write_text(content)
    assert Counter(tmp_path / "main").take("z") in ("50", "51")


def test_a_ban_ends_at_its_time_or_when_it_is_lifted(tmp_path: Path) -> None:
    bans, daemon = Bans(tmp_path / "bans"), Bans(tmp_path / "bans")
    daemon.refresh()
    assert daemon.until("a b", 100.0) is None
    bans.ban("a b", 200.0)
    bans.ban("c", 0.0)
    daemon.refresh()
    assert (daemon.until("a b", 100.0), daemon.until("a b", 201.0)) == (200.0, None)
    assert daemon.until("c", 1e12) == 0.0
    assert bans.lift("c") and not bans.lift("c")
    daemon.refresh()
    assert daemon.until("c", 0.0) is None and daemon.all(100.0) == {"a b": 200.0}
    with pytest.raises(ValueError, match="name"):
        bans.ban("a\n0 b", 0.0)


@pytest.mark.parametrize("spelling", ["ALICE", "alice", "Alice", "\uff21lice"])
def test_a_ban_holds_for_every_spelling_of_a_name(tmp_path: Path, spelling: str) -> None:
    bans = Bans(tmp_path / "bans")
    bans.ban("aLice", 0.0)
    assert bans.until(spelling, 100.0) == 0.0 and bans.until("alicia", 100.0) is None
    assert bans.all(0.0) == {"aLice": 0.0}
    bans.ban(spelling, 200.0)
    assert bans.all(0.0) == {spelling: 200.0}
    assert bans.lift("Alice") and bans.all(0.0) == {}


@pytest.mark.parametrize("until", ["inf", "nan", "-1", "1e300", "x", ""])
def test_a_ban_whose_time_is_damaged_lasts_for_ever_and_can_be_said(tmp_path: Path, until: str) -> None:
    (tmp_path / "bans").write_text(f"{until} alice\n200 bob\n")
    rules = rules_of(tmp_path)
    assert rules.objection("alice") == "banned by the operator"
    assert rules.objection("bob") is None, "it ended long ago"


def test_a_ban_that_cannot_be_written_does_not_count_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bans = Bans(tmp_path / "bans")
    bans.ban("bob", 0.0)
    full = OSError(28, "No space left on device")
    monkeypatch.setattr("bridged.runtime.server.bans.write_atomic", lambda *_, **__: raise_error(full))
    for change in (lambda: bans.ban("alice", 0.0), lambda: bans.lift("bob")):
        with pytest.raises(OSError, match="No space"):
            change()
    assert bans.all(0.0) == {"bob": 0.0} == Bans(tmp_path / "bans").all(0.0)


def test_a_list_that_cannot_be_read_is_not_written_over(tmp_path: Path) -> None:
    """It would lift all bans but the new one."""
    os.mkfifo(tmp_path / "bans")
    for change in (Bans(tmp_path / "bans").ban, lambda name, _: Bans(tmp_path / "bans").lift(name)):
        with pytest.raises(OSError, match="regular file"):
            change("alice", 0.0)
    assert (tmp_path / "bans").is_fifo()
    SUPERVISOR.forget("bans", str(tmp_path / "bans"))


def test_bans_of_two_processes_at_once_are_both_kept(tmp_path: Path) -> None:
    def ban(number: int) -> None:
        Bans(tmp_path / "bans").ban(f"name {number}", 0.0)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ban, range(40)))
    assert len(Bans(tmp_path / "bans").all(0.0)) == 40


def raise_error(error: OSError) -> NoReturn:
    raise error


def rules_of(folder: Path) -> ClientRules:
    admission = AdmissionPlan(bans=folder / "bans")
    sessions: Any = SimpleNamespace(plan=SimpleNamespace(name="t", admission=admission))
    rules = ClientRules(sessions)
    rules.refresh()
    return rules
