"""Lowers the maximum segment size (MSS) that TCP connections through the tunnel agree on.

Source: docs/protocol/data.md#5-4; RFC 9293, 3.7.1; RFC 1624 for the checksum.
Pure but for the count of `MssFitter`.
"""

from __future__ import annotations

from typing import Final

from bridged.dataplane.portable.headers.segment import IPV4, IPV6, network_offset

IPV6_EXTRA_OCTETS: Final = 20

_TCP: Final = 6
_SYN: Final = 2
_END: Final = 0
_NOTHING: Final = 1
_MSS: Final = 2
_MSS_OCTETS: Final = 4
_FRAGMENT_MASK: Final = 0x3FFF


class MssFitter:
    """Lowers the MSS of SYN segments to `limit` bytes (0: leaves them alone), and counts them in `counts`."""

    __slots__ = ("_counts", "limit")

    def __init__(self, limit: int, counts: dict[str, int]) -> None:
        self.limit = limit
        self._counts = counts

    def fit(self, frames: list[bytes]) -> None:
        """Replace the frames whose MSS is too large."""
        if not self.limit:
            return
        for index, frame in enumerate(frames):
            if may_be_syn(frame):
                changed = clamp_mss(frame, self.limit)
                if changed is not None:
                    frames[index] = changed
                    self._counts["mss_clamped"] += 1


def may_be_syn(frame: bytes) -> bool:
    """A quick look: false for most frames that are no SYN segments."""
    if len(frame) < 54:
        return False
    ethertype = frame[12]
    if ethertype == 0x08 and frame[14] == 0x45:
        return frame[23] == 6 and frame[47] & _SYN != 0
    if ethertype == 0x86 and frame[13] == 0xDD:
        return frame[20] == 6 and len(frame) > 67 and frame[67] & _SYN != 0
    return ethertype in (0x08, 0x81, 0x88)


def tcp_offset(frame: bytes) -> tuple[int, bool] | None:
    """Where the TCP header begins, and whether the frame is IPv6; None if there is no TCP header to read.

    It looks behind at most two VLAN tags. IPv4 fragments and IPv6 extension headers count as no TCP.
    """
    network, ethertype = network_offset(frame)
    if ethertype == IPV4:
        if len(frame) < network + 40 or frame[network] >> 4 != 4 or frame[network + 9] != _TCP:
            return None
        if int.from_bytes(frame[network + 6 : network + 8], "big") & _FRAGMENT_MASK:
            return None
        length = (frame[network] & 0x0F) * 4
        return (network + length, False) if length >= 20 else None
    if ethertype == IPV6:
        if len(frame) < network + 60 or frame[network] >> 4 != 6 or frame[network + 6] != _TCP:
            return None
        return network + 40, True
    return None


def clamp_mss(frame: bytes, limit: int) -> bytes | None:
    """The frame with its MSS option lowered to `limit` (IPv6: 20 less); None where nothing is to change.

    Only SYN segments are looked at, and an MSS is never raised. The checksum is updated rather than computed
    again: a wrong one stays wrong.
    """
    found = tcp_offset(frame)
    if found is None:
        return None
    start, is_ipv6 = found
    if len(frame) < start + 20 or not frame[start + 13] & _SYN:
        return None
    at = _mss_option(frame, start)
    wanted = limit - IPV6_EXTRA_OCTETS if is_ipv6 else limit
    if at is None or wanted < 1 or int.from_bytes(frame[at : at + 2], "big") <= wanted:
        return None
    changed = bytearray(frame)
    changed[at : at + 2] = wanted.to_bytes(2, "big")
    # The value may lie across two 16-bit words; the checksum counts from the start of the TCP header.
    even = at - (at - start) % 2
    old = _words(frame, even, at)
    new = _words(changed, even, at)
    checksum = int.from_bytes(frame[start + 16 : start + 18], "big")
    total = (~checksum & 0xFFFF) + 2 * 0xFFFF - old + new
    while total > 0xFFFF:
        total = (total >> 16) + (total & 0xFFFF)
    changed[start + 16 : start + 18] = (~total & 0xFFFF).to_bytes(2, "big")
    return bytes(changed)


def _words(frame: bytes | bytearray, even: int, at: int) -> int:
    first = int.from_bytes(frame[even : even + 2], "big")
    if even == at:
        return first
    # A frame may end within its last word: a zero byte is added then.
    return first + int.from_bytes(frame[even + 2 : even + 4].ljust(2, b"\0"), "big")


def _mss_option(frame: bytes, start: int) -> int | None:
    """The offset of the value of the first well-formed MSS option; None if there is none."""
    end = min(start + (frame[start + 12] >> 4) * 4, len(frame))
    at = start + 20
    while at < end:
        kind = frame[at]
        if kind == _END:
            return None
        if kind == _NOTHING:
            at += 1
            continue
        if at + 1 >= end or frame[at + 1] < 2 or at + frame[at + 1] > end:
            return None
        if kind == _MSS and frame[at + 1] == _MSS_OCTETS:
            return at + 2
        at += frame[at + 1]
    return None
