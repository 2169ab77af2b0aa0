"""Keys, settings, addresses, peers change while numbered frames and TCP run: none is lost or out of order.

A change of address is the exception: what is on its way to the old one is lost, and nothing else.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from tests.bench.numbered import Seen
from tests.bench.order import CLIENTS, End, hub_of, start_pair
from tests.lab import Bridged, Host, Lab, wait_for
from tests.lab.bounds import at_least
from tests.lab.host_settings import iperf3_client, iperf3_server
from tests.lab.processes import Process
from tests.lab.topology import WAN_PORT, Hub

pytestmark = [pytest.mark.root, pytest.mark.native, pytest.mark.alone, pytest.mark.measures]
FLOWS = 16
RATE = 8000.0
"""Datagrams a second of each end: 40 Mbit/s or so, and nothing overflows."""

TCP_WINDOW = "256K"
SHORT_SECONDS = 2
SECONDS = 7.0
PORT = 5201
UNWANTED = {
    *(
        "tag_mismatch",
        "replay",
        "replay_too_old",
        "no_key",
        "unknown_key_id",
        "unknown_peer_id",
        "key_expired",
    ),
    *("float_refused", "short_packet", "short_frame", "bad_length", "event_queue_full", "loop_guard"),
}

EARLY = "receive unknown_peer_id"


@dataclass(slots=True)
class Scene:
    """A hub, three sites, and what runs between them: numbered flows hub ⇄ c1 and c2 ⇄ c3, TCP c2 → hub."""

    hub: Hub
    daemons: list[Bridged]
    ends: dict[str, End]
    stream: Process
    early: list[int]
    """What each daemon dropped before all ran: a server may send before its client knows the peer."""

    @property
    def server(self) -> Bridged:
        return self.daemons[0]

    @property
    def new_drops(self) -> list[dict[str, int]]:
        """What each daemon has dropped, of what no change may bring about."""
        pairs = zip(self.daemons, self.early, strict=True)
        return [dict(Counter(drops(daemon)) - Counter({EARLY: number})) for daemon, number in pairs]

    def finish(self) -> dict[str, Seen]:
        """Stop the load; what the ends saw, by direction. The TCP stream ran to the end."""
        for end in self.ends.values():
            end.process.send_signal(15)
        seen = {name: end.finish()[0] for name, end in self.ends.items()}
        assert self.stream.wait(30) == 0, self.stream.tail()
        received = json.loads(self.stream.output())["end"]["sum_received"]["bytes"]
        at_least(received, 1_000_000, "octets of the TCP stream")
        return seen


@contextmanager
def loaded(workers: int, seconds: float, *, reneg_seconds: int = 3600) -> Iterator[Scene]:
    """Everything runs inside, for so many seconds at least."""
    tunnel = {"dataplane": "native", "workers": workers}
    with Lab("underload") as lab, hub_of(lab, tunnel, reneg_seconds=reneg_seconds) as (hub, daemons):
        ends = start_pair(0, ("hub", "c1"), _hosts(hub, 0, 1), FLOWS, RATE)
        ends += start_pair(1, ("c2", "c3"), _hosts(hub, 2, 3), FLOWS, RATE)
        listening = hub.server.host.namespace.popen(*iperf3_server("-1", "-p", str(PORT)), log="iperf-server")
        listening.wait_for_output("Server listening")
        command = iperf3_client(hub.server.host.ipv4, "-p", str(PORT), "-w", TCP_WINDOW)
        stream = hub.clients[1].host.namespace.popen(
            *command, "-b", "200M", "-t", str(seconds + 1), "-J", log="iperf"
        )
        for end in ends:
            wait_for(lambda end=end: end.received > 2000, f"{end.name} to run")  # type: ignore[misc]
        early = [drops(daemon).get(EARLY, 0) for daemon in daemons]
        yield Scene(hub, daemons, {end.name: end for end in ends}, stream, early)


def _hosts(hub: Hub, first: int, second: int) -> tuple[Host, Host]:
    return hub.sites[first].host, hub.sites[second].host


def drops(daemon: Bridged) -> dict[str, int]:
    """Drops that no change may bring about."""
    return {
        reason: count for reason, count in daemon.drops().items() if count and reason.split()[1] in UNWANTED
    }


def troubles(seen: Mapping[str, Seen]) -> dict[str, tuple[int, int, int]]:
    """(lost, out of order, changed) where any is not 0."""
    figures = {name: (one.lost, one.backwards, one.damaged) for name, one in seen.items()}
    return {name: one for name, one in figures.items() if one != (0, 0, 0)}


@pytest.mark.parametrize("workers", [1, 2])
def test_keys_and_settings_change_and_no_frame_is_lost_or_overtaken(workers: int) -> None:
    with loaded(workers, SECONDS, reneg_seconds=SHORT_SECONDS) as scene:
        end = time.monotonic() + SECONDS
        (tunnel,) = scene.server.configuration["tunnels"].values()
        for number in range(4):
            tunnel["peers_max"] = 100 + number
            assert scene.server.reload() == "applied"
            time.sleep(SECONDS / 6)
        time.sleep(max(0.0, end - time.monotonic()))
        assert scene.server.tunnel()["peers_limit"] == 103
        seen = scene.finish()
        assert troubles(seen) == {}
        at_least(min(one.received for one in seen.values()), SECONDS * RATE / 4, "frames received")
        done = [daemon.tunnel()["renegotiations"] for daemon in scene.daemons]
        assert all(set(outcomes) == {"established"} for found in done for outcomes in found.values()), done
        # Each site has renegotiated twice at least, whoever began.
        for found in done[1:]:
            at_least(sum(outcomes["established"] for outcomes in found.values()), 2, "renegotiations")
        assert scene.new_drops == [{}] * (CLIENTS + 1)


@pytest.mark.parametrize("workers", [2])
def test_peers_come_and_go_and_no_frame_of_others_is_lost_or_overtaken(workers: int) -> None:
    with Lab("comego") as lab, hub_of(lab, {"dataplane": "native", "workers": workers}) as (hub, daemons):
        ends = start_pair(0, ("hub", "c1"), _hosts(hub, 0, 1), FLOWS, RATE)
        for end in ends:
            wait_for(lambda end=end: end.received > 2000, f"{end.name} to run")  # type: ignore[misc]
        server, _, second, third = daemons
        for leaver in (second, third, second):
            # With farewell; the peer is taken out of the hub's data plane, and comes as a new one.
            assert leaver.stop() == 0
            server.wait_until(lambda status: _connected(status) == CLIENTS - 1, "a peer to be gone")
            leaver.start().wait_connected()
            server.wait_connected(CLIENTS)
        for end in ends:
            end.process.send_signal(15)
        seen = {end.name: end.finish()[0] for end in ends}
        assert troubles(seen) == {}
        assert drops(server) == {}


def _connected(status: Mapping[str, Any]) -> int:
    (tunnel,) = status["tunnels"]
    return sum(peer["connected"] for peer in tunnel["peers"])


@pytest.mark.parametrize("workers", [1])
def test_a_peer_floats_and_only_what_was_on_its_way_to_the_old_address_is_lost(workers: int) -> None:
    moves = 3
    with loaded(workers, SECONDS) as scene:
        # The new address is there when the old one goes: the site is never without one. The route that comes
        # with an address is missing for a moment when the kernel replaces it; this one stays.
        mover = scene.hub.clients[0].namespace
        mover.sysctl("net.ipv4.conf.all.promote_secondaries", 1)
        mover.ip("route", "add", "203.0.113.0/24", "dev", WAN_PORT, "metric", "1000")
        for number in range(moves):
            time.sleep(SECONDS / (moves + 1))
            scene.hub.clients[0].change_wan_ipv4(f"203.0.113.{100 + number}")
        time.sleep(SECONDS / (moves + 1))
        seen = scene.finish()
        assert {name: one.backwards + one.damaged for name, one in seen.items()} == dict.fromkeys(seen, 0)
        moved = [peer for peer in scene.server.connected_peers() if peer["endpoint_changes"]]
        assert [peer["endpoint_changes"] for peer in moved] == [moves]
        # The others do not notice, nor does what the one that moves sends.
        lost = {name: one.lost for name, one in seen.items()}
        to_the_mover = lost.pop("hub → c1")
        assert set(lost.values()) == {0}, lost
        # No more than a tenth of a second for each move.
        assert to_the_mover <= moves * RATE / 10
        assert scene.new_drops[0] == {}
