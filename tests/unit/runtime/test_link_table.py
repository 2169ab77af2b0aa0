"""The table of links: indexes agree with the links; a deadline costs nothing where nobody is due."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from bridged.addresses import Endpoint
from bridged.protocol.session.timers import Deadline
from bridged.runtime.tunnels.link_table import LinkTable


@dataclass
class Session:
    at: float | None = None
    asked: int = 0

    def poll_timeout(self) -> Deadline | None:
        self.asked += 1
        return None if self.at is None else Deadline(self.at, "test")


@dataclass
class Link:
    handle: int
    endpoint: Endpoint
    name: str = ""
    session: Session = field(default_factory=Session)


def endpoint(number: int) -> Endpoint:
    return Endpoint("192.0.2.1", number)


def table_of(*deadlines: float | None) -> tuple[LinkTable, list[Link]]:
    table = LinkTable()
    links = [Link(n, endpoint(n), f"peer-{n}", Session(at)) for n, at in enumerate(deadlines)]
    for link in links:
        table.add(link)
    return table, links


def test_links_that_are_due_come_earliest_first_and_the_others_stay() -> None:
    table, links = table_of(3.0, 1.0, 9.0, None, float("inf"), 2.0)
    assert table.next_deadline() == 1.0
    assert table.take_due(3.0) == [links[1], links[5], links[0]]
    assert table.next_deadline() == 9.0
    assert table.take_due(8.9) == []


def test_a_turn_serves_a_bounded_number_and_the_rest_is_still_due() -> None:
    table, links = table_of(*(1.0 for _ in range(10)))
    assert table.take_due(1.0, limit=4) == links[:4]
    assert table.next_deadline() == 1.0
    assert table.take_due(1.0, limit=100) == links[4:]


def test_a_link_that_was_served_is_due_again_at_its_new_deadline() -> None:
    table, [link] = table_of(1.0)
    table.take_due(1.0)
    assert table.next_deadline() == float("inf")
    for at in (5.0, 4.0, 4.0, 7.0):
        link.session.at = at
        table.schedule(link)
        assert table.next_deadline() == at
    table.discard(link)
    assert table.next_deadline() == float("inf") and table.take_due(100) == []
    table.schedule(link)
    assert table.next_deadline() == float("inf"), "a link that is gone is never due"


def test_a_wake_up_asks_the_due_session_alone_whatever_the_number_of_peers() -> None:
    table, links = table_of(*(100.0 + n for n in range(5000)))
    for link in links:
        link.session.asked = 0
    links[70].session.at = 5.0
    table.schedule(links[70])
    assert table.take_due(5.0) == [links[70]]
    assert sum(link.session.asked for link in links) == 1


def test_deadlines_that_move_all_day_leave_nothing_behind() -> None:
    table, links = table_of(*(1.0 for _ in range(50)))
    for step in range(20_000):
        link = links[step % 50]
        link.session.at = 1.0 + step
        table.schedule(link)
    assert len(table._heap) <= 64 + 2 * 50 + 1


def test_every_index_agrees_with_the_links_after_any_changes() -> None:
    draw = random.Random(5)
    table = LinkTable()
    known: dict[int, Link] = {}
    for step in range(5000):
        choice = draw.randrange(5)
        link = draw.choice(list(known.values())) if known else None
        if choice == 0 or link is None:
            link = Link(
                step, endpoint(draw.randrange(1, 9)), draw.choice(["", "a", "b"]), Session(draw.random())
            )
            table.add(link)
            known[link.handle] = link
        elif choice == 1:
            table.discard(link)
            del known[link.handle]
        elif choice == 2:
            table.move(link, endpoint(draw.randrange(1, 9)))
        elif choice == 3:
            table.rename(link, draw.choice(["a", "b", "c"]))
        else:
            link.session.at = draw.choice([None, draw.random()])
            table.schedule(link)
        assert list(table.values()) == list(known.values())
        for number in range(1, 9):
            expected = {other.handle for other in known.values() if other.endpoint == endpoint(number)}
            assert {other.handle for other in table.at(endpoint(number))} == expected
        for name in "abc":
            expected = {other.handle for other in known.values() if other.name == name}
            assert {other.handle for other in table.named(name)} == expected
        waiting = [other.session.at for other in known.values() if other.session.at is not None]
        assert table.next_deadline() == min(waiting, default=float("inf"))
    assert table.named("") == []
