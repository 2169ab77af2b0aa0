"""What a namespace of the lab must not take over from this machine: sysctls, and the hosts' TCP.

A new network namespace copies the IPv4 settings of the machine's own (`rp_filter`, forwarding, ARP, TCP
buffers, the congestion control); some administrators have IPv6 settings copied as well. So the lab writes the
kernel's defaults, and every TCP stream names its congestion control on its own socket: root may set any
algorithm that the kernel has there, whatever `tcp_allowed_congestion_control` says.
"""

from __future__ import annotations

import functools
import socket
from collections.abc import Iterator
from pathlib import Path

_SYSCTLS = Path("/proc/sys")
_IPV4 = {
    "forwarding": "0",
    "rp_filter": "0",
    "accept_local": "0",
    "accept_redirects": "1",
    "send_redirects": "1",
    "arp_accept": "0",
    "arp_announce": "0",
    "arp_filter": "0",
    "arp_ignore": "0",
    "arp_notify": "0",
    "drop_gratuitous_arp": "0",
    "drop_unicast_in_l2_multicast": "0",
    "ignore_routes_with_linkdown": "0",
    "promote_secondaries": "0",
    "proxy_arp": "0",
    "proxy_arp_pvlan": "0",
    "route_localnet": "0",
    "src_valid_mark": "0",
}
_IPV6 = {
    "disable_ipv6": "0",
    "forwarding": "0",
    "accept_ra": "1",
    "accept_redirects": "1",
    "addr_gen_mode": "0",
    "autoconf": "1",
    "proxy_ndp": "0",
    "use_tempaddr": "0",
}
_NAMESPACE = {
    # The kernel takes the larger one of `all` and the interface's own: with a 1 no interface can be without.
    "net.ipv6.conf.all.accept_dad": "0",
    "net.ipv6.conf.default.accept_dad": "1",
    "net.ipv4.tcp_rmem": "4096 131072 6291456",
    "net.ipv4.tcp_wmem": "4096 16384 4194304",
}
CONGESTION_WANTED = "cubic"
CONGESTION_ALWAYS = "reno"
"""Part of every kernel."""


def sysctl_path(key: str) -> Path:
    """The file of a sysctl whose name has no dot within a part."""
    return _SYSCTLS / key.replace(".", "/")


def defaults() -> Iterator[tuple[Path, str]]:
    """(file, value) of everything that a namespace would take over."""
    for family, values in (("ipv4", _IPV4), ("ipv6", _IPV6)):
        for scope in ("all", "default"):
            for name, value in values.items():
                yield sysctl_path(f"net.{family}.conf.{scope}.{name}"), value
    for key, value in _NAMESPACE.items():
        yield sysctl_path(key), value


def forget_machine() -> None:
    """Write the kernel's defaults in the namespace that this thread is in; for one that was just made."""
    for file, value in defaults():
        if file.exists():
            file.write_text(value, encoding="ascii")


@functools.cache
def usable_congestion(wanted: str = CONGESTION_WANTED) -> str:
    """`wanted` where root may set it on a socket of its own, else CONGESTION_ALWAYS.

    The first use loads the algorithm's module where it is one: a namespace alone could not.
    """
    with socket.socket() as sock:
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, wanted.encode())
        except OSError:
            return CONGESTION_ALWAYS
    return wanted


def iperf3_client(target: str, *options: str, congestion: str = CONGESTION_WANTED) -> tuple[str, ...]:
    """The command of iperf3's client; its server takes the same congestion control for what it sends."""
    tcp = () if "-u" in options else ("-C", usable_congestion(congestion))
    return ("iperf3", "-c", target, *tcp, *options)


def iperf3_server(*options: str) -> tuple[str, ...]:
    """The command of iperf3's server; it says "Server listening" at once."""
    return ("iperf3", "-s", "--forceflush", *options)
