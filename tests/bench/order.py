"""`make order`: does every flow keep its order, with any number of workers? Millions of numbered frames.

    hub ── c1 · c2 · c3        flows: hub ⇄ c1, hub ⇄ c2, c2 ⇄ c3 (through the hub)

All four daemons are ours. Between each pair of hosts run numbered UDP flows, both ways, over the same ports:
what a host answers belongs to the same flow for the kernel. See tests/bench/numbered.py for what is counted.
At the end: a table, build/order.json, and exit status 1 where a number came after a higher one of its flow,
or a datagram came changed. Lost ones are reported and allowed: each overflowed a queue, or should not have.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.bench.numbered import Seen
from tests.bench.tunnels import WAN_OFFLOADS, set_wan_offload
from tests.lab import bridged_daemon
from tests.lab.bridged_daemon import Bridged
from tests.lab.core import Interrupted, Lab
from tests.lab.openvpn import Profile
from tests.lab.processes import Process
from tests.lab.topology import Host, Hub
from tests.lab.waiting import LabError, wait_for

NUMBERED = str(Path(__file__).with_name("numbered.py"))
CLIENTS = 3
PAIRS = ((0, 1), (0, 2), (2, 3))
"""Sites by number, 0 the hub's."""

FIRST_PORT = 20_000
PORTS_OF_A_PAIR = 1000
NEVER = 3600
STANDSTILL_SECONDS = 30.0
END_SECONDS = 30.0
PACKET_FACTS = ("drops", "kernel_drops", "offload_fallbacks", "offloads", "thread_cpu")


@dataclass(slots=True)
class Outcome:
    """What one run gave: the figures of both ends of every pair, and those of the hub's data plane."""

    workers: int
    seconds: float
    ends: dict[str, Seen] = field(default_factory=dict)
    examples: list[str] = field(default_factory=list)
    hub: dict[str, Any] = field(default_factory=dict)

    def total(self, figure: str) -> int:
        return sum(int(getattr(seen, figure)) for seen in self.ends.values())

    @property
    def is_good(self) -> bool:
        return self.total("backwards") == 0 and self.total("damaged") == 0

    def document(self) -> dict[str, Any]:
        ends = {name: asdict(seen) for name, seen in self.ends.items()}
        return {
            "workers": self.workers,
            "seconds": round(self.seconds, 1),
            "received": self.total("received"),
            "lost": self.total("lost"),
            "backwards": self.total("backwards"),
            "damaged": self.total("damaged"),
            "ends": ends,
            "examples": self.examples,
            "hub": self.hub,
        }


class End:
    """A running numbered.py."""

    def __init__(self, name: str, process: Process) -> None:
        self.name = name
        self.process = process

    @property
    def received(self) -> int:
        """So far."""
        if not self.process.running:
            raise LabError(f"{self.name} ended by itself\n{self.process.tail()}")
        for line in reversed(self.process.output().splitlines()):
            if line.startswith("received "):
                return int(line.split()[1])
        return 0

    def finish(self) -> tuple[Seen, list[str]]:
        """What it saw in all. It was asked to end before."""
        if self.process.wait(END_SECONDS) != 0:
            raise LabError(f"{self.name} failed\n{self.process.tail()}")
        lines = self.process.output().splitlines()
        found = next(line for line in lines if line.startswith("{"))
        return Seen(**json.loads(found)), [
            f"{self.name}: {line}" for line in lines if line.startswith("flow ")
        ]


@contextmanager
def hub_of(
    lab: Lab, tunnel: dict[str, Any], *, reneg_seconds: int = NEVER, wan_offload: str = "on"
) -> Iterator[tuple[Hub, list[Bridged]]]:
    """A hub and CLIENTS sites, all connected, every pair's hosts in reach; the hub's daemon first."""
    hub = Hub(lab, CLIENTS)
    set_wan_offload(hub.sites, wan_offload)
    profile = Profile(reneg_seconds=reneg_seconds)
    issue = profile.authority.issue
    with ExitStack() as undo:
        server = bridged_daemon.server(hub.server, profile, issue("server", "server"), tunnel=tunnel)
        daemons = [server.start()]
        undo.callback(server.stop)
        for number, site in enumerate(hub.clients, start=1):
            identity = issue(f"c{number}", "client")
            client = bridged_daemon.client(site, profile, identity, hub.server.wan_ipv4, tunnel=tunnel)
            daemons.append(client.start(wait=False))
            undo.callback(client.stop)
        # All at once: each start takes a second of one processor.
        server.wait_connected(CLIENTS)
        for client in daemons[1:]:
            client.wait_connected()
        for first, second in PAIRS:
            host, other = hub.sites[first].host, hub.sites[second].host
            wait_for(lambda host=host, other=other: host.reaches(other.ipv4), "the sites to be joined")  # type: ignore[misc]
        yield hub, daemons


def start_pair(
    number: int, names: tuple[str, str], hosts: tuple[Host, Host], flows: int, rate: float
) -> list[End]:
    """Numbered flows both ways between two hosts."""
    first = FIRST_PORT + 2 * number * PORTS_OF_A_PAIR
    ends = []
    for side, (here, there) in enumerate((hosts, hosts[::-1])):
        own, other = first + side * PORTS_OF_A_PAIR, first + (1 - side) * PORTS_OF_A_PAIR
        argv = (here.ipv4, str(own), there.ipv4, str(other), "--flows", str(flows), "--rate", str(rate))
        log = f"numbered-{number}-{side}"
        process = here.namespace.popen(sys.executable, NUMBERED, *argv, log=log)
        ends.append(End(f"{names[1 - side]} → {names[side]}", process))
    return ends


def await_frames(ends: list[End], frames: int) -> None:
    """Until all ends together have received so many.

    Raises:
        LabError: one ended, or nothing arrived any more.
    """
    received, moved = 0, time.monotonic()
    while received < frames:
        time.sleep(0.25)
        now = sum(end.received for end in ends)
        if now > received:
            received, moved = now, time.monotonic()
        elif time.monotonic() - moved > STANDSTILL_SECONDS:
            tails = "\n".join(f"{end.name}: {end.process.tail(3)}" for end in ends)
            raise LabError(f"nothing arrives any more after {received} datagrams\n{tails}")


def measure(
    workers: int,
    frames: int,
    flows: int,
    dataplane: str,
    *,
    rate: float = 0.0,
    wan_offload: str = "on",
    reneg_seconds: int = NEVER,
) -> Outcome:
    """One run with so many workers at every daemon."""
    tunnel = {"dataplane": dataplane, "workers": workers}
    with (
        Lab("order") as lab,
        hub_of(lab, tunnel, reneg_seconds=reneg_seconds, wan_offload=wan_offload) as (hub, daemons),
    ):
        begin = time.monotonic()
        ends: list[End] = []
        for number, (first, second) in enumerate(PAIRS):
            sites = hub.sites[first], hub.sites[second]
            names = sites[0].namespace.role, sites[1].namespace.role
            ends += start_pair(number, names, (sites[0].host, sites[1].host), flows, rate)
        await_frames(ends, frames)
        for end in ends:
            end.process.send_signal(15)
        outcome = Outcome(workers, time.monotonic() - begin)
        for end in ends:
            seen, examples = end.finish()
            outcome.ends[end.name] = seen
            outcome.examples += examples
        plane = daemons[0].tunnel()["dataplane"]
        outcome.hub = {name: plane[name] for name in PACKET_FACTS if name in plane}
        return outcome


def table_of(outcomes: list[Outcome]) -> Table:
    table = Table("workers", "received", "lost", "out of order", "changed", "seconds", "")
    for outcome in outcomes:
        figures = [f"{outcome.total(name):,}" for name in ("received", "lost", "backwards", "damaged")]
        verdict = "good" if outcome.is_good else "BAD"
        table.add_row(str(outcome.workers), *figures, f"{outcome.seconds:.0f}", verdict)
    return table


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="order", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=10_000_000, help="datagrams to be received in each run")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--flows", type=int, default=16, help="flows of each pair of hosts, both ways")
    parser.add_argument(
        "--rate", type=float, default=0.0, help="datagrams a second of each end; 0: unlimited"
    )
    parser.add_argument("--wan-offload", choices=WAN_OFFLOADS, default="on", help="as in the bench")
    parser.add_argument("--reneg-seconds", type=int, default=NEVER, help="keys are changed so often")
    parser.add_argument("--dataplane", choices=["native", "portable"], default="native")
    parser.add_argument("--output", type=Path, default=Path("build/order.json"))
    chosen = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 120)
    outcomes = []
    try:
        for workers in chosen.workers:
            outcomes.append(
                measure(
                    workers,
                    chosen.frames,
                    chosen.flows,
                    chosen.dataplane,
                    rate=chosen.rate,
                    wan_offload=chosen.wan_offload,
                    reneg_seconds=chosen.reneg_seconds,
                )
            )
            outcome = outcomes[-1]
            console.print(f"workers {workers}: {outcome.total('received'):,} in {outcome.seconds:.0f} s")
            for line in outcome.examples:
                console.print(line)
    except Interrupted as error:
        return error.status
    except LabError as error:
        print(f"order: {error}", file=sys.stderr)
        return 1
    chosen.output.parent.mkdir(parents=True, exist_ok=True)
    chosen.output.write_text(
        json.dumps([one.document() for one in outcomes], indent=1, ensure_ascii=False) + "\n"
    )
    console.print(table_of(outcomes))
    return 0 if all(outcome.is_good for outcome in outcomes) else 1


if __name__ == "__main__":
    os.nice(5)
    sys.exit(main())
