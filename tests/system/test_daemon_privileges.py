"""The daemon works with the unit's capabilities and as another user, and gives up root by itself."""

from __future__ import annotations

import os
import pwd
import re
import ssl
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.lab import LAN_PORT, Bridged, Lab, Profile, Site, TwoSites, bridged_daemon
from tests.lab.host_links import photograph
from tests.lab.pki import Authority, write_private
from tests.lab.service_manager import ServiceManager
from tests.lab.waiting import wait_for

pytestmark = pytest.mark.root

UNIT = Path(__file__).parents[2] / "deploy/systemd/bridged.service"
USER = pwd.getpwnam("daemon")
"""Every Debian has this user, and nothing of its own runs as it."""
NUMBERS = {"CAP_NET_BIND_SERVICE": 10, "CAP_NET_ADMIN": 12, "CAP_NET_RAW": 13}
HOST_IPV4, HOST_IPV6 = "10.99.0.200", "fd99::c8"
LOW_PORT = 443


def unit_capabilities() -> list[str]:
    """Those that the unit gives; the tests run with exactly these."""
    found = re.findall(r"^(?:Ambient|CapabilityBounding)\w+=(.*)$", UNIT.read_text(), re.MULTILINE)
    assert len(found) == 2
    assert found[0] == found[1]
    return str(found[0]).split()


def as_unit(*without: str) -> tuple[str, ...]:
    """The program that gives a process user and capabilities as systemd does."""
    kept = [name for name in unit_capabilities() if name not in without]
    words = ",".join(["-all", *(f"+{name.removeprefix('CAP_').lower()}" for name in kept)])
    return (
        *("setpriv", f"--reuid={USER.pw_uid}", f"--regid={USER.pw_gid}", "--clear-groups", "--no-new-privs"),
        *(f"--inh-caps={words}", f"--ambient-caps={words}", f"--bounding-set={words}"),
    )


def with_debians_tun(directory: Path) -> tuple[str, ...]:
    """The program that gives one process a /dev/net/tun with the mode that udev sets."""
    device = directory / "tun"
    if not device.exists():
        os.mknod(device, 0o666 | stat.S_IFCHR, os.makedev(10, 200))
        device.chmod(0o666)
    return ("sh", "-c", f'mount --bind {device} /dev/net/tun && exec "$@"', "sh")


def mask(*names: str) -> str:
    return f"{sum(1 << NUMBERS[name] for name in names):016x}"


def rights(pid: int) -> dict[str, str]:
    """What the kernel says of a process's user and capabilities."""
    lines = (line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {name: " ".join(value.split()) for name, value in lines}


def core_limit(pid: int) -> str:
    return next(line for line in Path(f"/proc/{pid}/limits").read_text().splitlines() if "core file" in line)


@dataclass(slots=True)
class Sites:
    """Site b has the host's addresses on its LAN port; its client is not started."""

    sites: TwoSites
    server: Bridged
    client: Bridged

    @property
    def site(self) -> Site:
        return self.sites.b


@pytest.fixture
def sites() -> Iterator[Sites]:
    with Lab("rights") as lab:
        lab.directory.chmod(0o755)
        made = TwoSites(lab, bridges=False)
        space = made.b.namespace
        space.sysctl(f"net.ipv6.conf.{LAN_PORT}.disable_ipv6", 0)
        space.sysctl(f"net.ipv6.conf.{LAN_PORT}.accept_ra", 2)
        space.ip("addr", "add", f"{HOST_IPV4}/24", "dev", LAN_PORT)
        space.ip("addr", "add", f"{HOST_IPV6}/64", "dev", LAN_PORT, "nodad")
        profile = Profile()
        issue = profile.authority.issue
        listen = f"0.0.0.0:{LOW_PORT}"
        server = bridged_daemon.server(
            made.a, profile, issue("server", "server"), listen=listen, top=folders(lab.directory, "a")
        )
        client = bridged_daemon.client(
            made.b,
            profile,
            issue("client", "client"),
            f"{made.a.wan_ipv4}:{LOW_PORT}",
            top=folders(lab.directory, "b"),
        )
        server.under = client.under = with_debians_tun(lab.directory)
        yield Sites(made, server, client)


def folders(directory: Path, name: str) -> Mapping[str, Any]:
    return {
        "state_directory": str(directory / f"{name}-state"),
        "admin": {"socket": str(directory / f"{name}-run" / "bridged.sock")},
    }


def give_to_user(daemon: Bridged) -> None:
    """What the unit and the package do: folders of the daemon's own, and a configuration that it may read."""
    for folder in (daemon.state_directory, daemon.socket.parent):
        folder.mkdir(mode=0o700)
        os.chown(folder, USER.pw_uid, USER.pw_gid)
    for file in (daemon.file, key_of(daemon)):
        os.chown(file, USER.pw_uid, USER.pw_gid)


def key_of(daemon: Bridged) -> Path:
    """The file with its private key, which only root may read at first."""
    tls = daemon.configuration["tunnels"]["lab"]["tls"]
    if "\n" in tls["key"]:
        file = daemon.file.with_suffix(".key")
        write_private(file, tls["key"])
        tls["key"] = str(file)
        daemon.write()
    return Path(tls["key"])


def test_with_the_units_user_and_capabilities_everything_works_and_nothing_less_is_enough(
    sites: Sites,
) -> None:
    before = sites.site.namespace.call(photograph)
    with ExitStack() as stack:
        managers = []
        for daemon in (sites.server, sites.client):
            give_to_user(daemon)
            managers.append(stack.enter_context(ServiceManager(daemon, under=(*daemon.under, *as_unit()))))
            managers[-1].start()
        sites.client.wait_connected()
        found = rights(sites.client.started.pid)
        wanted = mask(*unit_capabilities())
        assert {found[name] for name in ("CapEff", "CapPrm", "CapBnd")} == {wanted}
        assert found["Uid"] == " ".join([str(USER.pw_uid)] * 4)
        assert core_limit(sites.client.started.pid).split()[4:6] == ["0", "0"]
        host = sites.sites.a.host
        host.ping(HOST_IPV4)
        host.ping(HOST_IPV6, "-6")
        host.ping(sites.sites.b.host.ipv4)
        # What it wrote below /proc/sys, and that no duty of it is undone for want of a right.
        assert sites.site.namespace.run("cat", "/proc/sys/net/ipv6/conf/br0/accept_ra").strip() == "2"
        for daemon in (sites.server, sites.client):
            assert daemon.status()["duties"]["undone"] == []
            assert daemon.reload().startswith("applied")
        for manager in reversed(managers):
            assert manager.stop() == 0
    assert sites.site.namespace.call(photograph) == before


@pytest.mark.parametrize(
    ("missing", "consequence"),
    [
        ("CAP_NET_ADMIN", "may not open"),
        ("CAP_NET_BIND_SERVICE", "cannot bind UDP"),
    ],
)
def test_no_capability_of_the_unit_is_superfluous(sites: Sites, missing: str, consequence: str) -> None:
    daemon = sites.server
    give_to_user(daemon)
    process = daemon.site.namespace.popen(
        *(*daemon.under, *as_unit(missing)),
        bridged_daemon.BRIDGED,
        "run",
        "--config",
        str(daemon.file),
        log=daemon.name,
    )
    process.wait_for_output(consequence)
    process.stop()


@pytest.mark.parametrize("missing", [(), ("CAP_NET_RAW",)])
def test_the_lan_hears_where_an_address_moved_only_with_packet_sockets(
    sites: Sites, missing: tuple[str, ...]
) -> None:
    arp = f"arp src host {HOST_IPV4} and arp dst host {HOST_IPV4}"
    heard = sites.sites.b.host.namespace.popen("tcpdump", "-l", "-n", "-i", "eth0", arp, log="arp")
    heard.wait_for_output("listening on")
    sites.server.start()
    give_to_user(sites.client)
    with ServiceManager(sites.client, under=(*sites.client.under, *as_unit(*missing))) as manager:
        manager.start()
        sites.client.wait_connected()
        if missing:
            assert HOST_IPV4 not in heard.output().partition("listening on")[2]
        else:
            heard.wait_for_output(f"who-has {HOST_IPV4} tell {HOST_IPV4}")
        assert manager.stop() == 0


def test_a_daemon_that_root_starts_becomes_its_user_and_a_reload_reads_roots_keys(sites: Sites) -> None:
    scrape = roots_web_configuration(sites.client)
    for daemon in (sites.server, sites.client):
        daemon.configuration["user"] = USER.pw_name
        key_of(daemon)
        daemon.write()
        daemon.start()
    client = sites.client.wait_connected()
    assert client.site.namespace.call(scrape) == 200
    web = client.file.with_name("web")
    write_private(web / "web.yml", (web / "web.yml").read_text() + "http_server_config: {http2: false}\n")

    def read_again() -> bool:
        return scrape() == 200 and "web_config_read" in client.log

    client.site.namespace.call(partial(wait_for, read_again, "the web configuration, read again", 20, 0.5))
    found = rights(client.started.pid)
    kept = mask("CAP_NET_ADMIN", "CAP_NET_BIND_SERVICE", "CAP_NET_RAW")
    assert {found[name] for name in ("CapEff", "CapPrm", "CapBnd")} == {kept}
    assert (found["CapInh"], found["NoNewPrivs"]) == ("0" * 16, "1")
    assert found["Uid"] == " ".join([str(USER.pw_uid)] * 4)
    key = key_of(client)
    assert (key.stat().st_uid, key.stat().st_mode & 0o777) == (0, 0o600)
    sites.sites.a.host.ping(sites.sites.b.host.ipv4)
    # Another key, in a file that only root may read, too.
    moved = key.with_name("moved.key")
    moved.write_bytes(key.read_bytes())
    moved.chmod(0o600)
    client.configuration["tunnels"]["lab"]["tls"]["key"] = str(moved)
    assert client.reload().startswith("applied")
    client.configuration["tunnels"]["lab"]["tls"]["key"] = "/nowhere/there.key"
    client.write()
    refusal = client.command("reload", "--config", str(client.file), check=False)
    assert "applied" not in refusal
    reader = children(client.started.pid)
    assert [rights(pid)["CapPrm"] for pid in reader] == [f"{1 << 2:016x}"]
    assert client.stop() == 0
    assert sites.server.stop() == 0
    for daemon in (sites.server, sites.client):
        assert daemon.state_directory.stat().st_uid == USER.pw_uid


def roots_web_configuration(daemon: Bridged) -> Callable[[], int]:
    """Metrics over TLS, from a folder that only root may enter; what scrapes them."""
    folder = daemon.file.with_name("web")
    folder.mkdir(mode=0o700)
    authority = Authority("Metrics CA")
    authority.issue("metrics", "server", addresses=("127.0.0.1",)).write(folder)
    (folder / "web.yml").write_text("tls_server_config: {cert_file: metrics.crt, key_file: metrics.key}\n")
    for file in folder.iterdir():
        file.chmod(0o600)
    daemon.configuration["metrics"] = {
        "listen": "127.0.0.1:9743",
        "web_config_file": str(folder / "web.yml"),
    }

    def scrape() -> int:
        context = ssl.create_default_context(cadata=authority.certificate)
        with httpx.Client(verify=context, trust_env=False) as client:
            return client.get("https://127.0.0.1:9743/metrics", timeout=20).status_code

    return scrape


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
