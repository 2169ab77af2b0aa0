"""Pings and OCC messages."""

from __future__ import annotations

import pytest

from bridged.errors import RemoteProtocolError
from bridged.protocol.packets import occ
from bridged.protocol.packets.occ import OccMessage, OccType


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


def test_a_reply_ends_with_nul() -> None:
    assert occ.occ_reply("V4").body == b"V4\0"


def test_the_exit_notice() -> None:
    assert occ.OCC_EXIT == occ.OCC_MAGIC + b"\6"
