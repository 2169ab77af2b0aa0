"""Settings of an adapter: what is refused, and in which words."""

from __future__ import annotations

import pytest

from bridged_tap import MacAddress, Offload, TapError
from bridged_tap.settings import AdapterSettings, check_name


@pytest.mark.parametrize(
    "name", ["", "a" * 16, "ü" * 8, "a/b", "a b", "a\tb", "a:b", ".", "..", "%s", "%d%d", "a\0"]
)
def test_a_name_the_kernel_would_refuse_is_refused_before(name: str) -> None:
    with pytest.raises(TapError) as caught:
        AdapterSettings(name)
    assert caught.value.code == "tap_settings"


@pytest.mark.parametrize("name", ["t", "a" * 15, "tap%d", "site-a.0", "ü" * 7])
def test_a_good_name_passes(name: str) -> None:
    assert AdapterSettings(name).name == name


def test_a_pattern_is_no_name() -> None:
    assert AdapterSettings("tap%d").has_pattern
    with pytest.raises(TapError):
        check_name("tap%d")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("mtu", 67), ("mtu", 65522), ("txqueuelen", 0), ("queues", 0), ("queues", 257), ("owner", -1),
        ("group", 2**32 - 1),
    ],
)  # fmt: skip
def test_a_number_out_of_range_is_refused_with_field_and_range(field: str, value: int) -> None:
    with pytest.raises(TapError) as caught:
        AdapterSettings("tap0", **{field: value})  # type: ignore[arg-type]
    assert caught.value.code == "tap_settings"
    assert field in caught.value.message and str(value) in caught.value.message


@pytest.mark.parametrize("address", ["00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01"])
def test_zero_broadcast_and_multicast_addresses_are_refused(address: str) -> None:
    with pytest.raises(TapError) as caught:
        AdapterSettings("tap0", mac=MacAddress.parse(address))
    assert caught.value.code == "mac_address"


def test_a_multicast_refusal_proposes_the_unicast_neighbour() -> None:
    with pytest.raises(TapError) as caught:
        AdapterSettings("tap0", mac=MacAddress.parse("01:00:5e:00:00:01"))
    assert "02:00:5e:00:00:01" in caught.value.message


def test_offloads_without_the_virtio_header_are_refused() -> None:
    with pytest.raises(TapError) as caught:
        AdapterSettings("tap0", offloads=Offload.CSUM)
    assert caught.value.code == "tap_settings"
    AdapterSettings("tap0", offloads=Offload.CSUM, virtio_header=True)
