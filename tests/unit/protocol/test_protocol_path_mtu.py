"""The search for a path's MTU, against paths that are simulated."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from itertools import pairwise

import pytest

from bridged.protocol.packets.occ import OccType, load_of, parse_occ
from bridged.protocol.packets.path_mtu import CONFIRM_SECONDS, PACE, RAISE_SECONDS, STEP, TRIES, PathMtu

LEAST, MOST = 576, 1570
ROUND_TRIP = 0.05


@dataclass
class Path:
    """Bears packets of `bears` bytes, the host's link `link`; `answers`: the peer knows mtu-load-request."""

    bears: int = 1500
    link: int = 9000
    answers: bool = True
    loses: float = 0.0
    overhead: int = 24
    sent: list[tuple[float, int]] = field(default_factory=list)
    waiting: list[tuple[float, int]] = field(default_factory=list)
    chance: random.Random = field(default_factory=lambda: random.Random(7))

    def run(self, search: PathMtu, until: float) -> None:
        while min(search.next_deadline(), self.waiting[0][0] if self.waiting else until) < until:
            if self.waiting and self.waiting[0][0] <= search.next_deadline():
                now, octets = self.waiting.pop(0)
                search.handle_answer(octets, now)
                continue
            now = search.next_deadline()
            while (probe := search.poll_probe(now)) is not None:
                if probe.octets > self.link:
                    search.note_sent(0, now)
                    continue
                self.sent.append((now, probe.octets))
                search.note_sent(probe.octets, now)
                message = parse_occ(probe.payload)
                answer = load_of(message, 1500)
                assert message.type is OccType.MTU_LOAD_REQUEST
                assert answer is not None
                if self.answers and probe.octets <= self.bears and self.chance.random() >= self.loses:
                    self.waiting.append((now + ROUND_TRIP, 17 + len(answer.body) + 24 - self.overhead))


@pytest.mark.parametrize("bears", [576, 600, 1280, 1333, 1420, 1492, 1500, 1569, 1570, 9000])
@pytest.mark.parametrize("link", [1500, 9000])
def test_the_result_is_just_below_the_truth_after_few_probes_at_a_bounded_rate(bears: int, link: int) -> None:
    path, search = Path(bears, link), PathMtu(LEAST, MOST, 0.0)
    path.run(search, 30.0)
    truth = min(bears, link, MOST)
    assert search.known is not None
    assert truth - STEP < search.known <= truth
    if truth in (1280, 1420, 1492, 1500, 1570):
        assert search.known == truth
    assert len(path.sent) <= 40
    times = [at for at, _ in path.sent]
    assert all(later - earlier >= PACE - 1e-9 for earlier, later in pairwise(times))


@pytest.mark.parametrize("overhead", [24, 41, 120, 150])
def test_the_size_of_an_answer_names_its_probe_whatever_the_peer_counts(overhead: int) -> None:
    path, search = Path(1420, overhead=overhead), PathMtu(LEAST, MOST, 0.0)
    path.run(search, 30.0)
    assert search.known == 1420


def test_lost_probes_do_not_lower_the_result() -> None:
    for seed in range(20):
        path, search = Path(1420, loses=0.1, chance=random.Random(seed)), PathMtu(LEAST, MOST, 0.0)
        path.run(search, 60.0)
        assert search.known is not None
        assert 1280 <= search.known <= 1420


def test_a_peer_that_does_not_answer_is_asked_seldom() -> None:
    path, search = Path(answers=False), PathMtu(LEAST, MOST, 0.0)
    path.run(search, RAISE_SECONDS)
    assert search.known is None
    assert len(path.sent) == TRIES
    path.answers = True
    path.run(search, RAISE_SECONDS + 40)
    assert search.known == 1500


def test_a_black_hole_is_found_by_confirming_and_a_wider_path_later() -> None:
    path, search = Path(1500), PathMtu(LEAST, MOST, 0.0)
    path.run(search, 30.0)
    assert search.known == 1500
    path.bears = 1400
    path.run(search, 30.0 + CONFIRM_SECONDS + 20)
    assert search.known == 1400
    path.bears = 9000
    path.run(search, 30.0 + CONFIRM_SECONDS + 20 + RAISE_SECONDS + CONFIRM_SECONDS + 10)
    assert search.known == MOST
    before = len(path.sent)
    path.run(search, 10_000.0)
    assert len(path.sent) - before <= 10_000 / CONFIRM_SECONDS


def test_after_a_restart_late_answers_of_the_old_path_count_for_nothing() -> None:
    path, search = Path(1500), PathMtu(LEAST, MOST, 0.0)
    path.run(search, 30.0)
    search.restart(30.0)
    assert search.known is None
    search.handle_answer(296, 30.1)
    path.bears = 1420
    path.run(search, 60.0)
    assert search.known == 1420


def test_a_withheld_probe_does_not_count() -> None:
    search, now = PathMtu(LEAST, MOST, 0.0), 0.0
    for _ in range(50):
        now = search.next_deadline()
        assert search.poll_probe(now) is not None
        search.note_withheld(now)
    path = Path(1420)
    path.run(search, now + 30)
    assert search.known == 1420


def test_answers_to_nothing_change_nothing() -> None:
    search = PathMtu(LEAST, MOST, 0.0)
    for octets in (0, 17, 296, 5000):
        search.handle_answer(octets, 0.1)
    path = Path(1280)
    path.run(search, 30.0)
    assert search.known == 1280
    for octets in range(700):
        search.handle_answer(octets, 31.0)
    assert search.known == 1280
