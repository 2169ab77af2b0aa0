"""A scrape of a thousand peers is quick, and hardly holds up the control loop. Both are CPU time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest

from bridged.addresses import Endpoint
from bridged.configuration.schema import Metrics
from bridged.dataplane.contract import PeerSettings
from bridged.runtime.snapshot import DaemonSnapshot
from bridged.runtime.tunnels.clock import unix_now
from bridged.runtime.tunnels.link import PeerLink
from bridged.runtime.tunnels.tunnel import RunningTunnel
from bridged.runtime.tunnels.tunnel_status import tunnel_status
from bridged.telemetry.collector import DaemonCollector, build_registry
from bridged.telemetry.loop_calls import call_in_loop
from bridged.telemetry.server import MetricsServer
from bridged.units import PeerHandle, WirePeerId
from tests.lab.bounds import at_most_or
from tests.lab.references import writing
from tests.lab.snapshots import daemon
from tests.lab.waiting import until
from tests.system.loopback_lab import Lab, endpoint, run

PEERS = 1000
SCRAPES = 7
TICK_SECONDS = 0.001
OF_WRITING, OF_WRITING_HELD = 0.75, 0.075
"""On a slow machine: shares of what the client library takes only to write the same text."""


def crowd(tunnel: RunningTunnel) -> None:
    """A thousand peers of the real data plane, with records and links as the first real client has them."""
    (known,) = tunnel.links.values()
    terms = known.terms
    assert terms is not None
    for number in range(1, PEERS):
        name, where = f"site-{number:04}", Endpoint("127.0.0.1", 20_000 + number)
        handle = PeerHandle(1_000_000 + number)
        peer_id = WirePeerId(100_000 + number)
        tunnel.dataplane.add_peer(PeerSettings(handle, name, where, peer_id, peer_id))
        session = SimpleNamespace(
            rtt=0.01, drops={}, poll_timeout=lambda: None, state=known.session.state, is_live=False
        )
        link = SimpleNamespace(handle=handle, name=name, endpoint=where, is_attached=True, session=session)
        tunnel.links.add(cast("PeerLink", link))
        tunnel.records.book.note_established(name, terms, str(where), unix_now())


async def busiest(over: asyncio.Event) -> float:
    """The most CPU time that the loop spent between two turns of this task."""
    longest, before = 0.0, time.thread_time()
    while not over.is_set():
        await asyncio.sleep(TICK_SECONDS)
        now = time.thread_time()
        longest, before = max(longest, now - before), now
    return longest


@pytest.mark.measures
def test_a_thousand_peers_cost_200_ms_a_scrape_and_hold_the_control_loop_up_for_20() -> None:
    measured: list[tuple[float, float, str]] = []

    async def scenario(lab: Lab) -> None:
        server, _ = await lab.server(peers_limit=2 * PEERS)
        await lab.client(endpoint(server))
        await until(lambda: any(link.is_attached for link in server.links.values()))
        crowd(server)

        def snapshot() -> Generator[None, None, DaemonSnapshot]:
            return daemon((yield from tunnel_status(server)))

        loop = asyncio.get_running_loop()
        collector = DaemonCollector(call_in_loop(loop, snapshot), Metrics(max_peers=2 * PEERS))
        http = MetricsServer(Endpoint("127.0.0.1", 0), build_registry(collector))
        http.start()
        try:
            measured.append(await _measure(http))
        finally:
            await asyncio.to_thread(http.stop)
            for link in list(server.links.values()):
                if isinstance(link, SimpleNamespace):
                    server.links.discard(cast("Any", link))

    run(scenario)
    ((took, held, text),) = measured
    at_most_or(took, 0.2, OF_WRITING, lambda: writing(text), "the cheapest scrape")
    at_most_or(held, 0.02, OF_WRITING_HELD, lambda: writing(text), "the control loop held up")


async def _measure(http: MetricsServer) -> tuple[float, float, str]:
    """CPU seconds of the cheapest scrape, client included, what it held the loop up at most, and the text."""
    took, held = [], []
    url = f"http://{http.endpoint}/metrics"
    async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
        text = (await client.get(url)).text
    assert text.count("bridged_peer_connected{") == PEERS
    for _ in range(SCRAPES):
        # Prometheus does not ask again within the pause that follows a snapshot.
        http._http._rests_until = 0.0
        over = asyncio.Event()
        ticking = asyncio.ensure_future(busiest(over))
        began = time.process_time()
        # From a thread, so that the loop has nothing else to do.
        await asyncio.to_thread(httpx.get, url, trust_env=False, timeout=30)
        took.append(time.process_time() - began)
        over.set()
        held.append(await ticking)
    return min(took), min(held), text
