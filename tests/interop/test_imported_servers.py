"""A server's file of OpenVPN becomes a daemon of ours, which OpenVPN's clients find unchanged."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tests.interop.interop_ends import openvpn, running
from tests.lab import Bridged, Lab, Profile, Site, TwoSites, run
from tests.lab.bridged_daemon import BRIDGED, TUNNEL, client
from tests.lab.openvpn import COMPLETED, WrapMode
from tests.lab.pki import write_private

pytestmark = pytest.mark.root

CLASSIC = """\
# As the how-tos of bridges have it.
port {port}
proto udp
dev tap0
ca ca.crt
cert server.crt
key server.key   # keep it secret
dh dh2048.pem
ifconfig-pool-persist ipp.txt
server-bridge 192.0.2.4 255.255.255.0 192.0.2.50 192.0.2.60
push "route 198.51.100.0 255.255.255.0"
push "dhcp-option DOMAIN lab.example"
client-to-client
keepalive 2 12
tls-auth wrap.key 0 # 0 at the server
cipher AES-256-CBC
max-clients 10
user nobody
group nogroup
persist-key
persist-tun
status openvpn-status.log
up "/etc/openvpn/up.sh br0 tap0 1500"
verb 3
"""
PLAIN = """\
mode server
tls-server
local {address}
port {port}
proto udp4
dev vtun10
dev-type tap
server-bridge nogw
ca ca.crt
cert server.crt
key server.key
dh none
duplicate-cn
ping 2
ping-restart 12
tls-crypt wrap.key
crl-verify crl.pem
"""
OPENWRT = """\
config openvpn '{tunnel}'
\toption enabled '1'
\toption dev 'tap0'
\toption proto 'udp'
\toption port '{port}'
\toption server_bridge ''
\toption mode 'server'
\toption tls_server '1'
\toption ca 'ca.crt'
\toption cert 'server.crt'
\toption key 'server.key'
\toption dh 'dh2048.pem'
\toption keepalive '2 12'
\toption persist_key '1'
"""


def imported(lab: Lab, site: Site, text: str, profile: Profile) -> Bridged:
    """The daemon of what `bridged import` makes; the folder has the files that the text names."""
    folder = lab.directory / "openvpn"
    folder.mkdir()
    identity = profile.authority.issue("server", "server")
    write_private(folder / "server.crt", identity.certificate)
    write_private(folder / "server.key", identity.key)
    write_private(folder / "ca.crt", profile.authority.certificate)
    write_private(folder / "crl.pem", profile.authority.revocation_list())
    write_private(folder / "wrap.key", profile.wrap_key)
    file, output = folder / f"{TUNNEL}.conf", folder / "bridged.yaml"
    file.write_text(text.format(port=profile.port, address=site.wan_ipv4, tunnel=TUNNEL))
    run(BRIDGED, "import", str(file), "--port", "lan0", "--output", str(output))
    return Bridged(site, yaml.safe_load(Path(output).read_text()))


@pytest.mark.parametrize(
    ("text", "wrap", "pushed"),
    [
        (CLASSIC, "tls-auth", ("route-gateway 192.0.2.4", "dhcp-option DOMAIN lab.example")),
        (PLAIN, "tls-crypt", ()),
        (OPENWRT, "none", ()),
    ],
    ids=["classic", "plain", "openwrt"],
)
def test_an_openvpn_client_connects_to_an_imported_server_as_before(
    text: str, wrap: WrapMode, pushed: tuple[str, ...]
) -> None:
    with Lab("imported") as lab:
        sites, profile = TwoSites(lab), Profile(wrap=wrap)
        # Of an old CA, which writes no extended key usage.
        identity = profile.authority.issue("client", "none")
        with (
            running(imported(lab, sites.a, text, profile)) as ours,
            openvpn(sites.b, "client", profile, identity, remote=sites.a.wan_ipv4) as theirs,
        ):
            theirs.wait_connected()
            ours.wait_connected()
            sites.a.host.ping(sites.b.host.ipv4)
            reply = [line for line in theirs.log.splitlines() if "PUSH_REPLY" in line]
            assert reply and all(option in reply[0] for option in pushed), theirs.log
            assert "ping 2" in reply[0] and "ping-restart 12" in reply[0]


def test_an_exported_tunnel_works_in_openvpn_once_the_lines_of_its_heading_are_in_it() -> None:
    with Lab("exported") as lab:
        sites, profile = TwoSites(lab), Profile(wrap="tls-crypt")
        ours = client(sites.b, profile, profile.authority.issue("client", "client"), sites.a.wan_ipv4)
        file = lab.directory / "site-b.ovpn"
        run(BRIDGED, "export", TUNNEL, "--config", str(ours.file), "--output", str(file))
        start = re.findall(r"^#   (openvpn .*)$", file.read_text(), re.MULTILINE)[0]
        lines = re.findall(r"^#     ((?:script-security|up) .*)$", file.read_text(), re.MULTILINE)
        assert len(lines) == 2
        write_private(file, file.read_text() + "\n".join(lines) + "\n")
        with running(imported(lab, sites.a, PLAIN, profile)) as server:
            theirs = sites.b.namespace.popen(*start.replace("FILE", str(file)).split(), log="exported")
            theirs.wait_for_output(COMPLETED, 20)
            server.wait_connected()
            sites.a.host.ping(sites.b.host.ipv4)
