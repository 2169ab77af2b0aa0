"""Servers' files: what each directive becomes, and what is said of the rest."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bridged.configuration.load import parse
from bridged.errors import ConfigurationError
from bridged.profiles import parse_profile, read_file, render_yaml, to_configuration
from bridged.profiles.mapping_trust import CIPHERS
from bridged.profiles.meanings import BECOMES, SERVER_BECOMES
from bridged.profiles.not_yet import NOT_YET
from bridged.profiles.table import DIRECTIVES
from tests.unit.profiles.profile_texts import TRUST

ROUTE = "route 192.0.2.0 255.255.255.0"
REDIRECT = "redirect-gateway def1"
IDENTITY = "ca ca.crt\ncert server.crt\nkey server.key\n"
BRIDGE = "server-bridge 10.8.0.4 255.255.255.0 10.8.0.50 10.8.0.100\n"


def reading(lines, base="dev tap\n" + BRIDGE):
    return read_file(base + lines + IDENTITY, "server.conf")


def tunnel(lines="", base="dev tap\n" + BRIDGE):
    found = reading(lines, base)
    assert not found.errors, found.errors
    data = to_configuration(found.profile, TRUST, tunnel_name="t", bridge="br0")
    configuration = parse(render_yaml(data), Path("/x/t.yaml"))
    return configuration.tunnels["t"], configuration.bridges["br0"]


@pytest.mark.parametrize(
    ("lines", "key", "value"),
    [
        ("client-to-client\n", "forward_between_peers", True),
        ("", "forward_between_peers", False),
        ("duplicate-cn\n", "duplicate_names", True),
        ("ccd-exclusive\n", "only_known_clients", True),
        ("auth-user-pass-verify x.sh via-env\n", "authentication.client_certificate", "required"),
        ("auth-user-pass-verify x.sh via-file\nauth-gen-token 600\n", "authentication.token_seconds", 600),
        ("plugin /usr/lib/openvpn-plugin-auth-pam.so x\n", "authentication.name_from", "certificate"),
        ("verify-client-cert optional\n", "authentication.client_certificate", "optional"),
        (
            "client-cert-not-required\nusername-as-common-name\n",
            "authentication.name_from",
            "username",
        ),
        ("plugin auth-pam.so x\nauth-user-pass-optional\n", "authentication.optional", True),
        ("", "authentication", None),
        ("", "duplicate_names", False),
        ("max-clients 7\n", "peers_max", 7),
        ("", "listen", None),
        ("port 1195\n", "listen", "[::]:1195"),
        ("proto udp4\n", "listen", "0.0.0.0:1194"),
        ("local 192.0.2.1\nport 500\n", "listen", "192.0.2.1:500"),
        ("local 2001:db8::1\n", "listen", "[2001:db8::1]:1194"),
        ("local 192.0.2.1 501\n", "listen", "192.0.2.1:501"),
        ("reneg-sec 0\n", "renegotiate.seconds", 0),
        ("keepalive 7 50\n", "keepalive.ping_seconds", 7),
        ("keepalive 7 50\n", "keepalive.restart_seconds", 50),
        ("explicit-exit-notify 0\n", "exit_notify", False),
        ("tls-auth ta.key 0\nauth SHA256\n", "wrap.digest", "SHA256"),
        ("tls-crypt ta.key\n", "wrap.mode", "tls-crypt"),
        ("tls-crypt-v2 s.key force-cookie\ntls-crypt-v2-max-age 30\n", "wrap.max_age_days", 30),
        (
            "tls-crypt-v2 s.key\ntls-crypt-v2-verify '/bin/check -x \"a b\"'\n",
            "wrap.verify_command",
            ("/bin/check", "-x", "a b"),
        ),
        ("remote-cert-tls client\n", "tls.peer_role", "client"),
        ("", "tls.peer_role", "compatible"),
        ("crl-verify crl.pem\n", "tls.crl", None),
        ("data-ciphers DEFAULT:BF-CBC\n", "ciphers", CIPHERS),
        ("data-ciphers AES-256-CBC\n", "ciphers", ("AES-256-CBC",)),
        ("cipher AES-256-CBC\n", "fallback_cipher", "AES-256-CBC"),
        ("cipher AES-256-CBC\nauth SHA384\n", "auth", "SHA384"),
        ("proto tcp\nport-share 127.0.0.1 8443\n", "port_share", "127.0.0.1:8443"),
        (f"push '{ROUTE}'\n", "push", (ROUTE,)),
        ("", "address_pool.gateway", "10.8.0.4"),
        ("comp-lzo\n", "compression_framing", "auto"),
        ("compress lz4-v2\n", "compression_framing", "auto"),
        ('push "dhcp-option DOMAIN "example.net"\n', "push", ('dhcp-option DOMAIN example.net"',)),
        ('push "persist-key"\npush "ping 5"\npush "comp-lzo no"\n', "push", ()),
        ('push "cipher AES-256-CBC"\npush "peer-id 7"\n', "push", ()),
        (f"push 'route-gateway 10.8.0.9'\npush '{ROUTE}'\n", "push", ("route-gateway 10.8.0.9", ROUTE)),
    ],
)
def test_a_line_becomes_a_key(lines, key, value):
    found, _ = tunnel(lines)
    for name in key.split("."):
        found = getattr(found, name)
    assert found == value


def test_a_tls_server_without_many_clients_is_an_end_of_a_point_to_point_link():
    lines = "tls-server\nmode p2p\nremote 192.0.2.7\nport 1195\nifconfig 10.8.0.1 255.255.255.0\n"
    found, bridge = tunnel(lines, "dev tap\n")
    assert (found.role, found.point_to_point, found.listen) == ("server", True, "[::]:1195")
    assert bridge.addresses == ("10.8.0.1/24",)
    assert "forward_between_peers" not in found.model_fields_set
    assert any("this end waits" in notice.text for notice in reading(lines, "dev tap\n").profile.notices)
    assert not tunnel("tls-server\nmode server\n", "dev tap\n")[0].point_to_point


@pytest.mark.parametrize(
    ("base", "addresses", "push"),
    [
        (BRIDGE, (), (REDIRECT,)),
        ("server-bridge\n", (), ("route-gateway dhcp", REDIRECT)),
        ("server-bridge nogw\n", (), (REDIRECT,)),
        ("mode server\ntls-server\n", (), (REDIRECT,)),
        ("server 10.8.0.0 255.255.255.0\n", ("10.8.0.1/24",), (REDIRECT,)),
    ],
)
def test_each_form_of_a_server(base, addresses, push):
    found, bridge = tunnel("push 'redirect-gateway def1'\n", "dev tap\n" + base)
    assert (found.role, bridge.addresses, found.push) == ("server", addresses, push)


@pytest.mark.parametrize(
    ("lines", "transport", "listen"),
    [
        ("proto tcp-server", "tcp", None),
        ("proto tcp4-server\nport 443", "tcp", "0.0.0.0:443"),
        ("proto tcp6\nlocal 2001:db8::1", "tcp", "[2001:db8::1]:1194"),
        ("proto udp4", "udp", "0.0.0.0:1194"),
    ],
)
def test_the_protocol_says_where_to_listen(lines, transport, listen):
    found, _ = tunnel(lines + "\n")
    assert (found.transport, found.listen) == (transport, listen)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("port-share 127.0.0.1", "host and the port"),
        ("plugin other.so", "plug-ins are not loaded"),
        ("vlan-tagging", "VLAN"),
        ("remote vpn.example.net", "client's profile"),
        ("client", "client's profile"),
        ("tls-verify x.sh", "script is not run"),
        ("tls-crypt-v2-verify check.sh", "whole path"),
        ("tls-crypt-v2-verify '\"/bin/check'", "cannot be read"),
        ("server-bridge 10.8.0.4 255.255.255.0 10.9.0.50 10.9.0.60", "not a range"),
        ("server-bridge 10.8.0.4", "FROM TO"),
        ("server 10.8.0.1 255.255.255.0", "needs a network"),
        ("local vpn.example.net", "listen on"),
        ("local", "needs an address"),
        ("push 'a,b'", "comma"),
        ("push 'dhcp-option DOMAIN büro'", "ASCII"),
        ("push “route”", "typographic"),
        ("port {{ port }}", "unfilled template"),
        ("max-clients 0", "number"),
        ("frobnicate", "no directive"),
        ("push-reset", "`client-config-dir`"),
        ("ifconfig-push 10.8.0.7 255.255.255.0", "`client-config-dir`"),
    ],
)
def test_what_cannot_be_done_is_refused_with_line_and_reason(line, reason):
    found = reading(line + "\n")
    assert [(error.line, reason in error.reason) for error in found.errors] == [(3, True)]
    (outcome,) = [outcome for outcome in found.report if outcome.verdict == "refused"]
    assert outcome.line == 3 and reason in outcome.text


def test_the_report_has_each_line_with_its_verdict():
    found = reading(
        "user nobody\nverb 3\nup '/etc/openvpn/up.sh br7 tap0 1500'\nclient-connect x.sh\ncomp-lzo\n"
    )
    assert [(outcome.line, outcome.name, outcome.verdict) for outcome in found.report] == [
        (1, "dev", "taken"),
        (2, "server-bridge", "taken"),
        (3, "user", "not needed"),
        (4, "verb", "not needed"),
        (5, "up", "changed"),
        (6, "client-connect", "not needed"),
        (7, "comp-lzo", "changed"),
        (8, "ca", "taken"),
        (9, "cert", "taken"),
        (10, "key", "taken"),
        (0, "client-to-client", "changed"),
    ]
    assert found.profile.bridge == "br7"


@pytest.mark.parametrize(
    ("command", "bridge"),
    [
        ("/etc/openvpn/up.sh br0 tap0 1500", "br0"),
        ("/bin/sh -c 'ip link set $0 master lan0'", "lan0"),
        ("/bin/sh -c 'brctl addif office $dev'", "office"),
        ("/bin/sh -c 'ip link set $0 master $1'", None),
        ("/bin/sh -c 'brctl addif $BRIDGE tap0'", None),
        ("/bin/sh -c 'bridge link set dev tap0'", None),
        ("/bin/sh /etc/openvpn/bridge-up tap0", None),
        ("/etc/openvpn/up.sh br-lan", "br-lan"),
        ("/etc/openvpn/up.sh vmbr0.7 tap0", "vmbr0.7"),
        ("ovs-vsctl --may-exist add-port switch0 tap0", "switch0"),
        ("ifconfig bridge0 addm tap0 up", "bridge0"),
        ("/etc/openvpn/up.sh", None),
    ],
)
def test_the_bridge_that_an_up_script_names(command, bridge):
    assert reading(f'up "{command}"\n').profile.bridge == bridge


def test_join_refuses_a_server_s_file():
    with pytest.raises(ConfigurationError, match="server"):
        parse_profile("dev tap\n" + BRIDGE + IDENTITY, "server.conf")


def test_every_mapped_directive_says_what_it_becomes():
    taken = {name for name, entry in DIRECTIVES["client"].items() if entry.kind == "taken"}
    assert taken == set(BECOMES)
    of_server = {
        name
        for name, entry in DIRECTIVES["server"].items()
        if entry.kind == "taken" and entry != DIRECTIVES["client"].get(name)
    }
    assert of_server == set(SERVER_BECOMES)


def test_an_ability_is_one_entry_of_one_table():
    names = [name for missing in NOT_YET.values() for name in missing.directives]
    assert len(names) == len(set(names))
    for ability, missing in NOT_YET.items():
        assert all(DIRECTIVES["client"][name].needs == ability for name in missing.directives)


@pytest.mark.parametrize("old", ["tls-crypt", "tls-auth"])
@pytest.mark.parametrize("is_first", [True, False])
def test_a_wrap_beside_tls_crypt_v2_is_that_of_old_clients(old, is_first):
    lines = [f"{old} old.key{' 0' if old == 'tls-auth' else ''}", "tls-crypt-v2 server.key"]
    lines = lines if is_first else lines[::-1]
    found = reading("\n".join([*lines, "auth SHA256", ""]))
    server = found.demand().server
    assert (found.profile.wrap, found.profile.wrap_key.path) == ("tls-crypt-v2", "server.key")
    assert (server.old_wrap, server.old_wrap_key.path) == (old, "old.key")
    trust = replace(TRUST, old_wrap_key="/x/old.key")
    document = to_configuration(found.profile, trust, tunnel_name="t", bridge="br0")
    wrap = parse(render_yaml(document), Path("/x/t.yaml")).tunnels["t"].wrap
    assert (wrap.old_clients_key, wrap.old_clients_mode) == ("/x/old.key", old)
    assert (wrap.direction, wrap.digest) == ((0, "SHA256") if old == "tls-auth" else (None, "SHA1"))


def test_only_one_wrap_is_beside_tls_crypt_v2():
    found = reading("tls-crypt-v2 s.key\ntls-crypt c.key\ntls-auth a.key\n")
    assert ["only one of tls-auth and tls-crypt" in error.reason for error in found.errors] == [True]
