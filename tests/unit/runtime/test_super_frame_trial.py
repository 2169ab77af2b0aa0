"""The self-test finds every way in which a kernel may cut a super-frame wrongly, and blames that kind alone.

The paths here cut by the portable segmenter, with one fault each; the real one is in tests/system.
"""

from __future__ import annotations

from functools import partial

import pytest

from bridged.catalogue.settings import COALESCE_KINDS, CoalesceKind
from bridged.dataplane import coalesce
from bridged.runtime.tunnels.super_frame_trial import SAMPLES, TrialResult, sample_frames, try_super_frames
from bridged.units import Seconds
from tests.unit.runtime.cutting_path import CuttingPath, Spoil, changed

TCP: frozenset[CoalesceKind] = frozenset({"tcp4", "tcp6"})


FAULTS: dict[str, Spoil] = {
    "IP identification": changed(19),
    "IP checksum": changed(25),
    "ECN": changed(15),
    "TCP sequence": changed(41),
    "TCP flags of the first": changed(47, number=0),
    "TCP checksum": changed(51),
    "time stamp": changed(58),
    "last byte": changed(-1),
    "one is lost": lambda frames: frames[:-1],
    "all are lost": lambda frames: [],
    "one comes twice": lambda frames: [*frames, frames[0]][1:],
    "order": lambda frames: [*frames[1:], frames[0]],
    "not cut": lambda frames: [frames[0] + b"".join(frame[54:] for frame in frames[1:])],
    "padded": lambda frames: [*frames[:-1], frames[-1] + b"\0"],
}


def tried(path: CuttingPath, kinds: frozenset[CoalesceKind] = TCP) -> TrialResult:
    return try_super_frames(kinds, partial(coalesce, "portable"), path)


def test_a_kernel_that_cuts_rightly_passes() -> None:
    verdict = tried(CuttingPath())
    assert (verdict.failed, verdict.unavailable) == ({}, "")


@pytest.mark.native
def test_all_kinds_of_the_native_build_pass_likewise() -> None:
    verdict = try_super_frames(COALESCE_KINDS, partial(coalesce, "native"), CuttingPath())
    assert (verdict.failed, verdict.unavailable) == ({}, "")


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize(("version", "kind"), [(4, "tcp4"), (6, "tcp6")])
def test_each_fault_is_found_and_only_the_faulty_kind_is_blamed(fault: str, version: int, kind: str) -> None:
    verdict = tried(CuttingPath(FAULTS[fault], version))
    assert set(verdict.failed) == {kind}
    assert verdict.unavailable == ""


def test_a_refusal_is_a_failure_with_the_kernels_reason() -> None:
    verdict = tried(CuttingPath(version=6, refuses=True))
    assert list(verdict.failed) == ["tcp6"]
    assert "Invalid argument" in verdict.failed["tcp6"]


def test_the_reason_tells_sample_frame_and_byte() -> None:
    verdict = tried(CuttingPath(changed(19, number=3), 4))
    assert verdict.failed["tcp4"] == "full, odd end pushed: frame 3 came out changed at byte 19"


def test_a_path_that_spoils_plain_frames_proves_nothing() -> None:
    class Deaf(CuttingPath):
        def read(self, count: int, patience: Seconds) -> list[bytes]:
            return []

    verdict = tried(Deaf())
    assert verdict.failed == {}
    assert "plain frames" in verdict.unavailable


def test_a_build_that_does_not_join_is_not_trusted() -> None:
    verdict = try_super_frames(
        TCP, lambda frames, vnet: [(bytes(vnet) + frame, 1) for frame in frames], CuttingPath()
    )
    assert set(verdict.failed) == TCP


@pytest.mark.parametrize("kind", sorted(COALESCE_KINDS))
def test_samples_are_frames_that_a_host_sends(kind: CoalesceKind) -> None:
    """scapy computes the same lengths and checksums."""
    from scapy.layers.inet import IP, TCP, UDP
    from scapy.layers.inet6 import IPv6
    from scapy.layers.l2 import Ether

    for sample in SAMPLES[kind]:
        frames = sample_frames(kind, sample)
        assert len(frames) == len(sample.sizes)
        for octets in frames:
            assert len(octets) <= 1514
            packet = Ether(octets)
            for layer, fields in (
                (IP, ("len", "chksum")),
                (IPv6, ("plen",)),
                (TCP, ("chksum",)),
                (UDP, ("len", "chksum")),
            ):
                if layer in packet:
                    for field in fields:
                        delattr(packet[layer], field)
            assert bytes(packet) == octets
