"""Pings and OCC messages."""

from __future__ import annotations

import pytest

from bridged.errors import RemoteProtocolError
from bridged.protocol.packets import occ
from bridged.protocol.packets.occ import OccMessage, OccType


def test_only_the_whole_payload_is_a_ping() -> None:
    assert occ.is_ping(occ.PING)
    assert not occ.is_ping(occ.PING + b"\0") and not occ.is_ping(occ.PING[:-1])


@pytest.mark.parametrize("kind", OccType)
def test_every_type_reads_back(kind: OccType) -> None:
    message = OccMessage(kind, b"body")
    assert occ.parse_occ(occ.serialize_occ(message)) == message


@pytest.mark.parametrize(
    "payload", [b"", occ.PING, occ.OCC_MAGIC, occ.OCC_MAGIC + b"\x07", occ.OCC_MAGIC[:-1] + b"xx"]
)
def test_other_payloads_are_refused(payload: bytes) -> None:
    with pytest.raises(RemoteProtocolError) as error:
        occ.parse_occ(payload)
    assert error.value.code == "bad_length"


def test_bodies() -> None:
    assert occ.parse_occ_options(occ.occ_reply("V4,dev-type tap")) == "V4,dev-type tap"
    assert occ.occ_reply("V4").body == b"V4\0"
    assert occ.occ_mtu_reply(1500, 1400).body == b"\x05\xdc\x05\x78"
    assert occ.parse_mtu_load_size(OccMessage(OccType.MTU_LOAD_REQUEST, b"\x05\xdc")) == 1500
    with pytest.raises(RemoteProtocolError):
        occ.parse_mtu_load_size(OccMessage(OccType.MTU_LOAD_REQUEST, b"\x05"))


def test_the_exit_notice() -> None:
    assert occ.OCC_EXIT == occ.OCC_MAGIC + b"\6"
