"""`make demo`: two LANs on this machine, joined by two daemons, and the proof of it on the terminal.

Everything happens in network namespaces of its own and is gone at the end, also after Ctrl-C. The exit status
is 0 only if every step worked.
"""

from __future__ import annotations

import re
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.panel import Panel
from rich.table import Table

from tests.lab.bridged_daemon import BRIDGED, Bridged
from tests.lab.core import Interrupted, Lab
from tests.lab.iperf import iperf3
from tests.lab.processes import run
from tests.lab.topology import HOST_PORT, LAN_PORT, TwoSites
from tests.lab.waiting import LabError, wait_for

IPERF_SECONDS = 3
LEASE_FIRST, LEASE_LAST = 100, 150
METRICS_SHOWN = (
    "bridged_build_info",
    "bridged_tunnel_up",
    "bridged_peer_connected",
    "bridged_peer_frames_total",
    "bridged_fdb_entries",
    "bridged_handshakes_total",
)
METRIC_LINES = 8

# dhclient's own script would rewrite this machine's resolv.conf.
DHCLIENT_SCRIPT = """#!/bin/sh
case "$reason" in
BOUND|RENEW|REBIND|REBOOT)
    ip address replace "$new_ip_address/24" dev "$interface"
    echo "lease $new_ip_address router $new_routers" ;;
esac
exit 0
"""


class Demo:
    """The demonstration, one method for each step; a step returns what it found, in words."""

    def __init__(self, lab: Lab, console: Console) -> None:
        self.lab = lab
        self.console = console
        self.sites = TwoSites(lab, bridges=False)
        self.a, self.b = self.sites.a, self.sites.b
        self.server_file = lab.directory / "server.yaml"
        self.client_file = lab.directory / "client.yaml"
        self.profile = lab.directory / "site-b.ovpn"
        self.daemons: list[Bridged] = []

    def steps(self) -> list[tuple[str, Callable[[], str]]]:
        return [
            ("bridged init: certificate authority and server configuration", self.initialize),
            ("bridged invite: one .ovpn file for the other site", self.invite),
            ("bridged join: client configuration from it", self.join),
            ("two daemons started, tunnel up", self.start),
            ("ARP across the bridge", self.arp),
            ("IPv4 ping, host to host", lambda: self.ping(self.b.host.ipv4)),
            ("IPv6 ping, host to host", lambda: self.ping(self.b.host.ipv6)),
            ("DHCP lease from LAN A to a host on LAN B", self.lease),
            ("random MAC addresses of the adapters", self.mac_addresses),
            ("encryption of the tunnel", self.cipher),
            ("throughput, one TCP connection", self.throughput),
            ("latency, host to host", self.latency),
            ("Prometheus metrics", self.metrics),
            ("bridged status", self.status),
            ("both daemons stopped cleanly", self.stop),
        ]

    def initialize(self) -> str:
        state = self.lab.directory / "state-a"
        run(
            *(BRIDGED, "init", "--state", str(state), "--remote", f"{self.a.wan_ipv4}:1194"),
            *("--bridge", "br0", "--port", LAN_PORT, "--output", str(self.server_file)),
        )
        private = [path for path in state.rglob("*") if path.is_file() and path.stat().st_mode & 0o077 == 0]
        if not private:
            raise LabError(f"no private file in {state}")
        return f"{self.server_file.name}, {len(private)} private files (0600)"

    def invite(self) -> str:
        state = self.lab.directory / "state-a"
        run(BRIDGED, "invite", "site-b", "--state", str(state), "--output", str(self.profile))
        text = self.profile.read_text()
        if not re.search(r"^dev tap", text, re.MULTILINE):
            raise LabError("the profile does not say `dev tap`")
        return f"{self.profile.name}, {len(text.splitlines())} lines; OpenVPN takes it too"

    def join(self) -> str:
        state = self.lab.directory / "state-b"
        run(
            *(BRIDGED, "join", str(self.profile), "--bridge", "br0", "--port", LAN_PORT),
            *("--state", str(state), "--output", str(self.client_file)),
        )
        return self.client_file.name

    def start(self) -> str:
        for site, file in ((self.a, self.server_file), (self.b, self.client_file)):
            # Two daemons on one machine's file system: the admin sockets must differ.
            document: dict[str, Any] = yaml.safe_load(file.read_text())
            document["admin"] = {"socket": str(self.lab.directory / f"{site.namespace.role}.sock")}
            self.daemons.append(Bridged(site, document))
        begin = time.monotonic()
        for daemon in self.daemons:
            daemon.start()
        for daemon in self.daemons:
            daemon.wait_connected(tunnel=self._tunnel_of(daemon))
        return f"connected {time.monotonic() - begin:.1f} s after the start"

    def arp(self) -> str:
        host, other = self.a.host, self.b.host
        host.forget_neighbours()
        wait_for(lambda: host.reaches(other.ipv4), "the first answer", 15)
        mac = host.neighbour(other.ipv4)
        if mac != other.mac:
            raise LabError(f"ARP for {other.ipv4} gave {mac or 'nothing'}, not {other.mac}")
        return f"{other.ipv4} is at {mac}"

    def ping(self, target: str) -> str:
        return (
            f"{target} answers 10 of 10, {self.a.host.ping(target, count=10, interval_seconds=0.05):.2f} ms"
        )

    def lease(self) -> str:
        network = self.a.host.ipv4.rsplit(".", 1)[0]
        leases = self.lab.directory / "dnsmasq.leases"
        dhcp_server = self.a.host.namespace.popen(
            *("dnsmasq", "--keep-in-foreground", "--log-facility=-", "--log-dhcp", "--conf-file=/dev/null"),
            *("--user=root", "--port=0", f"--interface={HOST_PORT}", "--bind-interfaces", "--no-ping"),
            *("--dhcp-authoritative", f"--dhcp-leasefile={leases}", "--pid-file="),
            f"--dhcp-range={network}.{LEASE_FIRST},{network}.{LEASE_LAST},255.255.255.0,10m",
            f"--dhcp-option=option:router,{self.a.host.ipv4}",
        )
        dhcp_server.wait_for_output("DHCP, IP range", 10)
        script = self.lab.directory / "dhclient-script"
        script.write_text(DHCLIENT_SCRIPT)
        script.chmod(0o755)
        dhcp_client = self.b.host.namespace.popen(
            *("dhclient", "-4", "-d", "-1", "-sf", str(script), "-cf", "/dev/null"),
            *("-lf", str(self.lab.directory / "dhclient.leases")),
            *("-pf", str(self.lab.directory / "dhclient.pid"), HOST_PORT),
        )
        dhcp_client.wait_for_output("bound to", 30)
        found = re.search(r"lease (\S+) router (\S+)", dhcp_client.output())
        if not found or found.group(2) != self.a.host.ipv4:
            raise LabError(f"the lease lost its router option\n{dhcp_client.tail()}")
        self.a.host.ping(found.group(1))
        return f"{found.group(1)}, router {found.group(2)} (option 3 kept)"

    def mac_addresses(self) -> str:
        macs = [self._tunnel(daemon)["tap_mac"] for daemon in self.daemons]
        for mac in macs:
            first = int(mac.split(":")[0], 16)
            if first & 0x03 != 0x02:
                raise LabError(f"{mac} is not locally administered unicast")
        if len(set(macs)) != len(macs):
            raise LabError(f"both adapters have {macs[0]}")
        return ", ".join(macs)

    def cipher(self) -> str:
        peer = next(peer for peer in self._tunnel(self.daemons[0])["peers"] if peer["connected"])
        return f"{peer['cipher']}, {peer['tls_version']}, {peer['key_group']}, peer {peer['name']}"

    def throughput(self) -> str:
        near, far = self.a.host, self.b.host
        found = iperf3(near.namespace, far.namespace, far.ipv4, "-t", str(IPERF_SECONDS))
        rate = float(found["end"]["sum_received"]["bits_per_second"])
        if rate <= 0:
            raise LabError("nothing arrived")
        return f"{rate / 1e6:,.0f} Mbit/s on this machine's cores"

    def latency(self) -> str:
        output = self.a.host.namespace.run("ping", "-n", "-A", "-c", "300", self.b.host.ipv4)
        times = [float(text) for text in re.findall(r"time=([0-9.]+) ms", output)]
        if len(times) < 295:
            raise LabError(f"only {len(times)} of 300 pings were answered")
        return f"median {statistics.median(times) * 1000:.0f} µs, p99 {sorted(times)[-3] * 1000:.0f} µs"

    def metrics(self) -> str:
        text = self.daemons[0].metrics()
        lines = [line for line in text.splitlines() if line.startswith(METRICS_SHOWN)]
        if not lines:
            raise LabError(f"none of the expected metrics in {len(text.splitlines())} lines")
        return "\n".join(lines[:METRIC_LINES])

    def status(self) -> str:
        daemon = self.daemons[0]
        return daemon.command("status", "--config", str(daemon.file)).rstrip()

    def stop(self) -> str:
        statuses = [daemon.stop() for daemon in reversed(self.daemons)]
        if any(statuses):
            raise LabError(f"exit statuses {statuses}, not 0")
        left = [
            site.namespace.role for site in self.sites.sites if "br0" in site.namespace.ip("link", "show")
        ]
        if left:
            raise LabError(f"br0 is still there at {', '.join(left)}")
        return "exit status 0; adapters and bridges are gone"

    def _tunnel_of(self, daemon: Bridged) -> str:
        return str(next(iter(daemon.configuration["tunnels"])))

    def _tunnel(self, daemon: Bridged) -> dict[str, Any]:
        return daemon.tunnel(self._tunnel_of(daemon))


def play(console: Console) -> int:
    """Run every step; 0 when all worked, 1 at the first that did not."""
    table = Table(title="Two LANs, one network", show_lines=False)
    table.add_column("what")
    table.add_column("found", overflow="fold")
    with Lab("demo") as lab:
        demo = Demo(lab, console)
        for title, step in demo.steps():
            try:
                found = step()
            except (LabError, OSError, KeyError, StopIteration) as error:
                console.print(f"[bold red]failed[/] {title}")
                console.print(str(error), markup=False, highlight=False)
                for path in lab.log_files():
                    tail = "\n".join(path.read_text(errors="replace").splitlines()[-15:])
                    console.print(Panel(tail, title=path.name), markup=False)
                return 1
            if "\n" in found:
                console.print(f"[green]✓[/] {title}")
                console.print(found, markup=False, highlight=False)
            else:
                console.print(f"[green]✓[/] {title}: {found}", highlight=False)
                table.add_row(title, found)
        console.print(table)
    console.print("[bold green]The two LANs were one.[/] Everything the demonstration made is gone.")
    return 0


def main() -> int:
    console = Console(width=None if sys.stdout.isatty() else 120)
    try:
        return play(console)
    except Interrupted as error:
        console.print("demo: interrupted; everything it made is gone")
        return error.status
    except LabError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    if not Path(BRIDGED).exists():
        print(f"demo: {BRIDGED} is missing (make setup)", file=sys.stderr)
        sys.exit(1)
    sys.exit(main())
