"""An endpoint that has not answered gets at most three times what it sent."""

from __future__ import annotations

from typing import Any

from bridged.addresses import Endpoint
from bridged.protocol.session.events import SendDatagram
from bridged.runtime.tunnels.allowance import AMPLIFICATION, LEAST_DATA_PACKET, AmplificationLimit
from bridged.runtime.tunnels.link import PeerLink, Withheld
from bridged.runtime.tunnels.log_budget import LogBudget
from bridged.units import MonotonicSeconds, PeerHandle

HOME = Endpoint("192.0.2.1", 1194)
VICTIM = Endpoint("198.51.100.9", 53)


def test_the_endpoint_of_the_handshake_has_no_limit() -> None:
    allowance = AmplificationLimit(HOME)
    assert allowance.is_proven and all(allowance.take(1250) for _ in range(100))


def test_a_new_endpoint_gets_three_times_what_it_sent_until_it_answers() -> None:
    allowance = AmplificationLimit(HOME)
    allowance.move(VICTIM)
    assert allowance.take(AMPLIFICATION * LEAST_DATA_PACKET) and not allowance.take(1)
    assert allowance.is_withholding
    allowance.credit(100)
    assert not allowance.take(301) and allowance.take(300) and not allowance.take(1)
    assert allowance.prove(VICTIM)
    assert allowance.take(100_000) and not allowance.prove(VICTIM)


def test_a_peer_that_comes_back_to_where_it_last_answered_has_no_limit() -> None:
    allowance = AmplificationLimit(HOME)
    allowance.move(VICTIM)
    allowance.move(HOME)
    assert allowance.is_proven
    allowance.move(VICTIM)
    allowance.prove(VICTIM)
    allowance.move(HOME)
    assert not allowance.is_proven


class Scene:
    """A session that always has six large packets to repeat, a data plane and a tunnel that take notes."""

    is_live = True

    def __init__(self) -> None:
        self.waiting: list[Any] = []
        self.control: list[tuple[Endpoint, int]] = []
        self.payloads = 0
        self.withheld = 0
        self.accepts = True
        scene: Any = self
        self.link = PeerLink(scene, PeerHandle(1), HOME, scene, scene, lambda: MonotonicSeconds(0.0))
        self.link.is_attached = True

    def poll_event(self) -> Any:
        return self.waiting.pop(0) if self.waiting else None

    def handle_float(self, now: float) -> None:
        self.waiting = [SendDatagram(bytes(1200)) for _ in range(6)]

    handle_path_change = handle_float

    def receive_datagram(self, datagram: bytes, now: float) -> bool:
        return self.accepts

    def send_control(self, datagram: bytes, destination: Endpoint) -> None:
        self.control.append((destination, len(datagram)))

    def send_payload(self, handle: PeerHandle, payload: bytes) -> None:
        self.payloads += len(payload) + 24

    def handle_settled(self, link: PeerLink) -> None: ...

    def handle_news(self, link: PeerLink, news: object) -> None:
        assert isinstance(news, Withheld)
        self.withheld += 1

    def sent_to(self, endpoint: Endpoint) -> int:
        return sum(octets for destination, octets in self.control if destination == endpoint)


def test_floats_to_many_addresses_draw_no_more_than_three_times_what_came_from_them() -> None:
    scene = Scene()
    for number in range(40):
        scene.link.endpoint = Endpoint("198.51.100.9", 1000 + number)
        scene.link.handle_float()
        scene.link.handle_path_change()
    assert (
        sum(octets for _, octets in scene.control) + scene.payloads <= 40 * AMPLIFICATION * LEAST_DATA_PACKET
    )
    assert scene.withheld == 40 * 12


def test_an_endpoint_that_answers_gets_what_was_withheld() -> None:
    scene = Scene()
    scene.link.endpoint = VICTIM
    scene.link.handle_float()
    assert scene.sent_to(VICTIM) == 0 and scene.payloads > 0, "a small question brings an answer sooner"
    scene.accepts = False
    scene.link.receive(bytes(60))
    assert scene.sent_to(VICTIM) == 0, "a packet that the session drops is no answer"
    scene.accepts = True
    scene.link.receive(bytes(60))
    assert scene.sent_to(VICTIM) == 6 * 1200


def test_lines_that_others_cause_are_few_and_the_rest_is_counted() -> None:
    now = [0.0]
    budget = LogBudget(lambda: now[0], burst=3, seconds=2.0)
    assert [budget.take() for _ in range(5)] == [{}, {}, {}, None, None]
    now[0] = 2.0
    assert budget.take() == {"suppressed": 2}
    now[0] = 4.0
    assert budget.take() == {}
