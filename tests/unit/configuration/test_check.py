"""Rules over several keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bridged.configuration.check import find_conflicts, find_warnings
from bridged.configuration.schema import Configuration

EMBEDDED = {"embedded": True}
FILES = {"ca": "/x/ca.crt", "certificate": "/x/own.crt", "key": "/x/own.key"}


def server(**changes: Any) -> dict[str, Any]:
    return {"role": "server", "bridge": "br0", "tls": EMBEDDED, "wrap": {"mode": "tls-crypt"}, **changes}


def client(**changes: Any) -> dict[str, Any]:
    return {"role": "client", "bridge": "br0", "remotes": ["a.example"], "tls": FILES, **changes}


def built(**changes: Any) -> Configuration:
    values = {"bridges": {"br0": {}}, "tunnels": {"a": server()}, **changes}
    return Configuration.model_validate(values)


def conflict(**changes: Any) -> tuple[str, str]:
    ((path, reason),) = find_conflicts(built(**changes))
    return ".".join(str(part) for part in path), reason


def test_the_base_of_these_tests_has_no_conflict() -> None:
    assert find_conflicts(built()) == []
    assert find_warnings(built()) == []
    assert find_conflicts(built(tunnels={"a": client()})) == []


@pytest.mark.parametrize(
    ("one", "other", "clashes"),
    [
        (None, None, True),
        (None, "[::]:1194", True),
        (None, "0.0.0.0:1194", True),
        ("0.0.0.0:1194", "192.0.2.1:1194", True),
        ("192.0.2.1:1194", "192.0.2.1:1194", True),
        ("192.0.2.1:1194", "192.0.2.2:1194", False),
        ("192.0.2.1:1194", "192.0.2.1:1195", False),
        ("0.0.0.0:1194", "[2001:db8::1]:1194", False),
        ("[2001:db8::1]:1194", "[2001:db8::2]:1194", False),
    ],
)
def test_two_tunnels_cannot_listen_on_one_address(one: str | None, other: str | None, clashes: bool) -> None:
    found = find_conflicts(built(tunnels={"a": server(listen=one), "b": server(listen=other)}))
    assert [path for path, _ in found] == ([("tunnels", "b", "listen")] if clashes else [])


def test_a_client_cannot_send_from_a_server_s_port() -> None:
    key, reason = conflict(tunnels={"a": server(), "b": client(local="192.0.2.1:1194")})
    assert key == "tunnels.b.local"
    assert "tunnel a" in reason


def test_one_adapter_name_serves_one_tunnel() -> None:
    tunnels = {"a": server(tap={"name": "tap7"}), "b": client(tap={"name": "tap7"})}
    assert conflict(tunnels=tunnels)[0] == "tunnels.b.tap.name"


def test_names_that_are_cut_to_the_same_adapter_name_clash() -> None:
    tunnels = {"branch-office-1": server(), "branch-office-2": client()}
    assert "tap-branch-offi" in conflict(tunnels=tunnels)[1]


def test_a_port_belongs_to_one_bridge_and_stands_there_once() -> None:
    key, reason = conflict(bridges={"br0": {"ports": ["eth1"]}, "br1": {"ports": ["eth2", "eth1"]}})
    assert (key, reason) == ("bridges.br1.ports.1", "eth1 is already a port of bridge br0")
    assert conflict(bridges={"br0": {"ports": ["eth1", "eth1"]}})[0] == "bridges.br0.ports.1"


def test_a_port_is_no_adapter_of_ours_and_no_bridge() -> None:
    assert conflict(bridges={"br0": {"ports": ["tap-a"]}})[0] == "tunnels.a.tap.name"
    assert conflict(bridges={"br0": {"ports": ["br1"]}, "br1": {}})[0] == "bridges.br0.ports.0"


@pytest.mark.parametrize("name", ["..", ".", "lo", "tap%d"])
def test_names_that_mean_something_else_to_the_kernel_are_refused(name: str) -> None:
    assert conflict(bridges={"br0": {"ports": [name]}})[0] == "bridges.br0.ports.0"


def test_one_address_stands_on_one_bridge() -> None:
    bridges = {"br0": {"addresses": ["192.0.2.1/24"]}, "br1": {"addresses": ["192.0.2.1/25"]}}
    assert conflict(bridges=bridges)[0] == "bridges.br1.addresses.0"


@pytest.mark.parametrize(
    ("listen", "is_refused"),
    [
        ("127.0.0.1:9743", False),
        ("127.9.9.9:1", False),
        ("[::1]:9743", False),
        ("localhost", False),
        (None, False),
        ("0.0.0.0:9743", True),
        ("[::]:9743", True),
        ("192.0.2.1:9743", True),
        ("metrics.example", True),
    ],
)
def test_metrics_beyond_loopback_need_a_token(listen: str | None, is_refused: bool) -> None:
    found = find_conflicts(built(metrics={"listen": listen}))
    assert [path for path, _ in found] == ([("metrics", "listen")] if is_refused else [])
    with_token = built(metrics={"listen": listen, "bearer_token_file": "/x/token"})
    assert find_conflicts(with_token) == []


@pytest.mark.parametrize(
    ("tls", "key"),
    [
        ({}, "tls"),
        ({"ca": "/x"}, "tls"),
        ({"ca": "/x", "certificate": "/x"}, "tls"),
        ({"certificate": "/x", "key": "/x"}, "tls"),
        ({**EMBEDDED, "ca": "/x"}, "tls.ca"),
        ({**FILES, "key": " "}, "tls.key"),
        ({**FILES, "key": "a\0b"}, "tls.key"),
        ({**FILES, "peer_fingerprints": ["00:11"]}, "tls.peer_fingerprints.0"),
        ({"certificate": "/x", "key": "/x", "peer_fingerprints": ["0" * 64], "crl": "/x"}, "tls.crl"),
        ({**FILES, "version_min": "1.3", "version_max": "1.2"}, "tls.version_min"),
        ({**FILES, "peer_name": "a", "peer_name_prefix": "a"}, "tls.peer_name_prefix"),
    ],
)
def test_an_identity_must_be_whole(tls: dict[str, Any], key: str) -> None:
    found = find_conflicts(built(tunnels={"a": client(tls=tls)}))
    assert found
    assert {".".join(map(str, path)) for path, _ in found} == {f"tunnels.a.{key}"}


def test_fingerprints_stand_in_for_a_ca() -> None:
    tls = {"certificate": "/x", "key": "/x", "peer_fingerprints": ["ab" * 32, ":".join(["AB"] * 32)]}
    assert find_conflicts(built(tunnels={"a": client(tls=tls)})) == []


@pytest.mark.parametrize("field", ["direction", "digest"])
def test_options_of_tls_auth_go_with_tls_auth(field: str) -> None:
    value: dict[str, Any] = {"direction": 1, "digest": "SHA256"}
    wrap = {"mode": "tls-crypt", "key": "/x/key", field: value[field]}
    assert conflict(tunnels={"a": client(wrap=wrap)})[0] == f"tunnels.a.wrap.{field}"


def test_a_wrap_key_may_be_left_out_only_where_an_embedded_ca_brings_it() -> None:
    assert find_conflicts(built(tunnels={"a": server(wrap={"mode": "tls-crypt"})})) == []
    with pytest.raises(ValueError, match=r"needs wrap\.key"):
        built(tunnels={"a": server(tls=FILES)})


@pytest.mark.parametrize("option", ["a,b", "", "x" * 300, "a\nb", "é"])
def test_pushed_options_cannot_break_the_reply(option: str) -> None:
    assert conflict(tunnels={"a": server(push=[option])})[0] == "tunnels.a.push.0"


def test_a_socket_path_longer_than_the_kernel_takes_is_refused() -> None:
    assert conflict(admin={"socket": "/run/" + "x" * 110})[0] == "admin.socket"


def test_a_server_without_wrapping_is_warned_of() -> None:
    ((path, text),) = find_warnings(built(tunnels={"a": server(wrap={})}))
    assert path == ("tunnels", "a", "wrap", "mode")
    assert "tls-crypt" in text


def test_answers_beside_fragment_are_warned_of() -> None:
    ((path, text),) = find_warnings(built(tunnels={"a": server(answer_too_big=True, fragment=1300)}))
    assert path == ("tunnels", "a", "answer_too_big")
    assert "no effect" in text
    assert find_warnings(built(tunnels={"a": server(answer_too_big=True)})) == []
    assert find_warnings(built(tunnels={"a": server(fragment=1300)})) == []


def test_server_options_on_a_client_are_warned_of(tmp_path: Path) -> None:
    for name in FILES:
        (tmp_path / name).touch()
    tls = {name: str(tmp_path / name) for name in FILES}
    found = find_warnings(built(tunnels={"a": client(tls=tls, peers_max=5)}))
    assert [path for path, _ in found] == [("tunnels", "a", "peers_max")]


def test_files_that_are_not_there_are_warned_of() -> None:
    found = find_warnings(built(tunnels={"a": client(wrap={"mode": "tls-crypt", "key": "/x/tc.key"})}))
    assert {path[-1] for path, _ in found} == {"ca", "certificate", "key"}
    assert len(found) == 4
    assert all("no file /x/" in text for _, text in found)


BASE64_LINE = "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg9S/Ap+sHcl0zGEtZ"
HEX_LINE = "d09450c1c243c1cb267e660a59fd7c8a"


@pytest.mark.parametrize("folder", ["", "/etc/bridged/"])
@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"tls": {**FILES, "key": BASE64_LINE}}, "tls.key"),
        ({"wrap": {"mode": "tls-crypt", "key": HEX_LINE}}, "wrap.key"),
    ],
)
def test_a_key_pasted_where_its_path_belongs_is_refused_and_not_repeated(
    changes: dict[str, Any], key: str, folder: str
) -> None:
    section, _ = key.split(".")
    changes = {section: {**changes[section], "key": folder + changes[section]["key"]}}
    path, reason = conflict(tunnels={"a": client(**changes)})
    assert path == f"tunnels.a.{key}"
    assert "`key: |`" in reason and BASE64_LINE[:20] not in reason and HEX_LINE not in reason


@pytest.mark.parametrize(
    "path",
    [
        "/etc/bridged/keys/WarehouseNorth2ClientPrivateKey2026.key",
        "/run/secrets/tunnel_private_key_of_warehouse_2",
        "/nix/store/" + "0a1b2c3d" * 8,
        "/home/Operator1/keys/site",
        "/srv/WarehouseNorthSites2026Main/site.key",
        "/var/lib/d09450c1c243c1cb267e660a59fd7c8a/site",
    ],
)
def test_long_paths_of_keys_are_not_taken_for_the_key(path: str) -> None:
    assert find_conflicts(built(tunnels={"a": client(tls={**FILES, "key": path})})) == []


@pytest.mark.parametrize(
    "end",
    [
        server(transport="tcp", mtu=65_401),
        server(transport="both", mtu=65_521),
        client(remotes=["a.example/udp", "b.example:443/tcp"], mtu=65_401),
    ],
)
def test_frames_too_long_for_a_packet_of_tcp_are_refused_beforehand(end: dict[str, Any]) -> None:
    """The length in front of the packet would be another one, and the rest of the stream be lost."""
    assert conflict(tunnels={"a": end}) == (
        "tunnels.a.mtu",
        "is more than 65400, the most that a packet over TCP carries",
    )
    assert not find_conflicts(built(tunnels={"a": {**end, "mtu": 65_400}}))
    of_tap = {**end, "mtu": 1500, "tap": {"mtu": 65_401}}
    assert conflict(tunnels={"a": of_tap})[0] == "tunnels.a.tap.mtu"
    assert not find_conflicts(built(tunnels={"a": server(mtu=65_521)}))


def test_a_measured_path_and_parts_of_one_size_conflict() -> None:
    assert conflict(tunnels={"a": server(mtu="auto", fragment=1300)})[0] == "tunnels.a.fragment"
    assert not find_conflicts(built(tunnels={"a": server(mtu="auto")}))


V2 = {"mode": "tls-crypt-v2", "key": "/x/server.key"}


@pytest.mark.parametrize(
    ("more", "key"),
    [
        ({"old_clients_key": " "}, "old_clients_key"),
        ({"old_clients_key": "/x/server.key"}, "old_clients_key"),
        ({"old_clients_key": "Qk9PSyBPRiBLRVlTIGlzIGEgbG9uZyBsaW5l+Z0"}, "old_clients_key"),
        ({"old_clients_key": "/x/old.key", "direction": 0}, "direction"),
        ({"direction": 0}, "direction"),
    ],
)
def test_the_key_of_old_clients_is_looked_at_as_the_other_one_is(more: dict[str, Any], key: str) -> None:
    assert conflict(tunnels={"a": server(wrap=V2 | more)})[0] == f"tunnels.a.wrap.{key}"


def test_old_clients_with_tls_auth_have_its_options() -> None:
    more = {"old_clients_key": "/x/a.key", "old_clients_mode": "tls-auth", "direction": 0, "digest": "SHA256"}
    assert find_conflicts(built(tunnels={"a": server(wrap=V2 | more)})) == []


@pytest.mark.parametrize("name", ["old_clients_key", "max_age_days", "verify_command"])
def test_what_is_a_server_s_of_tls_crypt_v2_is_refused_elsewhere(name: str) -> None:
    value = {"old_clients_key": "/x/a", "max_age_days": 3, "verify_command": ["/x/check"]}[name]
    assert conflict(tunnels={"a": client(wrap=V2 | {name: value})})[0] == f"tunnels.a.wrap.{name}"
    with pytest.raises(ValueError, match="needs mode tls-crypt-v2"):
        built(tunnels={"a": server(wrap={"mode": "tls-crypt", name: value})})


def test_a_missing_file_of_old_clients_is_warned_of() -> None:
    found = find_warnings(built(tunnels={"a": server(wrap=V2 | {"old_clients_key": "/x/old.key"})}))
    assert [path[-1] for path, text in found if "no file" in text] == ["key", "old_clients_key"]


@pytest.mark.parametrize("direction", [None, 0, 1])
def test_a_static_key_that_both_ends_seal_with_is_warned_of(tmp_path: Path, direction: int | None) -> None:
    """A packet of ours that comes back would be our peer's, and its time would shut out the real peer."""
    (tmp_path / "key").touch()
    wrap = {"mode": "static-key", "key": str(tmp_path / "key"), "direction": direction}
    found = find_warnings(built(tunnels={"a": server(tls={}, wrap=wrap, ciphers=["AES-256-CBC"])}))
    assert [path[-1] for path, _ in found] == ["mode", *(["direction"] if direction is None else [])]
