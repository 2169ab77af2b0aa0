"""Two sites in one machine: cables, configuration, pings, and what a restart must leave alone."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from tests.appliance.host import Host, HostError

PING_SECONDS: Final = 0.005
SELDOM_SECONDS: Final = 0.05
"""Pings every 5 ms take half of an emulated processor: what they measure takes twice as long."""
FAR: Final = "10.99.0.2"
_NETWORK_UNIT: Final = """\
[Unit]
DefaultDependencies=no
Before=network-pre.target
Wants=network-pre.target
After=systemd-modules-load.service local-fs.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh /usr/local/lib/lab-network.sh
[Install]
WantedBy=multi-user.target
"""
_NAMESPACE: Final = (
    "[Unit]\nRequires=lab-network.service\n[Service]\nNetworkNamespacePath=/run/netns/branch\n"
)
_OF_BRANCH: Final = """\
state_directory: /var/lib/bridged/branch
admin: {socket: /run/bridged/branch.sock}
metrics: {listen: "127.0.0.1:9743"}
"""


def write(host: Host, path: str, text: str) -> None:
    host.run(f"mkdir -p $(dirname {path}) && cat > {path} <<'END_OF_FILE'\n{text}END_OF_FILE\n")


def make_network(host: Host) -> None:
    host.run("cp /run/lab/network.sh /usr/local/lib/lab-network.sh")
    write(host, "/etc/systemd/system/lab-network.service", _NETWORK_UNIT)
    write(host, "/etc/systemd/system/bridged@branch.service.d/namespace.conf", _NAMESPACE)
    for unit in ("bridged", "bridged@branch") if host.unit_settings else ():
        text = f"[Service]\n{host.unit_settings}"
        write(host, f"/etc/systemd/system/{unit}.service.d/slow.conf", text)
    host.run("systemctl daemon-reload && systemctl enable --now lab-network.service")


def configure(host: Host) -> None:
    """Both sites, with the commands that the installed configuration file names."""
    host.run(
        "bridged init --state /var/lib/bridged --remote 203.0.113.1 --bridge br0 --port lan0 "
        "--output /etc/bridged/conf.d/server.yaml && systemctl reload bridged"
    )
    host.run(
        "bridged invite branch --state /var/lib/bridged --output /root/branch.ovpn && "
        "bridged join /root/branch.ovpn --bridge br0 --port lan0 --output /etc/bridged/branch.yaml && "
        "rm /root/branch.ovpn"
    )
    own = host.run("cat /etc/bridged/branch.yaml")
    keys = {line.split(":")[0] for line in _OF_BRANCH.splitlines()}
    kept = [line for line in own.splitlines() if line.split(":")[0] not in keys]
    host.run(
        f"cat > /etc/bridged/branch.yaml <<'END_OF_FILE'\n{_OF_BRANCH}" + "\n".join(kept) + "\nEND_OF_FILE"
    )
    host.run("systemctl enable --now bridged@branch.service")


def ping_across(host: Host, seconds: int = 60) -> None:
    """Return with the first ten answers in a row from the other LAN.

    Raises:
        HostError: not within `seconds`.
    """
    host.run(
        f"ip netns exec lan-a timeout {seconds} sh -c 'until ping -n -q -c 10 -i 0.1 -w 3 {FAR}; do :; done'",
        seconds=seconds + 30.0,
    )


@dataclass(frozen=True, slots=True)
class Loss:
    """What pings at a constant rate lost."""

    sent: int
    lost: int
    seconds: float
    """The lost ones' share of the time."""
    longest_gap_seconds: float
    """Between two answers, late ones included."""

    def __str__(self) -> str:
        return (
            f"{self.lost} of {self.sent} pings lost, worth {self.seconds:.2f} s; "
            f"longest gap between answers {self.longest_gap_seconds:.2f} s"
        )


class Watch:
    """Pings across, and records each event of this site's links, until `end`."""

    def __init__(self, host: Host, ping_seconds: float = PING_SECONDS) -> None:
        self._ping_seconds = ping_seconds
        self._host = host
        self._output = ""
        self._links = links(host)
        host.run("systemd-run --quiet --unit=lab-links sh -c 'exec ip monitor link > /run/lab/links'")
        self._thread = threading.Thread(target=self._ping)
        self._thread.start()
        host.run("until [ -s /run/lab/pings ]; do sleep 0.1; done", seconds=60)

    def _ping(self) -> None:
        # SIGINT ends it with a summary.
        script = f"exec ip netns exec lan-a ping -D -n -i {self._ping_seconds} {FAR} > /run/lab/pings"
        self._host.call(f"rm -f /run/lab/pings; echo $$ > /run/lab/ping.pid; {script}", seconds=1800)

    def end(self) -> Loss:
        """Stop, and hold that no link of this site went down, changed its address or was made again.

        Raises:
            HostError: one did, or no ping was answered at the end.
        """
        ping_across(self._host, 180)
        self._host.run("kill -INT $(cat /run/lab/ping.pid); systemctl stop lab-links")
        self._thread.join()
        before, after = self._links, links(self._host)
        if before != after:
            raise HostError(f"links before: {before}\nlinks after: {after}")
        events = self._host.run("cat /run/lab/links")
        bad = [line for line in events.splitlines() if "DOWN" in line or line.startswith("Deleted")]
        if bad:
            raise HostError("a link went down:\n" + "\n".join(bad))
        return _loss(self._host.run("cat /run/lab/pings"))


def links(host: Host) -> str:
    """Number, name, bridge and address of each link of this site."""
    found = []
    for line in host.run("ip -o link show").splitlines():
        number, name, rest = line.split(": ", 2)
        bridge = re.search(r"master \S+", rest)
        address = re.search(r"link/\S+ \S+", rest)
        found.append(f"{number} {name} {bridge[0] if bridge else ''} {address[0] if address else ''}")
    return "\n".join(found)


def _loss(output: str) -> Loss:
    answers = [
        (int(number), float(moment))
        for moment, number in re.findall(r"^\[([\d.]+)\] .*icmp_seq=(\d+) ttl", output, re.MULTILINE)
    ]
    summary = re.search(r"(\d+) packets transmitted, (\d+) received.* time (\d+)ms", output)
    if summary is None or not answers:
        raise HostError(f"no summary of ping:\n{output[-1000:]}")
    sent, received, milliseconds = map(int, summary.groups())
    moments = [moment for _, moment in answers]
    gap = max((after - before for before, after in pairwise(moments)), default=0.0)
    return Loss(sent, sent - received, (sent - received) * milliseconds / 1000 / sent, gap)
