"""What a change costs."""

from __future__ import annotations

from typing import Any

from bridged.configuration.diff import EFFECTS, Change, diff, effect_of
from bridged.configuration.keys import all_keys
from bridged.configuration.schema import Configuration


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


def test_a_tunnel_s_identity_restarts_the_tunnel_and_its_value_is_not_told() -> None:
    def with_key(key: str) -> Configuration:
        tls = {"ca": "/x", "certificate": "/x", "key": key}
        tunnel = {"role": "client", "bridge": "br0", "remotes": ["a"], "tls": tls}
        return built(tunnels={"a": tunnel})

    assert diff(with_key("secret one"), with_key("secret two")) == [
        Change("tunnels.a.tls.key", "changed", "restart")
    ]


def test_every_row_of_the_table_decides_some_key() -> None:
    paths = [key.path for key in all_keys()]
    for pattern, _ in EFFECTS:
        assert any(path == pattern or path.startswith(pattern + ".") for path in paths), pattern
    assert effect_of("tunnels.NAME.peers_max") == "hot"
    assert effect_of("tunnels.NAME.tap.name") == "restart"
