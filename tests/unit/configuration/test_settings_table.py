"""One table says what a data plane's settings are: contract, configuration and refusals follow it."""

from __future__ import annotations

from operator import attrgetter
from typing import Any

import pytest

from bridged.addresses import MacAddress
from bridged.catalogue.settings import Setting, Tuning, rows
from bridged.configuration.keys import all_keys
from bridged.configuration.schema import Configuration
from bridged.configuration.tunnel import Tunnel
from bridged.dataplane.contract import DataplaneSettings, TapPort
from bridged.errors import DataplaneError
from bridged.runtime.tunnels.dataplane_settings import dataplane_settings
from bridged.units import Octets

PORT = TapPort((0,), "tap0", MacAddress.parse("02:00:00:00:00:01"), Octets(1500))
KEYS = {name: row.setting.key.path for name, row in rows().items() if row.setting.key is not None}
OTHER: dict[str, Any] = {"forward_between_peers": False, "answer_too_big": True, "priority": "dscp"}


def tunnel(**changes: Any) -> Tunnel:
    values = {"role": "server", "bridge": "br0", "tls": {"embedded": True}, **changes}
    return Configuration.model_validate({"bridges": {"br0": {}}, "tunnels": {"t": values}}).tunnels["t"]


def with_key(path: str, value: Any) -> Tunnel:
    outer, _, inner = path.partition(".")
    return tunnel(**{outer: {inner: value} if inner else value})


@pytest.mark.parametrize(("name", "path"), KEYS.items())
def test_what_an_operator_sets_reaches_the_data_plane(name: str, path: str) -> None:
    value = OTHER.get(name, 777)
    if name == "workers":
        value = 7
    settings = dataplane_settings("t", with_key(path, value), PORT, "portable", frozenset())
    assert getattr(settings, name) == value != rows()[name].default


@pytest.mark.parametrize(("name", "path"), KEYS.items())
def test_the_reference_has_the_table_s_words_and_default(name: str, path: str) -> None:
    (key,) = (key for key in all_keys() if key.path == f"tunnels.NAME.{path}")
    assert key.description == rows()[name].setting.meaning
    assert key.default == attrgetter(path)(tunnel())


@pytest.mark.parametrize("name", [name for name, row in rows().items() if row.setting.most is not None])
def test_what_the_schema_takes_the_data_plane_takes_and_no_more(name: str) -> None:
    setting = rows()[name].setting
    assert setting.most is not None
    changes: dict[str, Any] = {name: int(setting.most)}
    DataplaneSettings("t", PORT, None, **changes)
    with pytest.raises(DataplaneError, match=f"^{name}: .* is not ") as refused:
        DataplaneSettings("t", PORT, None, **{name: int(setting.most) + 1})
    assert refused.value.code == "bad_setting"
    if setting.key is not None:
        with_key(setting.key.path, int(setting.most))
        with pytest.raises(ValueError, match="less than or equal"):
            with_key(setting.key.path, int(setting.most) + 1)


def test_a_problem_names_the_value_and_what_is_allowed() -> None:
    assert Setting("", "u32", least=1, most=16).problem(17) == "17 is not in 1..16"
    assert Setting("", "u32", least=1, most=16).problem(16) is None
    assert Setting("", "u32", least=576, most=65535, or_zero=True).problem(0) is None
    assert Setting("", "u32", least=576, most=65535, or_zero=True).problem(5) == "5 is not 0 or in 576..65535"
    assert Setting("", "usize", least=1).problem(0) == "0 is not in 1.."
    assert list(Tuning(workers=0).problems()) == ["workers: 0 is not in 1..16"]
