"""The self-test of coalescing: this kernel must segment a super-frame into exactly the frames it was made of.

The build that will be used joins samples of each kind, which are written into a scratch path
(scratch_path.py). What comes out is compared byte by byte, IP identifications and checksums included. First,
the same frames are written one by one to prove that the path itself works.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from bridged.checksum import checksum_octets, swapped, word_sum
from bridged.dataplane import CoalesceKind
from bridged.units import Seconds

PATIENCE: Final = Seconds(0.5)
"""How long to wait for the frames of one write. They usually arrive at once; a loaded host takes longer."""

_DESTINATION: Final = bytes.fromhex("02000000fffe")
_SOURCE: Final = bytes.fromhex("020000000001")
_ADDRESSES4: Final = bytes([192, 0, 2, 1, 192, 0, 2, 2])
_ADDRESSES6: Final = bytes.fromhex("20010db8" + "00" * 11 + "01" + "20010db8" + "00" * 11 + "02")
_STAMPS: Final = bytes.fromhex("0101080a0000100000002000")
_TCP: Final = 6
_UDP: Final = 17
_ACK: Final = 0x10
_PSH: Final = 0x08
_ECE: Final = 0x40
_ECT: Final = 2

Coalesce = Callable[[list[bytes], int], list[tuple[bytes, int]]]
"""(frames of one batch, bytes of the virtio-net header) -> writes, each with its number of frames."""


class TrialPath(Protocol):
    """What a trial needs of `ScratchPath`."""

    virtio_header_size: int

    def write(self, packet: bytes) -> None: ...

    def read(self, count: int, patience: Seconds) -> list[bytes]: ...


@dataclass(frozen=True, slots=True)
class Sample:
    """Payload sizes (bytes) of the segments of one super-frame, and their other properties."""

    name: str
    sizes: tuple[int, ...]
    flags: int = _ACK
    last_flags: int = _ACK
    options: bytes = b""
    traffic_class: int = 0
    first_identity: int = 100


TCP_SAMPLES: Final = (
    Sample("full, odd end pushed", (1400,) * 45 + (333,), last_flags=_ACK | _PSH, options=_STAMPS),
    Sample("ECN", (1001,) * 7, _ACK | _ECE, _ACK | _ECE | _PSH, _STAMPS, _ECT),
    Sample("two, equal, identification wraps", (600, 600), first_identity=0xFFFF),
)
UDP_SAMPLES: Final = (
    Sample("full, odd end", (1400,) * 30 + (1,)),
    Sample("most that go together", (512,) * 64, traffic_class=_ECT),
    Sample("two, equal, identification wraps", (601, 601), first_identity=0xFFFF),
)
SAMPLES: Final[Mapping[CoalesceKind, tuple[Sample, ...]]] = {
    "tcp4": TCP_SAMPLES,
    "tcp6": TCP_SAMPLES,
    "udp4": UDP_SAMPLES,
    "udp6": UDP_SAMPLES,
}


@dataclass(frozen=True, slots=True)
class TrialResult:
    """`failed`: kind -> what went wrong. `unavailable`: why nothing could be tried (empty: it was tried)."""

    failed: Mapping[CoalesceKind, str] = field(default_factory=dict)
    unavailable: str = ""
    seconds: float = 0.0


def try_super_frames(
    kinds: Iterable[CoalesceKind],
    coalesce: Coalesce,
    path: TrialPath,
) -> TrialResult:
    """Send samples of each kind through the path, plain and joined, and compare. Takes a few milliseconds."""
    began = time.monotonic()
    failed: dict[CoalesceKind, str] = {}
    for kind in sorted(kinds):
        for sample in SAMPLES[kind]:
            frames = sample_frames(kind, sample)
            try:
                reason = _compare(frames, coalesce, path)
            except _PathUnsound as unsound:
                return TrialResult(unavailable=str(unsound), seconds=time.monotonic() - began)
            if reason:
                failed[kind] = f"{sample.name}: {reason}"
                break
    return TrialResult(failed, seconds=time.monotonic() - began)


class _PathUnsound(Exception):
    """Plain frames do not get through unchanged, so nothing can be said about joined ones."""


def _compare(frames: list[bytes], coalesce: Coalesce, path: TrialPath) -> str:
    """What is wrong with the joined frames; empty: nothing is."""
    vnet = path.virtio_header_size
    _drain(path)
    try:
        for frame in frames:
            path.write(bytes(vnet) + frame)
    except OSError as error:
        raise _PathUnsound(f"plain frames were refused: {error.strerror}") from error
    if _ours(path, len(frames)) != frames:
        raise _PathUnsound("plain frames did not get through unchanged")
    writes = coalesce(frames, vnet)
    if len(writes) != 1:
        return f"{len(frames)} frames were joined into {len(writes)} writes instead of one"
    try:
        path.write(writes[0][0])
    except OSError as error:
        return f"the kernel refused the super-frame ({error.strerror})"
    came = _ours(path, len(frames))
    return _difference(frames, came)


def _difference(wanted: list[bytes], came: list[bytes]) -> str:
    if came == wanted:
        return ""
    if len(came) != len(wanted):
        return f"{len(wanted)} frames went in and {len(came)} came out"
    number, (want, got) = next(
        item for item in enumerate(zip(wanted, came, strict=True)) if item[1][0] != item[1][1]
    )
    if len(want) != len(got):
        return f"frame {number} came out with {len(got)} bytes instead of {len(want)}"
    at = next(at for at in range(len(want)) if want[at] != got[at])
    return f"frame {number} came out changed at byte {at}"


def _ours(path: TrialPath, count: int) -> list[bytes]:
    """The next `count` frames, without those that the kernel itself sends on a new link."""
    frames: list[bytes] = []
    deadline = time.monotonic() + PATIENCE
    while len(frames) < count:
        left = deadline - time.monotonic()
        came = path.read(count - len(frames), Seconds(max(left, 0.0)))
        frames += [frame for frame in came if frame[:6] == _DESTINATION]
        if not came or left <= 0:
            break
    return frames


def _drain(path: TrialPath) -> None:
    while path.read(64, Seconds(0.0)):
        pass


def sample_frames(kind: CoalesceKind, sample: Sample) -> list[bytes]:
    """The frames of a sample as a host without offloads sends them."""
    frames = []
    sequence = 0xFFFFF000  # it wraps during the sample
    for index, size in enumerate(sample.sizes):
        payload = bytes((7 * index + at) & 0xFF for at in range(256)) * (size // 256 + 1)
        payload = payload[:size]
        is_last = index == len(sample.sizes) - 1
        if kind in ("tcp4", "tcp6"):
            transport = _tcp_header(sequence, sample.last_flags if is_last else sample.flags, sample.options)
            protocol, sum_at = _TCP, 16
        else:
            transport = struct.pack("!HHHH", 40000, 50000, 8 + size, 0)
            protocol, sum_at = _UDP, 6
        addresses = _ADDRESSES4 if kind in ("tcp4", "udp4") else _ADDRESSES6
        segment = bytearray(transport + payload)
        total = word_sum(addresses) + swapped(protocol) + swapped(len(segment)) + word_sum(segment)
        checksum = checksum_octets(total)
        # In UDP, a checksum field of 0 means that there is none.
        segment[sum_at : sum_at + 2] = b"\xff\xff" if protocol == _UDP and checksum == b"\0\0" else checksum
        network = _network_header(kind, sample, index, protocol, len(segment))
        frames.append(_DESTINATION + _SOURCE + network + bytes(segment))
        sequence = (sequence + size) & 0xFFFFFFFF
    return frames


def _tcp_header(sequence: int, flags: int, options: bytes) -> bytes:
    offset = (20 + len(options)) // 4 << 4
    return struct.pack("!HHIIBBHHH", 40000, 50000, sequence, 77, offset, flags, 5000, 0, 0) + options


def _network_header(kind: CoalesceKind, sample: Sample, index: int, protocol: int, octets: int) -> bytes:
    """EtherType and IP header."""
    if kind in ("tcp6", "udp6"):
        first = 6 << 28 | sample.traffic_class << 20 | 0x12345
        return b"\x86\xdd" + struct.pack("!IHBB", first, octets, protocol, 64) + _ADDRESSES6
    identity = (sample.first_identity + index) & 0xFFFF
    header = bytearray(
        struct.pack("!BBHHHBBH", 0x45, sample.traffic_class, 20 + octets, identity, 0x4000, 64, protocol, 0)
    )
    header += _ADDRESSES4
    header[10:12] = checksum_octets(word_sum(header))
    return b"\x08\x00" + bytes(header)
