"""/metrics and its companions of one daemon: pages and probes, in front of snapshots that its loop takes."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Generator

from bridged.addresses import Endpoint
from bridged.configuration.schema import DEFAULT_METRICS_PORT, Metrics
from bridged.runtime.service.descriptors import DescriptorStore
from bridged.runtime.snapshot import ApiCounters, DaemonSnapshot
from bridged.telemetry.collector import DaemonCollector, build_registry
from bridged.telemetry.loop_calls import ask_in_loop, call_in_loop
from bridged.telemetry.openvpn_metrics import OpenvpnPage
from bridged.telemetry.server import MetricsServer, read_bearer_token


class MetricsPages:
    """`snapshot` is taken in steps, and `find_unready` asked, in the loop that calls `start`.

    `find_unready` says why the daemon is not ready (None: it is).
    """

    def __init__(
        self,
        store: DescriptorStore,
        snapshot: Callable[[], Generator[None, None, DaemonSnapshot]],
        find_unready: Callable[[], str | None],
    ) -> None:
        self._store = store
        self._snapshot = snapshot
        self._find_unready = find_unready
        self._collector: DaemonCollector | None = None
        self._server: MetricsServer | None = None

    def start(self, settings: Metrics, counters: Callable[[], ApiCounters]) -> None:
        """Serve, if the configuration wants it.

        Raises:
            MetricsServerError: the address cannot be had, or a file cannot be used.
        """
        if settings.listen is None:
            return
        token = read_bearer_token(settings.bearer_token_file) if settings.bearer_token_file else None
        loop = asyncio.get_running_loop()
        snapshot = call_in_loop(loop, self._snapshot)
        self._collector = DaemonCollector(snapshot, settings, counters)
        openvpn = OpenvpnPage(settings)
        self._server = MetricsServer(
            Endpoint.parse(settings.listen, DEFAULT_METRICS_PORT),
            build_registry(self._collector),
            token,
            self._store.take_listener("metrics", {socket.AF_INET, socket.AF_INET6}),
            web_config=settings.web_config_file,
            more={"/metrics/openvpn": lambda: openvpn.text(snapshot())},
            probes={
                "/-/healthy": ask_in_loop(loop, lambda: None),
                "/-/ready": ask_in_loop(loop, self._find_unready),
            },
        )
        self._server.start()

    def apply(self, settings: Metrics) -> None:
        """After a reload: what can be changed while it serves."""
        if self._collector is not None:
            self._collector.apply(settings)

    async def stop(self) -> None:
        """Idempotent."""
        if self._server is not None:
            # In a thread: a running scrape waits for this loop.
            await asyncio.to_thread(self._server.stop)
