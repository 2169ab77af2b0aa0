"""The virtio-net header."""

from __future__ import annotations

import sys

import pytest

from bridged.dataplane.portable.headers.vnet import GSO_TCPV4, VnetHeader, parse_vnet, serialize_vnet


@pytest.mark.parametrize("length", [10, 12])
def test_a_header_survives_the_round_trip(length: int) -> None:
    header = VnetHeader(True, GSO_TCPV4, True, 66, 1448, 34, 16)
    octets = serialize_vnet(header, length)
    assert len(octets) == length
    assert parse_vnet(octets + b"frame") == header


def test_the_octets_are_those_of_the_kernel_in_the_byte_order_of_the_machine() -> None:
    octets = serialize_vnet(VnetHeader(True, GSO_TCPV4, False, 0x42, 0x5A8, 0x22, 0x10))
    expected = {"little": "01014200a80522001000", "big": "0101004205a800220010"}
    assert octets == bytes.fromhex(expected[sys.byteorder])


def test_zeroes_mean_an_ordinary_frame() -> None:
    assert parse_vnet(bytes(10)) == VnetHeader(False, 0, False, 0, 0, 0, 0)


def test_a_stump_is_refused() -> None:
    with pytest.raises(ValueError, match="9 bytes"):
        parse_vnet(bytes(9))
