"""`make soak`: a hub with peers that come, go, move and renegotiate, under loads that change; does it last?

    hub ── c1 (ours, its address changes) · c2 (OpenVPN) · c3 (ours, comes and goes) · c4 (ours, stays)
        └─ --peers light clients (churning_clients.py) that come and go by themselves

The hub's configuration is changed and reloaded all the time. Pings run between the LANs; memory,
descriptors and threads of the daemons that stay are sampled. At the end: a table, build/soak.json, and exit
status 1 where anything is not as it must be: memory that grows, a ping that was lost other than by a move of
an address (less than a second each), a warning in a log, a renegotiation that failed, a peer that had to come
again, a reload that was not applied at once. Below 5 minutes everything happens faster.
"""

from __future__ import annotations

import argparse
import itertools
import json
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.bench.soak_visitors import Visitors
from tests.bench.soak_watch import Check, Ping, Sample, judge_log, judge_pings, judge_samples, sample_of
from tests.lab import bridged_daemon
from tests.lab.bridged_daemon import TUNNEL, Bridged
from tests.lab.core import Interrupted, Lab
from tests.lab.host_settings import iperf3_client, iperf3_server
from tests.lab.openvpn import OpenVpn, Profile
from tests.lab.processes import Process
from tests.lab.topology import Host, Hub, Site
from tests.lab.waiting import LabError, wait_for

CLIENTS = 4
VISITORS_SITE = 5
PORT = 5201
PING_SECONDS = 0.1
TICK_SECONDS = 0.2
SETTLE_SECONDS = 2.0
WARM_UP_SECONDS = 300.0
WARM_UP_SHARE = 0.25
OPENVPN_BUFFERS = ("sndbuf 4194304", "rcvbuf 4194304")
TCP_WINDOW = "512K"
"""Bounded, so that no queue of a bridge or a socket overflows: congestion is not what is looked for here."""

FALLBACK = "dataplane_chosen"
"""Log event (a warning) of `dataplane: auto` where the native build is missing: no fault of this run."""

NEVER_DROPPED = frozenset(
    {
        *("tag_mismatch", "replay", "no_key", "unknown_key_id", "key_expired"),
        *("wrap_mismatch", "short_packet", "bad_opcode", "bad_length", "short_frame"),
    }
)
"""Drop reasons that nothing in this scene may bring about."""

OPENVPN_COMPLAINTS = (
    "Authenticate/Decrypt",
    "TLS Error",
    "AUTH_FAILED",
    "Inactivity timeout",
    "Restart pause",
)


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds between events."""

    renegotiate: int
    load: float
    move: float
    visit: float
    sample: float
    reload: float


LONG = Pace(renegotiate=30, load=20.0, move=45.0, visit=35.0, sample=10.0, reload=15.0)
SHORT = Pace(renegotiate=5, load=4.0, move=7.0, visit=6.0, sample=1.0, reload=3.0)
SHORT_MINUTES = 5.0


class Soak:
    """The scene; `run` keeps it going for so many seconds, `verdict` says how it was."""

    def __init__(self, lab: Lab, dataplane: str, pace: Pace, peers: int, say: Callable[[str], None]) -> None:
        self.pace = pace
        self.say = say
        self.hub = Hub(lab, VISITORS_SITE)
        self.profile = Profile(reneg_seconds=pace.renegotiate)
        self._keys: dict[str, Any] = {"dataplane": dataplane}
        issue = self.profile.authority.issue
        self._identities = [issue(f"c{number}", "client") for number in range(1, CLIENTS + 1)]
        self.server = bridged_daemon.server(
            self.hub.server,
            self.profile,
            issue("server", "server"),
            tunnel=self._keys,
            top={"log": {"format": "json"}},
        )
        self.mover, self.visitor, self.stayer = (self._client(number) for number in (1, 3, 4))
        self.openvpn = OpenVpn(
            self.hub.clients[1],
            "client",
            self.profile,
            self._identities[1],
            remote=self.hub.server.wan_ipv4,
            extra=OPENVPN_BUFFERS,
        )
        self.visitors = Visitors(lab, self.hub, self.hub.sites[VISITORS_SITE], self.profile, peers)
        self.reloads: Counter[str] = Counter()
        self.samples: dict[str, list[Sample]] = {"hub": [], "c1": [], "c4": []}
        self.moves: list[float] = []
        self.visits = 0
        self.failures: list[str] = []
        self.loads = 0
        self._pings: list[Ping] = []
        self._visit_ping: Ping | None = None
        self._visit_pings: list[Ping] = []
        self._visitor_logs: list[str] = []
        self._load: list[Process] = []
        self._load_name = ""
        self._addresses = itertools.cycle(f"203.0.113.{number}" for number in range(100, 200))
        self._kinds = itertools.cycle(self._load_kinds())
        self._begin = 0.0

    def _client(self, number: int) -> Bridged:
        return bridged_daemon.client(
            self.hub.clients[number - 1],
            self.profile,
            self._identities[number - 1],
            self.hub.server.wan_ipv4,
            tunnel=self._keys,
            top={"log": {"format": "json"}},
        )

    # --- the course of it -------------------------------------------------------------------------

    def start(self) -> None:
        """Everybody connects, and every LAN that stays reaches every other one."""
        self.server.start()
        for client in (self.mover, self.stayer):
            client.start()
        self.openvpn.start().wait_connected()
        for client in (self.mover, self.stayer):
            client.wait_connected()
        self.server.wait_connected(3)
        hub, c1, c2, c4 = (self._host(number) for number in (0, 1, 2, 4))
        for first, second in itertools.permutations((hub, c1, c2, c4), 2):
            wait_for(partial(first.reaches, second.ipv4), f"{first.ipv4} to {second.ipv4}")
        for host in (c1, c2, c4):
            wait_for(partial(host.reaches, hub.ipv6), f"{host.ipv6} to {hub.ipv6}")
        self._pings = [
            Ping("hub → c4", hub, c4.ipv4, PING_SECONDS, False),
            Ping("c2 (OpenVPN) → hub, IPv6", c2, hub.ipv6, PING_SECONDS, False),
            Ping("c2 (OpenVPN) → c4", c2, c4.ipv4, PING_SECONDS, False),
            Ping("c1 (moves) → hub", c1, hub.ipv4, PING_SECONDS, True),
            Ping("c4 → c1 (moves)", c4, c1.ipv4, PING_SECONDS, True),
        ]
        self.visitors.start()
        self._begin = time.monotonic()

    def run(self, seconds: float) -> None:
        """Loads, moves and visits in turn until the time is over; then everything comes to rest."""
        turns: list[tuple[float, Callable[[], None]]] = [
            (self.pace.sample, self._sample),
            (self.pace.load, self._next_load),
            (self.pace.move, self._move),
            (self.pace.visit, self._visit),
            (self.pace.reload, self._reload),
        ]
        due = [self._begin + (0.0 if turn is turns[0] else turn[0] / 2) for turn in turns]
        end = self._begin + seconds
        while (now := time.monotonic()) < end:
            for number, (every, act) in enumerate(turns):
                if now >= due[number]:
                    due[number] = max(due[number] + every, now)
                    act()
            self._check_alive()
            time.sleep(TICK_SECONDS)
        self._end_load()
        self._end_visit()
        self.visitors.end()
        time.sleep(SETTLE_SECONDS)
        for ping in self._pings:
            ping.stop()
        self._sample()

    def _check_alive(self) -> None:
        for daemon in (self.server, self.mover, self.stayer):
            if not daemon.started.running:
                raise LabError(f"{daemon.stem} ended by itself\n{daemon.started.tail()}")
        if not self.openvpn.started.running:
            raise LabError(f"OpenVPN ended by itself\n{self.openvpn.started.tail()}")

    def _sample(self) -> None:
        at = time.monotonic() - self._begin
        for name, daemon in (("hub", self.server), ("c1", self.mover), ("c4", self.stayer)):
            self.samples[name].append(sample_of(daemon.started.pid, at))
        newest = self.samples["hub"][-1]
        if len(self.samples["hub"]) % 30 == 1:
            self.say(
                f"{at / 60:5.1f} min: hub {newest.rss / 2**20:.1f} MiB, {newest.descriptors} descriptors, "
                f"{newest.threads} threads; {len(self.moves)} moves, {self.visits} visits, {self.loads} loads"
            )

    def _reload(self) -> None:
        """Something that changes while it runs, and must disturb nobody."""
        tunnel = self.server.configuration["tunnels"][TUNNEL]
        tunnel["peers_max"] = 2000 if tunnel.get("peers_max") == 1500 else 1500
        tunnel["peers"] = [f"never-{sum(self.reloads.values()) % 5}"]
        self.server.write()
        self.reloads[self.server.reload()] += 1

    def _move(self) -> None:
        """c1 gets another address."""
        self.moves.append(time.time())
        self.hub.clients[0].change_wan_ipv4(next(self._addresses))

    def _visit(self) -> None:
        """c3 comes, or goes: in turn with a farewell and without one."""
        if self._visit_ping is not None:
            self._end_visit()
            return
        self.visitor.start().wait_connected()
        host, target = self._host(3), self._host(0).ipv4
        wait_for(lambda: host.reaches(target), "the visitor's LAN to be reached")
        self._visit_ping = Ping("c3 (visits) → hub", host, target, PING_SECONDS, False)
        self.visits += 1

    def _end_visit(self) -> None:
        if self._visit_ping is None:
            return
        self._visit_ping.stop()
        self._visit_pings.append(self._visit_ping)
        self._visit_ping = None
        number = signal.SIGKILL if self.visits % 2 == 0 else signal.SIGTERM
        status = self.visitor.stop(number)
        self._visitor_logs.append(self.visitor.log)
        if number == signal.SIGTERM and status != 0:
            self.failures.append(f"c3 ended with status {status}")

    # --- loads ------------------------------------------------------------------------------------

    def _host(self, number: int) -> Host:
        site: Site = self.hub.sites[number]
        return site.host

    def _load_kinds(self) -> list[tuple[str, int, int, tuple[str, ...]]]:
        """(name, from site, to site, options of iperf3); sites by number, 0 the hub's."""
        tcp = ("-w", TCP_WINDOW)
        return [
            ("TCP c4 → hub", 4, 0, tcp),
            ("nothing", 0, 0, ()),
            ("UDP 20 Mbit/s hub → c4", 0, 4, ("-u", "-b", "20M", "-l", "1300")),
            ("TCP both ways, OpenVPN's c2 and hub", 2, 0, (*tcp, "--bidir")),
            ("nothing", 0, 0, ()),
            ("TCP hub → c1, which moves", 0, 1, tcp),
            ("small UDP c4 → c2", 4, 2, ("-u", "-b", "1M", "-l", "64")),
            ("TCP c2 → c4, through the hub", 2, 4, tcp),
        ]

    def _next_load(self) -> None:
        """The load so far must have ended well; the next one takes half of its turn."""
        self._end_load()
        self._load_name, source, target, options = next(self._kinds)
        if source == target:
            return
        to = self._host(target)
        sink = to.namespace.popen(*iperf3_server("-1", "-p", str(PORT)), log="sink")
        self._load = [sink]
        sink.wait_for_output("Server listening", 10)
        seconds = str(max(1, int(self.pace.load / 2)))
        client = self._host(source).namespace.popen(
            *iperf3_client(to.ipv4, "-J", "-p", str(PORT), "-t", seconds, *options), log="load"
        )
        self._load.append(client)
        self.loads += 1

    def _end_load(self) -> None:
        if len(self._load) == 2:
            client = self._load[1]
            try:
                status = client.wait(20)
            except LabError:
                status = -1
            octets = arrived_octets(client.output()) if status == 0 else 0
            if octets == 0:
                tail = client.tail(3).replace("\n", " ")
                self.failures.append(f"load {self._load_name!r}: status {status}, nothing arrived: {tail}")
        for process in self._load:
            process.stop(signal.SIGKILL)
        self._forget_logs()
        self._load = []

    def _forget_logs(self) -> None:
        for process in self._load:
            process.log.unlink(missing_ok=True)

    # --- how it was -------------------------------------------------------------------------------

    def dataplane_in_use(self) -> str:
        """Of the hub, as it says itself."""
        return str(self.server.tunnel()["dataplane"]["dataplane"])

    def verdict(self, seconds: float, expected: frozenset[str] = frozenset()) -> list[Check]:
        """All checks; ends the daemons, whose status must be 0. `expected`: see `judge_log`."""
        checks: list[Check] = []
        warm_up = min(WARM_UP_SECONDS, seconds * WARM_UP_SHARE)
        for name, samples in self.samples.items():
            checks += judge_samples(name, samples, warm_up)
        checks += [judge_pings(ping, self.moves) for ping in self._pings]
        checks.append(self._judge_visits())
        checks += self._judge_peers(seconds)
        checks.append(self.visitors.verdict())
        seen = dict(self.reloads)
        checks.append(Check("reloads", str(seen), set(seen) == {"applied"}))
        checks.append(Check("loads", f"{self.loads}, failed: {self.failures or 'none'}", not self.failures))
        # Before our hub ends: what OpenVPN says of that is no complaint.
        complaints = [line for line in self.openvpn.log.splitlines() if _is_complaint(line)]
        checks.append(Check("OpenVPN's log", "; ".join(complaints[:3]) or "nothing", not complaints))
        for name, daemon in (("c4", self.stayer), ("c1", self.mover), ("hub", self.server)):
            checks.append(self._judge_drops(name, daemon))
        for name, daemon in (("c4", self.stayer), ("c1", self.mover), ("hub", self.server)):
            status = daemon.stop()
            checks.append(Check(f"{name}: exit status", str(status), status == 0))
            checks.append(judge_log(name, daemon.log, expected))
        checks.append(judge_log("c3", "".join(self._visitor_logs), expected))
        return checks

    def _judge_visits(self) -> Check:
        lines = [judge_pings(ping, ()) for ping in self._visit_pings]
        bad = [line.seen for line in lines if not line.good]
        answered = sum(ping.answered() for ping in self._visit_pings)
        seen = f"{self.visits} visits, {answered} answered; {'; '.join(bad) or 'none lost'}"
        return Check("ping c3 (visits) → hub", seen, bool(lines) and not bad)

    def _judge_peers(self, seconds: float) -> list[Check]:
        """Renegotiations, connections and moves, as the hub counts them."""
        tunnel = self.server.tunnel()
        outcomes: dict[str, int] = {}
        for counts in tunnel["renegotiations"].values():
            for outcome, count in counts.items():
                outcomes[outcome] = outcomes.get(outcome, 0) + count
        least = int(seconds / self.pace.renegotiate * 3 * 0.6)  # three peers stay; the rest is latitude
        good = outcomes.get("established", 0) >= least and set(outcomes) <= {"established"}
        checks = [Check("renegotiations", f"{outcomes}, at least {least} expected", good)]
        for peer in tunnel["peers"]:
            if peer["name"] not in ("c1", "c2", "c4"):
                continue
            seen = f"{peer['connections']} connections, {peer['endpoint_changes']} changes of address"
            moved = len(self.moves) if peer["name"] == "c1" else 0
            right = peer["connected"] and peer["connections"] == 1 and peer["endpoint_changes"] >= moved
            checks.append(Check(f"peer {peer['name']}", seen, right))
        return checks

    def _judge_drops(self, name: str, daemon: Bridged) -> Check:
        drops = daemon.tunnel()["dataplane"]["drops"]
        counted = {
            f"{direction} {reason}": count
            for direction, reasons in drops.items()
            for reason, count in reasons.items()
            if count
        }
        bad = [key for key in counted if key.split()[-1] in NEVER_DROPPED]
        return Check(f"{name}: drops", str(counted or "none"), not bad)


def arrived_octets(output: str) -> int:
    """By iperf3's JSON: bytes of payload that arrived (UDP: by the share of packets that did)."""
    try:
        # Warnings stand in front of it.
        end = json.loads(output[output.index("{") :])["end"]
        if "packets" in end.get("sum", {}):
            total = end["sum"]
            return int(total["bytes"] * (1 - total["lost_packets"] / max(1, total["packets"])))
        return int(end["sum_received"]["bytes"])
    except (ValueError, KeyError):
        return 0


def _is_complaint(line: str) -> bool:
    return any(text in line for text in OPENVPN_COMPLAINTS)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="soak", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--dataplane", choices=["auto", "portable", "native"], default="auto")
    parser.add_argument("--output", type=Path, default=Path("build/soak.json"))
    parser.add_argument("--peers", type=int, default=200, help="light clients beside c1 to c4")
    return parser.parse_args(arguments)


def main() -> int:
    chosen = parse()
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    seconds = chosen.minutes * 60
    pace = SHORT if chosen.minutes < SHORT_MINUTES else LONG
    try:
        with Lab("soak") as lab:
            soak = Soak(
                lab, chosen.dataplane, pace, chosen.peers, lambda text: console.print(text, markup=False)
            )
            soak.start()
            soak.run(seconds)
            dataplane = soak.dataplane_in_use()
            expected = {FALLBACK} if chosen.dataplane == "auto" else set()
            checks = soak.verdict(seconds, frozenset(expected))
    except Interrupted as error:
        console.print("soak: interrupted")
        return error.status
    except LabError as error:
        print(f"soak: {error}", file=sys.stderr)
        return 1
    chosen.output.parent.mkdir(parents=True, exist_ok=True)
    document = {
        "minutes": chosen.minutes,
        "dataplane": dataplane,
        "checks": [asdict(check) for check in checks],
        "samples": {name: [asdict(one) for one in found] for name, found in soak.samples.items()},
    }
    chosen.output.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    table = Table(title=f"soak of {chosen.minutes:g} minutes, data plane {dataplane}")
    for column in ("check", "seen", ""):
        table.add_column(column)
    for check in checks:
        table.add_row(check.name, check.seen, "good" if check.good else "BAD")
    console.print(table, markup=False)
    return 0 if all(check.good for check in checks) else 1


if __name__ == "__main__":
    sys.exit(main())
