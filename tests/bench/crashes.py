"""`make crashes`: kill -9 at random moments, another configuration each time; is the host always right?

One site with six cables, addresses and a bridge that was there before. Each round writes a random file,
starts the daemon, kills it at a random moment (while it starts, runs, reloads or stops), writes
another one and starts again. Then the host must be as that configuration says, and after a stop as it was.
Ends with exit status 1 at the first difference, and prints the seed that shows it again.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import time
from typing import Any

from tests.lab import Bridged, Lab, Profile, Site, TwoSites, bridged_daemon
from tests.lab.core import Interrupted
from tests.lab.host_links import assert_same_host, photograph, show
from tests.lab.waiting import LabError

CABLES = tuple(f"p{number}" for number in range(6))
OLD_BRIDGE, OLD_PORT = "old0", "q0"
LATEST_KILL_SECONDS = 2.5
STOP_SECONDS = 10.0
STOPS_EVERY = 4


class Crashes:
    """The site, the daemon, and what the host must look like."""

    def __init__(self, lab: Lab, seed: int) -> None:
        self.dice = random.Random(seed)
        self.site: Site = TwoSites(lab, bridges=False).a
        self._prepare()
        self.before = self.site.namespace.call(photograph)
        profile = Profile()
        self.daemon: Bridged = bridged_daemon.server(
            self.site, profile, profile.authority.issue("server", "server")
        )
        (self.tunnel,) = self.daemon.configuration["tunnels"].values()

    def _prepare(self) -> None:
        ip = self.site.namespace.ip
        for name in (*CABLES, OLD_PORT):
            ip("link", "add", name, "type", "veth", "peer", "name", f"{name}-x")
            ip("link", "set", name, "up")
            ip("link", "set", f"{name}-x", "up")
        for number, name in enumerate(CABLES[:3]):
            ip("addr", "add", f"10.{number}.0.1/24", "dev", name)
            ip("addr", "add", f"fd00:{number}::1/64", "dev", name, "nodad")
            ip("route", "add", f"172.16.{number}.0/24", "via", f"10.{number}.0.254")
        ip("link", "add", OLD_BRIDGE, "type", "bridge")
        ip("link", "set", OLD_PORT, "master", OLD_BRIDGE)
        ip("link", "set", OLD_BRIDGE, "up")
        ip("addr", "add", "10.9.0.1/24", "dev", OLD_BRIDGE)

    def configure(self) -> None:
        """Write a random configuration: bridges, ports, addresses, adapters."""
        ports = self.dice.sample(CABLES, self.dice.randint(0, len(CABLES)))
        names = self.dice.sample(("br0", "br1", OLD_BRIDGE), self.dice.randint(1, 3))
        bridges: dict[str, Any] = {name: {"ports": []} for name in names}
        for port in ports:
            bridges[self.dice.choice(names)]["ports"].append(port)
        for number, name in enumerate(names):
            if self.dice.random() < 0.5:
                bridges[name]["addresses"] = [f"192.0.2.{number * 16 + self.dice.randint(1, 9)}/28"]
        self.daemon.configuration["bridges"] = bridges
        self.daemon.configuration["tunnels"] = {
            f"t{number}": self.tunnel
            | {"bridge": name, "listen": f"127.0.0.1:{1200 + number}", "tap": {"name": f"tap{number}"}}
            for number, name in enumerate(names)
        }
        self.daemon.write()

    def crash(self) -> str:
        """Start, and kill at a random moment; what was going on then, in words."""
        self.daemon.start(wait=False)
        began, moment = time.monotonic(), self.dice.uniform(0.0, LATEST_KILL_SECONDS)
        doing = self.dice.choice(("start or run", "reload", "stop"))
        time.sleep(moment)
        if doing == "reload" and self.daemon.started.running:
            self.configure()
            self.daemon.started.send_signal(signal.SIGHUP)
        elif doing == "stop" and self.daemon.started.running:
            self.daemon.started.send_signal(signal.SIGTERM)
        if doing != "start or run":
            time.sleep(self.dice.uniform(0.0, 0.3))
        self.daemon.stop(signal.SIGKILL)
        return f"killed after {time.monotonic() - began:.2f} s, {doing}"

    def check_start(self) -> None:
        """Start with the configuration as it is now; the host must be as it says.

        Raises:
            AssertionError: it is not.
            LabError: the daemon does not start.
        """
        self.daemon.start()
        bridges: dict[str, Any] = self.daemon.configuration["bridges"]
        taps = {
            tunnel["bridge"]: tunnel["tap"]["name"]
            for tunnel in self.daemon.configuration["tunnels"].values()
        }
        links = {link["ifname"]: link for link in self.site.namespace.call(show, "addr show")}
        wanted_master = {port: name for name, bridge in bridges.items() for port in bridge["ports"]}
        wanted_master |= {OLD_PORT: OLD_BRIDGE} | {tap: bridge for bridge, tap in taps.items()}
        masters = {name: link["master"] for name, link in links.items() if "master" in link}
        assert masters == wanted_master, f"ports are in {masters}, not in {wanted_master}"
        made = {name for name in ("br0", "br1") if name in links}
        assert made == {"br0", "br1"} & bridges.keys(), f"bridges there: {made}"
        assert {name for name in links if name.startswith("tap")} == set(taps.values())
        for number, name in enumerate(CABLES[:3]):
            holder = wanted_master.get(name, name)
            assert f"10.{number}.0.1" in _addresses(links[holder]), f"{name}'s address is not on {holder}"
        for name, bridge in bridges.items():
            for address in bridge.get("addresses", ()):
                assert address.split("/")[0] in _addresses(links[name])
        stray = {a for link in links.values() for a in _addresses(link) if a.startswith("192.0.2.")}
        wanted = {a.split("/")[0] for bridge in bridges.values() for a in bridge.get("addresses", ())}
        assert stray == wanted, f"addresses {stray}, not {wanted}"

    def check_stop(self) -> None:
        """Stop; the host must be as at the beginning.

        Raises:
            AssertionError: it is not, or the daemon failed.
        """
        assert self.daemon.stop(signal.SIGTERM, STOP_SECONDS) == 0, self.daemon.started.tail()
        assert_same_host(self.site.namespace.call(photograph), self.before)


def _addresses(link: dict[str, Any]) -> set[str]:
    return {address["local"] for address in link["addr_info"]}


def run(rounds: int, seed: int) -> int:
    """The exit status."""
    with Lab("crashes") as lab:
        crashes = Crashes(lab, seed)
        for number in range(1, rounds + 1):
            crashes.configure()
            what = crashes.crash()
            crashes.configure()
            try:
                crashes.check_start()
                if number % STOPS_EVERY == 0:
                    crashes.check_stop()
                else:
                    crashes.daemon.stop(signal.SIGKILL)
            except (AssertionError, LabError) as error:
                print(
                    f"round {number} of seed {seed}: {what}, then: {error}\n{crashes.daemon.log}",
                    file=sys.stderr,
                )
                return 1
            if number % 20 == 0:
                print(f"{number} kills, all well", flush=True)
        crashes.configure()
        crashes.check_start()
        crashes.check_stop()
    print(f"{rounds} kills: the host was as configured after each start, as before after each stop")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    chosen = parser.parse_args()
    try:
        return run(chosen.rounds, chosen.seed)
    except Interrupted as error:
        return error.status


if __name__ == "__main__":
    sys.exit(main())
