"""Sites with a LAN host each, and the wide-area network between them.

    host-a ──eth0/lan0── site-a ──wan0/…── WAN ──…/wan0── site-b ──lan0/eth0── host-b

All hosts are in one layer-2 domain to be: 10.99.0.0/24 and fd99::/64. WAN addresses are documentation
prefixes. The first site is the server's.

WAN shapes: `direct`, one cable between two sites, the fastest; `switch`, a bridge in a namespace `wan` with
203.0.113.1, for any number of sites; `router`, a namespace `wan` that routes, every site in a prefix of its
own, so that addresses can change to another network.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tests.lab.core import Lab
from tests.lab.namespace import Namespace
from tests.lab.processes import run
from tests.lab.waiting import PATIENCE, LabError

WanShape = Literal["direct", "switch", "router"]
LAN_PORT = "lan0"
WAN_PORT = "wan0"
HOST_PORT = "eth0"


@dataclass(slots=True)
class Host:
    """A machine on a LAN. Its adapter is `eth0`."""

    namespace: Namespace
    mac: str
    ipv4: str
    ipv6: str

    def ping(
        self,
        target: str,
        *options: str,
        count: int = 3,
        interval_seconds: float = 0.2,
        wait_seconds: float = 10.0,
    ) -> float:
        """Ping, with further `options` of the program, and return the average round trip in milliseconds.

        Raises:
            LabError: one of the first `count` questions was not answered within `wait_seconds`.
        """
        # With -c alone ping waits for its last answer no longer than two earlier round trips took: too short
        # on a busy machine. With -w it asks on until it has `count` answers; the first ones must be there.
        limit = math.ceil((count * interval_seconds + wait_seconds) * PATIENCE)
        output = self.namespace.run(
            *(
                "ping",
                "-n",
                "-c",
                str(count),
                "-i",
                str(interval_seconds),
                "-w",
                str(limit),
                *options,
                target,
            ),
            seconds=limit + 20,
            check=False,
        )
        answered = {int(number) for number in re.findall(r"icmp_seq=(\d+) ttl", output)}
        if not answered >= set(range(1, count + 1)):
            raise LabError(f"{self.namespace.role}: ping {target}: not {count} answers\n{output}")
        return float(output.split("min/avg/max/mdev = ")[1].split("/")[1])

    def reaches(self, target: str) -> bool:
        """Whether one ping is answered within a second."""
        output = self.namespace.run("ping", "-n", "-c", "1", "-W", "1", target, check=False)
        return " 1 received" in output

    def neighbour(self, address: str) -> str:
        """The MAC address that ARP or neighbour discovery found for an IP address; empty if none."""
        words = self.namespace.ip("neigh", "show", address, "dev", HOST_PORT).split()
        return words[words.index("lladdr") + 1] if "lladdr" in words else ""

    def forget_neighbours(self) -> None:
        self.namespace.ip("neigh", "flush", "dev", HOST_PORT)


@dataclass(slots=True)
class Site:
    """A site's gateway: `lan0` towards its host, `wan0` towards the others."""

    namespace: Namespace
    host: Host
    wan_ipv4: str
    wan_ipv6: str
    wan_gateway: str = ""

    def make_bridge(self, *ports: str, name: str = "br0", snooping: bool = False) -> None:
        """A kernel bridge with these ports; nothing that the LAN sends is held back.

        group_fwd_mask 0xfff8 lets LLDP (01:80:c2:00:00:0e), 802.1X and other link-local groups through;
        the kernel refuses only STP (00), pause (01) and LACP (02).
        """
        self.namespace.ip("link", "add", name, "type", "bridge", "stp_state", "0", "forward_delay", "0")
        self.bridge_option(name, "group_fwd_mask", "0xfff8")
        self.bridge_option(name, "multicast_snooping", "1" if snooping else "0")
        self.namespace.sysctl(f"net.ipv6.conf.{name}.disable_ipv6", 1)
        self.namespace.ip("link", "set", name, "up")
        for port in ports:
            self.attach(port, name)

    def bridge_option(self, bridge: str, option: str, value: str) -> None:
        self.namespace.run("sh", "-c", f"echo {value} > /sys/class/net/{bridge}/bridge/{option}")

    def attach(self, port: str, bridge: str = "br0") -> None:
        self.namespace.ip("link", "set", port, "master", bridge, "up")

    def make_tap(
        self, name: str = "tap0", bridge: str = "br0", mtu: int = 1500, queue_frames: int = 4000
    ) -> None:
        """A persistent TAP in the bridge, for a program that opens it by name."""
        self.namespace.ip("tuntap", "add", "dev", name, "mode", "tap")
        self.namespace.sysctl(f"net.ipv6.conf.{name}.disable_ipv6", 1)
        self.namespace.ip("link", "set", name, "mtu", str(mtu), "txqueuelen", str(queue_frames))
        self.attach(name, bridge)

    def change_wan_ipv4(self, address: str) -> None:
        """Replace the WAN address at once, as a mobile line does; the gateway stays."""
        prefix = "24"
        self.namespace.ip("addr", "add", f"{address}/{prefix}", "dev", WAN_PORT)
        self.namespace.ip("addr", "del", f"{self.wan_ipv4}/{prefix}", "dev", WAN_PORT)
        self.wan_ipv4 = address
        # The kernel may promote or drop what depended on the old address.
        if f"{address}/" not in self.namespace.ip("addr", "show", "dev", WAN_PORT):
            self.namespace.ip("addr", "add", f"{address}/{prefix}", "dev", WAN_PORT)
        if self.wan_gateway:
            self.namespace.ip("route", "replace", "default", "via", self.wan_gateway)


class Topology:
    """Sites around a WAN. Use `TwoSites` or `Hub`.

    `wan_mtu` and `lan_mtu` are bytes of layer 3. `bridges`: whether the lab makes `br0` with `lan0` at
    every site; leave it off where a daemon under test owns the bridge.
    """

    def __init__(
        self,
        lab: Lab,
        names: tuple[str, ...],
        *,
        wan: WanShape,
        wan_mtu: int = 1500,
        lan_mtu: int = 1500,
        bridges: bool = True,
    ) -> None:
        if wan == "direct" and len(names) != 2:
            raise LabError("a direct WAN joins two sites")
        self.lab = lab
        self.wan_shape = wan
        self.wan_mtu = wan_mtu
        self.lan_mtu = lan_mtu
        self.wan = lab.namespace("wan") if wan != "direct" else None
        self.sites = [self._site(name, number) for number, name in enumerate(names, start=1)]
        self._connect()
        if bridges:
            for site in self.sites:
                site.make_bridge(LAN_PORT)

    @property
    def server(self) -> Site:
        return self.sites[0]

    @property
    def clients(self) -> list[Site]:
        return self.sites[1:]

    @property
    def wan_namespace(self) -> Namespace:
        """Where a relay between the sites can run. Raises LabError on a direct WAN."""
        if self.wan is None:
            raise LabError("a direct WAN has no namespace of its own: use switch or router")
        return self.wan

    def _site(self, name: str, number: int) -> Site:
        host_space = self.lab.namespace(f"host-{name}")
        site_space = self.lab.namespace(f"site-{name}")
        _no_bridge_filter(site_space)
        self.lab.veth((host_space, HOST_PORT), (site_space, LAN_PORT), mtu=self.lan_mtu)
        mac = f"02:00:5e:10:00:{number:02x}"
        ipv4, ipv6 = f"10.99.0.{number}", f"fd99::{number:x}"
        host_space.ip("link", "set", HOST_PORT, "address", mac)
        host_space.ip("addr", "add", f"{ipv4}/24", "dev", HOST_PORT)
        host_space.ip("addr", "add", f"{ipv6}/64", "dev", HOST_PORT, "nodad")
        site_space.sysctl(f"net.ipv6.conf.{LAN_PORT}.disable_ipv6", 1)
        network = number if self.wan_shape == "router" else 0
        wan_ipv4 = f"198.51.100.{10 + number}" if network == 1 else f"203.0.113.{10 + number}"
        if network > 2:
            wan_ipv4 = f"192.0.2.{10 + number}"
        return Site(
            site_space, Host(host_space, mac, ipv4, ipv6), wan_ipv4, f"2001:db8:{network:x}::{10 + number:x}"
        )

    def _connect(self) -> None:
        if self.wan is None:
            first, second = self.sites
            self.lab.veth((first.namespace, WAN_PORT), (second.namespace, WAN_PORT), mtu=self.wan_mtu)
        else:
            for number, site in enumerate(self.sites, start=1):
                self.lab.veth((self.wan, f"to{number}"), (site.namespace, WAN_PORT), mtu=self.wan_mtu)
            if self.wan_shape == "switch":
                self._switch(self.wan)
            else:
                self._router(self.wan)
        for site in self.sites:
            site.namespace.ip("addr", "add", f"{site.wan_ipv4}/24", "dev", WAN_PORT)
            site.namespace.ip("addr", "add", f"{site.wan_ipv6}/64", "dev", WAN_PORT, "nodad")
            if site.wan_gateway:
                site.namespace.ip("route", "add", "default", "via", site.wan_gateway)
                gateway_ipv6 = site.wan_ipv6.rsplit("::", 1)[0] + "::1"
                site.namespace.ip("-6", "route", "add", "default", "via", gateway_ipv6)

    def _switch(self, wan: Namespace) -> None:
        wan.ip("link", "add", "br0", "mtu", str(self.wan_mtu), "type", "bridge", "forward_delay", "0")
        for number in range(1, len(self.sites) + 1):
            wan.ip("link", "set", f"to{number}", "master", "br0")
        wan.ip("addr", "add", "203.0.113.1/24", "dev", "br0")
        wan.ip("addr", "add", "2001:db8::1/64", "dev", "br0", "nodad")
        wan.ip("link", "set", "br0", "up")

    def _router(self, wan: Namespace) -> None:
        if len(self.sites) > 3:
            raise LabError("a routed WAN has prefixes for three sites")
        wan.sysctl("net.ipv4.ip_forward", 1)
        wan.sysctl("net.ipv6.conf.all.forwarding", 1)
        for number, site in enumerate(self.sites, start=1):
            gateway = site.wan_ipv4.rsplit(".", 1)[0] + ".1"
            wan.ip("addr", "add", f"{gateway}/24", "dev", f"to{number}")
            wan.ip("addr", "add", site.wan_ipv6.rsplit("::", 1)[0] + "::1/64", "dev", f"to{number}", "nodad")
            site.wan_gateway = gateway


class TwoSites(Topology):
    """Site a (server) and site b (client)."""

    def __init__(
        self,
        lab: Lab,
        *,
        wan: WanShape = "direct",
        wan_mtu: int = 1500,
        lan_mtu: int = 1500,
        bridges: bool = True,
    ) -> None:
        super().__init__(lab, ("a", "b"), wan=wan, wan_mtu=wan_mtu, lan_mtu=lan_mtu, bridges=bridges)
        self.a, self.b = self.sites


class Hub(Topology):
    """A server's site (`hub`) and `clients` others (`c1`, `c2`, …) on one WAN switch."""

    def __init__(
        self,
        lab: Lab,
        clients: int,
        *,
        wan: WanShape = "switch",
        wan_mtu: int = 1500,
        lan_mtu: int = 1500,
        bridges: bool = True,
    ) -> None:
        names = ("hub", *(f"c{number}" for number in range(1, clients + 1)))
        super().__init__(lab, names, wan=wan, wan_mtu=wan_mtu, lan_mtu=lan_mtu, bridges=bridges)


def _no_bridge_filter(space: Namespace) -> None:
    """Where br_netfilter is loaded it parses bridged IP and cuts padding off: frames would change."""
    for family in ("arptables", "iptables", "ip6tables"):
        key = f"net.bridge.bridge-nf-call-{family}"
        if Path(f"/proc/sys/{key.replace('.', '/')}").exists():
            space.sysctl(key, 0)


def capture(namespace: Namespace, interface: str, file: Path, *expression: str) -> None:
    """Start tcpdump into `file`, and return when it is capturing; it ends with the namespace.

    It writes each packet at once, but the test may be faster: wait until the file has what you look for.
    """
    process = namespace.popen(
        "tcpdump", "-n", "-U", "--immediate-mode", "-i", interface, "-w", str(file), *expression
    )
    process.wait_for_output("listening on", 10)


__all__ = [
    "HOST_PORT",
    "LAN_PORT",
    "WAN_PORT",
    "Host",
    "Hub",
    "Site",
    "Topology",
    "TwoSites",
    "capture",
    "run",
]
