"""DHCP passes: a real server on the LAN gives leases to what is behind a client, and to the client itself."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

import pytest

from tests.interop.interop_ends import Role, openvpn, running
from tests.lab import Lab, Profile, Site, TwoSites
from tests.lab.bridged_daemon import client, server
from tests.lab.demo import DHCLIENT_SCRIPT
from tests.lab.namespace import Namespace
from tests.lab.topology import HOST_PORT

pytestmark = pytest.mark.root
FIRST, LAST = 100, 150


@pytest.fixture(scope="module")
def sites() -> Iterator[TwoSites]:
    with Lab("dhcp") as lab:
        yield TwoSites(lab)


@contextmanager
def dhcp_server(site: Site, folder: Path) -> Iterator[None]:
    """On the host of the site's LAN."""
    host = site.host
    network = host.ipv4.rsplit(".", 1)[0]
    process = host.namespace.popen(
        *("dnsmasq", "--keep-in-foreground", "--log-facility=-", "--log-dhcp", "--conf-file=/dev/null"),
        *("--user=root", "--port=0", f"--interface={HOST_PORT}", "--bind-interfaces", "--no-ping"),
        *("--dhcp-authoritative", f"--dhcp-leasefile={folder / 'leases'}", "--pid-file="),
        f"--dhcp-range={network}.{FIRST},{network}.{LAST},255.255.255.0,10m",
        f"--dhcp-option=option:router,{host.ipv4}",
    )
    try:
        process.wait_for_output("DHCP, IP range", 10)
        yield
    finally:
        process.stop(signal.SIGTERM)


def lease(namespace: Namespace, device: str, folder: Path) -> tuple[str, str]:
    """Ask for an address on this device: the address, and the router that comes with it."""
    script = folder / "script"
    script.write_text(DHCLIENT_SCRIPT)
    script.chmod(0o755)
    process = namespace.popen(
        *("dhclient", "-4", "-d", "-1", "-sf", str(script), "-cf", "/dev/null"),
        *("-lf", str(folder / f"{device}.leases"), "-pf", str(folder / f"{device}.pid"), device),
    )
    try:
        process.wait_for_output("bound to", 20)
        found = re.search(r"lease (\S+) router (\S+)", process.output())
        assert found is not None, process.output()
        namespace.ip("addr", "del", f"{found[1]}/24", "dev", device)
        return found[1], found[2]
    finally:
        process.stop(signal.SIGKILL)


@pytest.mark.parametrize("build", ["native", "portable"])
@pytest.mark.parametrize("ours_as", get_args(Role))
def test_hosts_behind_a_client_and_the_client_get_leases_from_the_server_s_lan(
    sites: TwoSites, ours_as: Role, build: str, tmp_path: Path
) -> None:
    profile = Profile()
    tunnel = {"dataplane": build}
    own, other = profile.authority.issue("server", "server"), profile.authority.issue("client", "client")
    far = sites.a.wan_ipv4
    if ours_as == "server":
        daemon = server(sites.a, profile, own, tunnel=tunnel)
        theirs = openvpn(sites.b, "client", profile, other, remote=far)
    else:
        daemon = client(sites.b, profile, other, far, tunnel=tunnel)
        theirs = openvpn(sites.a, "server", profile, own)
    with dhcp_server(sites.a, tmp_path), theirs as end, running(daemon) as ours:
        end.wait_connected()
        ours.wait_connected()
        assert ours.tunnel()["dataplane"]["dataplane"] == build
        network, router = sites.a.host.ipv4.rsplit(".", 1)[0], sites.a.host.ipv4
        places = ((sites.b.host.namespace, HOST_PORT), (sites.b.namespace, "br0"))
        leases = [lease(namespace, device, tmp_path) for namespace, device in places]
        assert {found for _, found in leases} == {router}
        assert len({address for address, _ in leases}) == 2
        for address, _ in leases:
            assert address.startswith(f"{network}.") and FIRST <= int(address.rsplit(".", 1)[1]) <= LAST
