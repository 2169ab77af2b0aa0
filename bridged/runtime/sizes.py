"""Octets around a frame, and the TCP segment size that follows from them.

Source: docs/protocol/data.md, section 5.4.
"""

from __future__ import annotations

from typing import Final

from bridged.configuration.schema import Tunnel

IPV4_AND_UDP: Final = 28
DATA_V2_AEAD: Final = 24
ETHERNET_AS_COUNTED: Final = 32
"""OpenVPN counts 32 octets for TAP; 14 would do. Equal values keep the ends' limits equal."""
IPV4_AND_TCP: Final = 40


def mss_limit(tunnel: Tunnel, *, is_fitted: bool = False) -> int:
    """The largest TCP MSS (IPv4, octets) that fits the WAN in one packet; 0 for no limit.

    `is_fitted`: the data plane cuts TCP to what fits by itself, so `mss: auto` leaves SYN segments alone.
    """
    if tunnel.mss == "off" or (tunnel.mss == "auto" and is_fitted):
        return 0
    if isinstance(tunnel.mss, int):
        return tunnel.mss
    return tunnel.wan_mtu - IPV4_AND_UDP - DATA_V2_AEAD - ETHERNET_AS_COUNTED - IPV4_AND_TCP
