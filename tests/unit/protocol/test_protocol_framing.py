"""Compression framing: bytes as OpenVPN writes them, and which kind both ends choose."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridged.protocol.packets.framing import ADDED_MOST, UNWRAPPERS, WRAPPERS, Framing, UnframedError
from bridged.protocol.packets.framing_choice import (
    PUSHED,
    STUBS,
    FramingSetting,
    framing_for_client,
    framing_of_directive,
    framing_of_server,
    is_framing_option,
)
from bridged.protocol.packets.negotiation import PeerInfo

PLAIN = "V4,dev-type tap,link-mtu 1573,tun-mtu 1500,proto UDPv4,auth SHA1,keysize 128,key-method 2,tls-client"
ASKING = PLAIN.replace(",auth", ",comp-lzo,auth")
OLD = PeerInfo((("IV_VER", "2.3.18"),))
DCO = PeerInfo((("IV_VER", "2.6.14"),))
STUBBED = PeerInfo((("IV_VER", "2.6.14"), *STUBS))
COMPRESSING = PeerInfo(
    tuple((name, "1") for name in ("IV_LZ4", "IV_LZ4v2", "IV_LZO", "IV_COMP_STUB", "IV_COMP_STUBv2"))
)


@given(st.sampled_from(list(WRAPPERS)), st.binary(min_size=1, max_size=64))
def test_what_is_framed_comes_back(framing: Framing, payload: bytes) -> None:
    framed = WRAPPERS[framing](payload)
    assert len(payload) <= len(framed) <= len(payload) + ADDED_MOST[framing]
    assert UNWRAPPERS[framing](framed) == payload


@given(st.sampled_from(list(UNWRAPPERS)), st.binary(max_size=64))
def test_anything_is_unframed_or_refused(framing: Framing, payload: bytes) -> None:
    try:
        assert len(UNWRAPPERS[framing](payload)) <= len(payload)
    except UnframedError:
        pass


@pytest.mark.parametrize(
    ("setting", "info", "options", "framing"),
    [
        ("auto", STUBBED, PLAIN, "none"),
        ("auto", COMPRESSING, PLAIN, "none"),
        ("auto", STUBBED, ASKING, "stub-v2"),
        ("auto", COMPRESSING, ASKING, "stub-v2"),
        ("auto", OLD, ASKING, "comp-lzo"),
        ("auto", OLD, "V0 UNDEF", "none"),
        ("none", STUBBED, ASKING, "none"),
        ("comp-lzo", STUBBED, PLAIN, "comp-lzo"),
        ("comp-lzo", COMPRESSING, "V0 UNDEF", "comp-lzo"),
        ("comp-lzo", DCO, PLAIN, "none"),
        ("comp-lzo", OLD, PLAIN, "none"),
        ("stub", COMPRESSING, PLAIN, "stub"),
        ("stub", OLD, ASKING, "comp-lzo"),
        ("stub", DCO, PLAIN, "none"),
        ("stub-v2", STUBBED, PLAIN, "stub-v2"),
    ],
)
def test_a_server_uses_what_the_client_can(
    setting: FramingSetting, info: PeerInfo, options: str, framing: Framing
) -> None:
    assert framing_for_client(setting, info, options) == framing


@pytest.mark.parametrize(
    ("setting", "pushed", "options", "framing"),
    [
        ("auto", None, PLAIN, "none"),
        ("auto", None, ASKING, None),
        ("auto", None, "V0 UNDEF", "none"),
        ("auto", "comp-lzo no", PLAIN, "comp-lzo"),
        ("auto", "compress unheard-of", PLAIN, None),
        ("none", None, PLAIN, "none"),
        ("none", None, ASKING, None),
        ("none", "compress stub-v2", PLAIN, None),
        ("none", "compress migrate", PLAIN, "none"),
        ("comp-lzo", None, ASKING, "comp-lzo"),
        ("comp-lzo", None, PLAIN, "none"),
        ("comp-lzo", None, "V0 UNDEF", "comp-lzo"),
        ("comp-lzo", "compress stub-v2", ASKING, "stub-v2"),
        ("stub", None, ASKING, "stub"),
    ],
)
def test_a_client_uses_what_the_server_says_or_else_its_own_setting(
    setting: FramingSetting, pushed: str | None, options: str, framing: Framing | None
) -> None:
    assert framing_of_server(setting, pushed, options) == framing


def test_each_pushed_option_stands_for_its_framing() -> None:
    for framing, option in PUSHED.items():
        assert framing_of_directive(option.split()) == framing
        assert is_framing_option(option)
    assert not is_framing_option("ping 1") and not is_framing_option("")
    assert framing_of_directive(["comp-lzo", "maybe"]) is None
    assert framing_of_directive(["compress", "stub", "v2"]) is None
