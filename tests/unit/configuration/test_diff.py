"""What a change costs."""

from __future__ import annotations

from typing import Any

from bridged.configuration.diff import EFFECTS, Change, bridge_effect, diff, effect_of, tunnel_effect
from bridged.configuration.keys import all_keys
from bridged.configuration.schema import Bridge, Configuration
from bridged.configuration.tunnel import Tunnel


def built(**changes: Any) -> Configuration:
    tunnel = {"role": "server", "bridge": "br0", "tls": {"embedded": True}}
    return Configuration.model_validate({"bridges": {"br0": {}}, "tunnels": {"a": tunnel}, **changes})


def test_equal_configurations_have_no_difference() -> None:
    assert diff(built(), built()) == []


def test_a_changed_key_is_told_with_its_cost() -> None:
    assert diff(built(), built(log={"level": "debug"})) == [Change("log.level", "changed", "hot")]
    assert diff(built(), built(state_directory="/x")) == [Change("state_directory", "changed", "refused")]


def test_a_bridge_that_comes_or_goes_is_one_change() -> None:
    more = built(bridges={"br0": {}, "br1": {"ports": ["eth9"]}})
    assert diff(built(), more) == [Change("bridges.br1", "added", "hot")]
    assert diff(more, built()) == [Change("bridges.br1", "removed", "hot")]


def test_a_tunnel_s_identity_is_for_the_next_handshake_and_its_value_is_not_told() -> None:
    def with_key(key: str) -> Configuration:
        tls = {"ca": "/x", "certificate": "/x", "key": key}
        tunnel = {"role": "client", "bridge": "br0", "remotes": ["a"], "tls": tls}
        return built(tunnels={"a": tunnel})

    assert diff(with_key("secret one"), with_key("secret two")) == [
        Change("tunnels.a.tls.key", "changed", "hot")
    ]


def test_every_row_of_the_table_decides_some_key() -> None:
    paths = [key.path for key in all_keys()]
    for pattern, _ in EFFECTS:
        assert any(path == pattern or path.startswith(pattern + ".") for path in paths), pattern
    assert effect_of("tunnels.NAME.peers_max") == "hot"
    assert effect_of("tunnels.NAME.tap.name") == "restart"


def test_a_bridge_that_gives_something_up_starts_anew() -> None:
    def bridge(**keys: Any) -> Bridge:
        return Bridge.model_validate(keys)

    assert bridge_effect(bridge(), bridge()) is None
    assert bridge_effect(bridge(ports=["eth1"]), bridge(ports=["eth1", "eth2"], stp=True)) == "hot"
    assert bridge_effect(bridge(ports=["eth1", "eth2"]), bridge(ports=["eth1"])) == "restart"
    assert bridge_effect(bridge(addresses=["192.0.2.1/24"]), bridge()) == "restart"
    assert bridge_effect(bridge(mtu=1400), bridge()) == "restart"
    assert bridge_effect(bridge(mtu=1400), bridge(mtu=1300)) == "hot"


def test_a_tunnel_s_dearest_change_decides() -> None:
    def tunnel(**keys: Any) -> Tunnel:
        return Tunnel.model_validate({"role": "server", "bridge": "br0", "tls": {"embedded": True}, **keys})

    assert tunnel_effect(tunnel(), tunnel()) is None
    assert tunnel_effect(tunnel(), tunnel(peers_max=3)) == "hot"
    assert tunnel_effect(tunnel(), tunnel(peers_max=3, mtu=1400)) == "restart"
