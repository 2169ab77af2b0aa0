"""One end of ours and one of real OpenVPN, joined; and the measures that the interop tests share."""

from __future__ import annotations

import math
import re
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal

from tests.lab import Bridged, LabError, OpenVpn, Profile, Site, TwoSites, wait_for
from tests.lab.bridged_daemon import client, server
from tests.lab.frames import discovery_kit, missing_at
from tests.lab.host_settings import iperf3_client, iperf3_server
from tests.lab.openvpn import INSTALLED
from tests.lab.pki import Identity
from tests.lab.processes import Process
from tests.lab.topology import Host
from tests.lab.waiting import NotInTime

Role = Literal["server", "client"]
THEIR_TAP = "ovpn0"
FAREWELL_SECONDS = 0.15
TICK_SECONDS = 0.006


@dataclass(slots=True)
class Ends:
    """Our daemon and an OpenVPN process, connected. Site a has the server."""

    ours: Bridged
    theirs: OpenVpn
    our_site: Site
    their_site: Site
    drops_before: dict[str, int]
    """What our data plane had dropped when both said that they are connected."""

    def unwanted_drops(self) -> dict[str, int]:
        return unwanted_drops(self.ours, self.drops_before)

    def peer(self) -> dict[str, Any]:
        """Status of the connected peer (exactly one)."""
        (peer,) = self.ours.connected_peers()
        return peer

    def ping_both_ways(self, count: int = 3) -> None:
        """Every ping by IPv4 and IPv6 from either LAN is answered."""
        ours, theirs = self.our_site.host, self.their_site.host
        for source, target in ((ours, theirs), (theirs, ours)):
            source.ping(target.ipv4, count=count, interval_seconds=0.02)
            source.ping(target.ipv6, count=count, interval_seconds=0.02)

    def changed_frames(self) -> dict[str, str]:
        """The discovery kit both ways; empty where every frame crossed once, byte for byte."""
        ours, theirs = self.our_site.host, self.their_site.host
        return missing_at(ours, theirs, discovery_kit(ours, theirs)) | {
            f"to us: {name}": problem
            for name, problem in missing_at(theirs, ours, discovery_kit(theirs, ours)).items()
        }


@contextmanager
def openvpn(
    site: Site,
    role: Role,
    profile: Profile,
    identity: Identity,
    *,
    remote: str = "",
    extra: tuple[str, ...] = (),
    release: str = INSTALLED,
) -> Iterator[OpenVpn]:
    """An OpenVPN end, started; killed at the end, and its TAP removed."""
    end = OpenVpn(site, role, profile, identity, remote=remote, extra=extra, tap=THEIR_TAP, release=release)
    try:
        end.start()
        try:
            yield end
        except BaseException:
            print(f"--- OpenVPN {role}\n{end.started.tail(60)}")
            raise
    finally:
        if end.process is not None:
            # It says farewell at once, and then only waits: our end need not miss it.
            end.started.send_signal(signal.SIGTERM)
            time.sleep(FAREWELL_SECONDS)
            end.stop(signal.SIGKILL)
        site.namespace.ip("link", "del", THEIR_TAP)


def show(daemon: Bridged) -> None:
    """Log, drops and last errors of a daemon, for a test that fails."""
    print(f"--- {daemon.stem}\n{daemon.started.tail(60)}")
    try:
        for tunnel in daemon.status()["tunnels"]:
            plane = tunnel["dataplane"] or {}
            print(tunnel["name"], tunnel["state"], tunnel["last_error"], tunnel["control_drops"])
            print(plane.get("drops"), tunnel["handshakes"], tunnel["renegotiations"], tunnel["peers"])
    except OSError as error:
        print(f"no status: {error}")


@contextmanager
def running(daemon: Bridged) -> Iterator[Bridged]:
    """A daemon of ours, started; its end is clean, with exit status 0. A failed test shows its log."""
    try:
        daemon.start()
        try:
            yield daemon
        except BaseException:
            show(daemon)
            raise
        assert daemon.stop() == 0, daemon.started.tail()
        assert "Traceback" not in daemon.log, daemon.log
    finally:
        if daemon.process is not None and daemon.process.running:
            daemon.stop(signal.SIGKILL)


@contextmanager
def joined(
    sites: TwoSites,
    profile: Profile,
    ours_as: Role,
    *,
    tunnel: Mapping[str, Any] | None = None,
    extra: tuple[str, ...] = (),
    remote: str = "",
    theirs: Identity | None = None,
    top: Mapping[str, Any] | None = None,
    release: str = INSTALLED,
) -> Iterator[Ends]:
    """Our server with OpenVPN's client, or our client with OpenVPN's server; both say they are connected."""
    issue = profile.authority.issue
    far = remote or sites.a.wan_ipv4
    with ExitStack() as stack:
        if ours_as == "server":
            listen = f"[::]:{profile.port}" if ":" in far else ""
            daemon = server(
                sites.a, profile, issue("server", "server"), tunnel=tunnel, listen=listen, top=top
            )
            ours = stack.enter_context(running(daemon))
            identity = theirs or issue("client", "client")
            other = stack.enter_context(
                openvpn(sites.b, "client", profile, identity, remote=far, extra=extra, release=release)
            )
            where_ours, where_theirs = sites.a, sites.b
        else:
            identity = theirs or issue("server", "server")
            # `remote` tells a server of the lab which address family to listen with.
            family = far if far.count(":") > 1 else ""
            other = stack.enter_context(
                openvpn(sites.a, "server", profile, identity, remote=family, extra=extra, release=release)
            )
            where = f"[{far}]:{profile.port}" if far.count(":") > 1 else far
            daemon = client(sites.b, profile, issue("client", "client"), where, tunnel=tunnel, top=top)
            ours = stack.enter_context(running(daemon))
            where_ours, where_theirs = sites.b, sites.a
        other.wait_connected()
        ours.wait_connected()
        assert_native_where_built(ours)
        yield Ends(ours, other, where_ours, where_theirs, ours.drops())


def assert_native_where_built(daemon: Bridged) -> None:
    """`auto` took the native build, where the compiled module is there: so these tests are about that one."""
    if find_spec("bridged._native") is None:
        return
    assert daemon.tunnel()["dataplane"]["dataplane"] == "native", daemon.log
    assert all("dataplane=native" in line for line in log_events(daemon, "dataplane_chosen")), daemon.log


LATE_SECONDS = 2.0
"""An answer of a `Pinger` may be as late as this: it asks on for so long, unless it has them all before."""


class Pinger:
    """A ping that runs beside the test, about every `interval_seconds`, for `seconds` and what comes late."""

    def __init__(
        self,
        source: Host,
        target: str,
        seconds: float,
        interval_seconds: float = 0.01,
        late_seconds: float = LATE_SECONDS,
    ) -> None:
        # The kernel's ticks stretch a short interval.
        self.count = int(seconds / (interval_seconds + TICK_SECONDS))
        self._seconds = seconds
        self._ends = time.monotonic() + seconds
        self._interval_seconds = interval_seconds
        self.process: Process = source.namespace.popen(
            *("ping", "-n", "-D", "-i", str(interval_seconds), "-W", "2"),
            # It does not wait for late answers to its last ones, and with -w it would end at an ICMP error.
            *("-c", str(self.count + math.ceil(late_seconds / interval_seconds)), target),
            log="ping",
        )

    def finish(self) -> Pinger:
        """Not before its time; until all its questions are answered, or it asked on for what comes late."""

        def is_done() -> bool:
            return not self.process.running or (time.monotonic() >= self._ends and self.lost == [])

        wait_for(is_done, "a ping to end", self._seconds * 3 + 20)
        self.process.stop(signal.SIGINT)
        return self

    @property
    def output(self) -> str:
        return self.process.output()

    @property
    def lost(self) -> list[int]:
        """Sequence numbers without an answer."""
        seen = {int(number) for number in re.findall(r"icmp_seq=(\d+) ttl", self.output)}
        return sorted(set(range(1, self.count + 1)) - seen)

    @property
    def longest_outage(self) -> float:
        """Seconds for which no answer came at a stretch: consecutive pings lost, also at the end."""
        longest = run = 0
        lost = set(self.lost)
        for number in range(1, self.count + 1):
            run = run + 1 if number in lost else 0
            longest = max(longest, run)
        return longest * self._measured_interval()

    def _measured_interval(self) -> float:
        answers = re.findall(r"^\[([\d.]+)\].* icmp_seq=(\d+) ttl", self.output, re.MULTILINE)
        if len(answers) < 2:
            raise LabError(f"hardly an answer at all\n{self.output[-500:]}")
        (begun, first), (ended, last) = answers[0], answers[-1]
        return (float(ended) - float(begun)) / (int(last) - int(first))


def iperf(source: Host, target: Host, seconds: float) -> Process:
    """One TCP stream from `source` to `target`, as JSON in its output once it has ended.

    Its window fits into OpenVPN's socket buffer (212,992 bytes, a good half of it overhead): a TCP that
    probes for losses would overflow it, and lose pings that no renegotiation lost.
    """
    listening = target.namespace.popen(*iperf3_server("-1", "-B", target.ipv4), log="iperf3-server")
    listening.wait_for_output("Server listening")
    return source.namespace.popen(
        *iperf3_client(target.ipv4, "-t", str(int(seconds)), "-w", "48K", "--json"), log="iperf3-client"
    )


def log_events(daemon: Bridged, event: str) -> list[str]:
    """Lines of the daemon's log with this event name."""
    return [line for line in daemon.log.splitlines() if f" {event} " in line or line.rstrip().endswith(event)]


def wait_for_event(daemon: Bridged, event: str, *words: str, seconds: float = 10.0, times: int = 1) -> str:
    """The first such log line that holds all the words, once there are `times` of them."""

    def found() -> list[str] | None:
        lines = [line for line in log_events(daemon, event) if all(word in line for word in words)]
        return lines if len(lines) >= times else None

    try:
        lines = wait_for(found, f"log event {event} with {words}", seconds)
    except NotInTime as error:
        raise NotInTime(f"{error}\n{daemon.started.tail()}") from None
    assert lines is not None
    return lines[0]


def unwanted_drops(daemon: Bridged, before: Mapping[str, int]) -> dict[str, int]:
    """What the data plane dropped since `before`, which was read with all peers connected.

    A frame that the LAN sends earlier finds no peer yet, or one that has no key yet.
    """
    return {reason: count for reason, count in daemon.drops().items() if count != before.get(reason, 0)}
