"""Who gets which address of a pool, also after a restart; and names that are banned."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from bridged.configuration.access import AddressPool, Client
from bridged.files import write_atomic
from bridged.runtime.server import kept_lines
from bridged.runtime.server.address_book import AddressBook, FreeAddresses
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

    def again(self, path: Path) -> Counter:
        """As after a restart."""
        return Counter(path, **self.clients)

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


def test_what_an_owner_leaves_and_what_a_fixed_address_hides_is_given_again() -> None:
    counter = Counter(None)
    assert [counter.take(name) for name in ("a", "b", "c", "d")] == ["50", "51", "52", None]
    counter.book.release(PeerHandle(2))
    assert counter.take("d") == "51", "its owner is away"
    assert counter.take("b") is None
    counter.clients = {"e": Client(address=IPv4Address("10.0.0.52"))}
    counter.book.release(PeerHandle(3))
    assert counter.take("c") is None, "it is another's now"
    assert counter.take("e") == "52"
    counter.clients = {}
    counter.book.release(PeerHandle(counter.handle))
    assert counter.take("c") == "52"


NAMES = st.sampled_from([f"n{number}" for number in range(6)])
FIXED = {"n0": Client(address=IPv4Address("10.0.0.51")), "n1": Client(address=IPv4Address("10.0.0.9"))}


@examples(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["take", "release", "restart", "fixed"]), NAMES, st.booleans())))
def test_no_address_is_given_twice_and_none_is_withheld(steps: list[tuple[str, str, bool]]) -> None:
    pool = [IPv4Address(f"10.0.0.{number}") for number in (50, 51, 52)]
    with TemporaryDirectory() as folder:
        counter = Counter(Path(folder) / "main")
        held: dict[PeerHandle, tuple[str, str]] = {}
        had: dict[str, str] = {}
        for kind, name, flag in steps:
            reserved = {str(one.address).rpartition(".")[2] for one in counter.clients.values()}
            if kind == "take":
                others = {address for address, owner in held.values() if flag or owner != name}
                found = counter.take(name, shares_name=flag)
                own = counter.clients[name].address if name in counter.clients else None
                free = {str(one).rpartition(".")[2] for one in pool} - reserved
                busy = {address for address, _ in held.values()}
                if found is None:
                    assert free <= busy and (own is None or str(own).rpartition(".")[2] in others)
                    continue
                assert found not in others
                assert found in free or found == str(own).rpartition(".")[2]
                if own is None and had.get(name) in free - others:
                    assert found == had[name]
                # A second session of a name with a fixed address has another's, too.
                if own is None or found != str(own).rpartition(".")[2]:
                    had = {key: address for key, address in had.items() if address != found} | {name: found}
                held[PeerHandle(counter.handle)] = found, name
            elif kind == "release" and held:
                handle = next(iter(held))
                counter.book.release(handle)
                del held[handle]
            elif kind == "restart":
                counter, held = counter.again(Path(folder) / "main"), {}
            else:
                counter.clients = dict(FIXED) if flag else {}


def test_the_work_for_one_session_grows_neither_with_names_nor_with_the_pool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked, written = 0, 0
    offers, rewrite = FreeAddresses.offers, write_atomic

    def count(self: FreeAddresses, address: IPv4Address) -> bool:
        nonlocal looked
        looked += 1
        return offers(self, address)

    def write(path: Path, content: bytes, **options: Any) -> None:
        nonlocal written
        written += len(content)
        rewrite(path, content, **options)

    monkeypatch.setattr(FreeAddresses, "offers", count)
    monkeypatch.setattr(kept_lines, "write_atomic", write)
    names = 3_000
    pool = AddressPool(first=IPv4Address("10.0.0.1"), last=IPv4Address(f"10.0.{names // 250}.0"), prefix=16)
    book, clients = AddressBook(tmp_path / "main"), {}
    for number in range(names):
        assert book.take(PeerHandle(number), f"n{number}", pool, clients)
    assert looked < 3 * names
    size = (tmp_path / "main").stat().st_size
    assert (tmp_path / "main").read_text().count("\n") == names
    assert written < 8 * size
    for number in range(names):
        book.release(PeerHandle(number))
    looked = 0
    for number in range(names, names + 100):
        assert book.take(PeerHandle(number), f"n{number}", pool, clients)
        book.release(PeerHandle(number))
    assert looked < 600


def test_a_line_that_was_cut_off_costs_nobody_else_an_address(tmp_path: Path) -> None:
    path = tmp_path / "main"
    first = Counter(path)
    assert [first.take(name) for name in ("alice", "bob")] == ["50", "51"]
    path.write_bytes(path.read_bytes()[:-2])
    second = Counter(path)
    assert [second.take(name) for name in ("alice", "carol")] == ["50", "52"]
    third = Counter(path)
    assert [third.take(name) for name in ("carol", "alice")] == ["52", "50"]


def test_a_file_that_is_removed_is_written_whole_again(tmp_path: Path) -> None:
    path = tmp_path / "main"
    counter = Counter(path)
    counter.take("a")
    path.unlink()
    counter.take("b")
    assert path.read_text() == "10.0.0.50 a\n10.0.0.51 b\n"
    assert path.stat().st_mode & 0o777 == 0o600


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
