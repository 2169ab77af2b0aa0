"""Cuts super-frames from the TAP into frames (TCP and UDP), and completes checksums that the kernel left to
us.

Source: Linux Documentation/networking/segmentation-offloads.rst and checksum-offloads.rst. The rules are
those of the kernel's tcp_gso_segment and __udp_gso_segment: a receiver cannot tell the difference. Pure:
bytes in, bytes out.
"""

from __future__ import annotations

import struct
from typing import Final

from bridged.checksum import checksum_octets, swapped, word_sum
from bridged.dataplane.portable.headers.vnet import GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, VnetHeader

ETHERNET_OCTETS: Final = 14
VLAN_TAGS: Final = (b"\x81\x00", b"\x88\xa8")
IPV4: Final = b"\x08\x00"
IPV6: Final = b"\x86\xdd"

_TCP_CHECKSUM_AT: Final = 16
_UDP_CHECKSUM_AT: Final = 6
_UDP_OCTETS: Final = 8
_IPV6_OCTETS: Final = 40
_FIN_PSH: Final = 0x09
_CWR: Final = 0x80
_MAX_TAGS: Final = 2
_U16: Final = struct.Struct("!H")
_U32: Final = struct.Struct("!I")


class BadSuperFrame(ValueError):
    """A virtio-net header that does not fit its frame; the frame is dropped (`bad_length`)."""


def network_offset(frame: bytes) -> tuple[int, bytes]:
    """Where the network header begins, after at most two VLAN tags, and its EtherType."""
    at = 12
    for _ in range(_MAX_TAGS):
        if frame[at : at + 2] not in VLAN_TAGS:
            break
        at += 4
    return at + 2, frame[at : at + 2]


def segment(header: VnetHeader, frame: bytes) -> list[bytes]:
    """The frames of one read of the TAP, in order and with complete checksums.

    Raises:
        BadSuperFrame: offsets outside the frame, a size of 0, or a kind that we did not offer.
    """
    if header.gso_type == GSO_NONE:
        return [complete_checksum(header, frame) if header.needs_checksum else frame]
    if not header.segment_size:
        raise BadSuperFrame("segments of 0 bytes")
    if header.gso_type in (GSO_TCPV4, GSO_TCPV6):
        return _segment_tcp(header, frame)
    if header.gso_type == GSO_UDP_L4:
        return _segment_udp(header, frame)
    raise BadSuperFrame(f"super-frames of type {header.gso_type} were not offered")


def complete_checksum(header: VnetHeader, frame: bytes) -> bytes:
    """Replace the partial sum that NEEDS_CSUM leaves in the checksum field by the checksum.

    Raises:
        BadSuperFrame: the field is outside the frame.
    """
    field = header.checksum_start + header.checksum_offset
    if field + 2 > len(frame):
        raise BadSuperFrame(f"the checksum field at {field} is outside {len(frame)} bytes")
    total = word_sum(frame[header.checksum_start :])
    return frame[:field] + _field(total, header.checksum_offset) + frame[field + 2 :]


def _field(total: int, checksum_offset: int) -> bytes:
    octets = checksum_octets(total)
    # In UDP a field of 0 means "no checksum"; all ones stand for 0.
    return b"\xff\xff" if checksum_offset == _UDP_CHECKSUM_AT and octets == b"\0\0" else octets


def _segment_tcp(header: VnetHeader, frame: bytes) -> list[bytes]:
    start = header.checksum_start
    if start + 20 > len(frame):
        raise BadSuperFrame("no TCP header")
    length = (frame[start + 12] >> 4) * 4
    body = start + length
    if length < 20 or body > len(frame):
        raise BadSuperFrame("the TCP header does not fit")
    head = bytearray(frame[:body])
    number = _U32.unpack_from(head, start + 4)[0]
    flags = head[start + 13]
    size = header.segment_size
    seed = _seed(head, start, start + _TCP_CHECKSUM_AT, len(frame) - start)
    network, ethertype = _checked_network(frame, start)
    last = len(frame) - size
    frames = []
    for index, at in enumerate(range(body, len(frame), size)):
        piece = frame[at : at + size]
        _U32.pack_into(head, start + 4, (number + at - body) & 0xFFFFFFFF)
        # PSH and FIN belong to the end of the data, CWR to its beginning.
        now = flags if at >= last else flags & ~_FIN_PSH
        head[start + 13] = now if index == 0 else now & ~_CWR
        _set_network_length(head, network, ethertype, start, len(piece), first=index == 0)
        _set_checksum(head, start, start + _TCP_CHECKSUM_AT, piece, seed)
        frames.append(bytes(head) + piece)
    return frames


def _segment_udp(header: VnetHeader, frame: bytes) -> list[bytes]:
    start = header.checksum_start
    body = start + _UDP_OCTETS
    if body > len(frame):
        raise BadSuperFrame("no UDP header")
    head = bytearray(frame[:body])
    seed = _seed(head, start, start + _UDP_CHECKSUM_AT, len(frame) - start)
    network, ethertype = _checked_network(frame, start)
    frames = []
    for index, at in enumerate(range(body, len(frame), header.segment_size)):
        piece = frame[at : at + header.segment_size]
        _U16.pack_into(head, start + 4, _UDP_OCTETS + len(piece))
        _set_network_length(head, network, ethertype, start, len(piece), first=index == 0)
        _set_checksum(head, start, start + _UDP_CHECKSUM_AT, piece, seed)
        frames.append(bytes(head) + piece)
    return frames


def _checked_network(frame: bytes, start: int) -> tuple[int, bytes]:
    network, ethertype = network_offset(frame)
    if start < network + (20 if ethertype == IPV4 else _IPV6_OCTETS):
        raise BadSuperFrame("the transport header overlaps the network header")
    return network, ethertype


def _seed(head: bytearray, start: int, field: int, length: int) -> int:
    """The pseudo-header's sum without its length. The kernel left it in the field, length included."""
    if field + 2 > len(head) or start < ETHERNET_OCTETS:
        raise BadSuperFrame("no room for the checksum field")
    return int.from_bytes(head[field : field + 2], "little") - swapped(length)


def _set_network_length(
    head: bytearray, network: int, ethertype: bytes, start: int, piece: int, *, first: bool
) -> None:
    """Set length, identification (one more than the last segment's) and checksum of the IP header."""
    if ethertype == IPV4:
        _U16.pack_into(head, network + 2, len(head) - network + piece)
        if not first:
            number = _U16.unpack_from(head, network + 4)[0]
            _U16.pack_into(head, network + 4, (number + 1) & 0xFFFF)
        head[network + 10 : network + 12] = b"\0\0"
        head[network + 10 : network + 12] = checksum_octets(word_sum(head[network:start]))
    elif ethertype == IPV6:
        _U16.pack_into(head, network + 4, len(head) - network - _IPV6_OCTETS + piece)
    else:
        raise BadSuperFrame(f"a super-frame of EtherType {ethertype.hex()}")


def _set_checksum(head: bytearray, start: int, field: int, piece: bytes, seed: int) -> None:
    # Every transport header has an even number of bytes: both parts begin at a word.
    head[field : field + 2] = b"\0\0"
    total = seed + swapped(len(head) - start + len(piece)) + word_sum(head[start:]) + word_sum(piece)
    head[field : field + 2] = _field(total, field - start)
