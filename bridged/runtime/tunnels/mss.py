"""Bytes around a frame, and the TCP segment size that follows from them.

Source: docs/protocol/data.md#5-4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from bridged.addresses import Remote
from bridged.configuration.tunnel import Tunnel
from bridged.protocol.packets.fragments import HEADER_OCTETS
from bridged.protocol.packets.framing import ADDED_MOST

IPV6_AND_UDP: Final = 48
"""The outer family is not known here; over IPv4 there is room for a VLAN tag."""
DATA_V2_AEAD: Final = 24
ETHERNET: Final = 14
IPV4_AND_TCP: Final = 40


def mss_limit(tunnel: Tunnel, *, fits_path: bool = False) -> int:
    """The largest TCP MSS (IPv4, bytes) that fits the WAN in one packet; 0 for no limit.

    `fits_path`: the data plane knows each peer's path and lowers the MSS itself where `mss: auto`.
    """
    if tunnel.mss == "off" or (tunnel.mss == "auto" and fits_path):
        return 0
    if isinstance(tunnel.mss, int):
        return tunnel.mss
    framing = ADDED_MOST["stub-v2" if tunnel.compression_framing == "auto" else tunnel.compression_framing]
    packet = tunnel.wan_mtu - IPV6_AND_UDP
    if tunnel.fragment:
        packet, framing = min(packet, tunnel.fragment), framing + HEADER_OCTETS
    return packet - DATA_V2_AEAD - framing - ETHERNET - IPV4_AND_TCP


@dataclass(frozen=True, slots=True)
class TcpSizes:
    """What TCP is fitted to (bytes); see `DataplaneSettings`."""

    wan_mtu: int
    mss_limit: int


def sizes_by_remote(tunnel: Tunnel, *, fits_path: bool) -> dict[Remote, TcpSizes]:
    """The sizes of each remote of a client; empty: all use the tunnel's. `fits_path`: see `mss_limit`."""
    if not tunnel.remote_sizes:
        return {}
    found: dict[Remote, TcpSizes] = {}
    for text in tunnel.remotes:
        own = tunnel.remote_sizes.get(text)
        changed = own.model_dump(exclude_none=True) if own is not None else {}
        as_if = tunnel.model_copy(update=changed)
        found[Remote.parse(text)] = TcpSizes(as_if.wan_mtu, mss_limit(as_if, fits_path=fits_path))
    return found
