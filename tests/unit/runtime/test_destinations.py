"""Bridges ask in their own threads where tunnels send to, while tunnels and peers come and go."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from bridged.addresses import Endpoint
from bridged.configuration import load
from bridged.netlink.watch import LinkWatch
from bridged.runtime.site.site import Site
from bridged.runtime.tunnels.link_table import LinkTable
from bridged.runtime.tunnels.tunnel import RunningTunnel

ROUNDS = 8000
CONFIGURATION = """\
bridges: {br0: {}}
tunnels:
  away: {role: client, bridge: br0, remotes: ['192.0.2.9:1194'], tls: {ca: /c, certificate: /c, key: /k}}
"""


@contextmanager
def changing(change: Callable[[int], object]) -> Iterator[None]:
    """Calls `change` in another thread, and lets threads take turns far more often than usual."""
    usual = sys.getswitchinterval()
    is_over = threading.Event()

    def work() -> None:
        for number in range(10_000_000):
            if is_over.is_set():
                return
            change(number)

    thread = threading.Thread(target=work)
    sys.setswitchinterval(1e-6)
    try:
        thread.start()
        yield
    finally:
        is_over.set()
        thread.join()
        sys.setswitchinterval(usual)


def test_a_tunnel_tells_its_destinations_while_peers_come_and_go() -> None:
    links = LinkTable()

    def peer(number: int) -> Any:
        session = SimpleNamespace(poll_timeout=lambda: None)
        return SimpleNamespace(handle=number, endpoint=Endpoint("192.0.2.1", 1), name="", session=session)

    for number in range(50):
        links.add(peer(number))

    def change(number: int) -> None:
        guest = peer(100 + number)
        links.add(guest)
        links.discard(guest)

    tunnel: Any = SimpleNamespace(links=links)
    with changing(change):
        for _ in range(ROUNDS):
            assert len(RunningTunnel.destinations(tunnel)) in (50, 51)


def test_a_bridge_asks_for_destinations_while_tunnels_come_and_go(tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    path.write_text(f"state_directory: {tmp_path}/state\n{CONFIGURATION}")
    site = Site(LinkWatch(), tmp_path)
    site._target = load(path)
    ask = site._attach(site._target, "br0")._reconciler._destinations
    away: Any = SimpleNamespace(running=SimpleNamespace(destinations=lambda: ["192.0.2.77"]))
    for name in ("away", *(f"of-another-bridge{number}" for number in range(50))):
        site._tunnels[name] = away

    def change(number: int) -> None:
        if number % 2:
            del site._tunnels["guest"]
        else:
            site._tunnels["guest"] = away

    with changing(change):
        for _ in range(ROUNDS):
            assert ask() == ["192.0.2.9", "192.0.2.77"]
