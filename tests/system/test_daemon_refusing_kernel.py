"""Whole daemons on a kernel that refuses an offload: frames cross unchanged, and log and counter say so."""

from __future__ import annotations

import ctypes
import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bridged.catalogue.settings import COALESCE_KINDS
from bridged.dataplane import CoalesceKind, choose_dataplane
from bridged.runtime.tunnels.super_frame_trial import SAMPLES, sample_frames
from tests.lab import WAN_PORT, Bridged, Lab, TwoSites, bridged_pair, wait_for
from tests.lab.frames import discovery_kit, missing_at
from tests.system.daemon_lab import stop_all

pytestmark = pytest.mark.root

PLANES = ["portable", "native"] if choose_dataplane("auto").kind == "native" else ["portable"]
SO_NO_CHECK = 11
PIDFD_GETFD = 438


@contextmanager
def pair(
    plane: str, refusals: tuple[str, ...] = (), **keys: Any
) -> Iterator[tuple[TwoSites, tuple[Bridged, Bridged]]]:
    """Over a WAN of 9000 bytes: there native has no reason to cut a TCP segment anew. `keys`: of both."""
    tunnel = {"dataplane": plane, "wan_mtu": 9000, **keys}
    with Lab("refuse") as lab:
        sites = TwoSites(lab, wan_mtu=9000)
        daemons = bridged_pair(
            sites.a, sites.b, server_tunnel=tunnel, client_tunnel=tunnel, refusals=refusals
        )
        sites.a.host.ping(sites.b.host.ipv4, count=2)
        yield sites, daemons
        stop_all(*daemons)


def assert_all_crosses(sites: TwoSites, kinds: Iterable[CoalesceKind] = COALESCE_KINDS) -> None:
    """Both ways: the discovery kit, and TCP and UDP of which super-frames are made, back to back.

    The receiving port has no offloads, so that it sees frames as a wire would carry them.
    """
    for site in (sites.a, sites.b):
        for feature in ("tso", "gso", "sg", "tx"):
            site.namespace.run("ethtool", "-K", "lan0", feature, "off", check=False)
    for sender, receiver in ((sites.a.host, sites.b.host), (sites.b.host, sites.a.host)):
        assert missing_at(sender, receiver, discovery_kit(sender, receiver)) == {}
        addresses = bytes.fromhex((receiver.mac + sender.mac).replace(":", ""))
        samples = [
            {
                f"{kind} {sample.name} {number}": addresses + frame[12:]
                for number, frame in enumerate(sample_frames(kind, sample))
            }
            for kind in kinds
            for sample in SAMPLES[kind]
        ]
        assert missing_at(sender, receiver, *samples, gap_seconds=0.0) == {}


def send_until_given_up(
    sites: TwoSites,
    daemons: tuple[Bridged, Bridged],
    offload: str,
    cause: str,
    kinds: Iterable[CoalesceKind] = COALESCE_KINDS,
) -> None:
    """Only several frames at once meet the refusal; where a machine is busy they may come one by one."""

    def given_up() -> bool:
        assert_all_crosses(sites, kinds)
        return all(fallbacks(daemon, offload, cause) >= 1 for daemon in daemons)

    wait_for(given_up, f"{offload} given up for {cause} at both ends", 20.0)


def assert_told(daemon: Bridged, offload: str, cause: str, *texts: str) -> None:
    """The counter counts (in status and metrics) and the log says so."""
    wait_for(lambda: fallbacks(daemon, offload, cause) >= 1, f"{offload} given up for {cause}", 5.0)
    labels = {"tunnel": "lab", "offload": offload, "cause": cause}
    assert daemon.metric("bridged_dataplane_offload_fallbacks_total", **labels) >= 1
    for text in texts:
        daemon.started.wait_for_output(text, 5.0)


def assert_none_lost(daemon: Bridged) -> None:
    """On the way out; what the LAN said before there was a peer does not count."""
    for reason in ("emsgsize", "io_error", "udp_send_full"):
        labels = {"tunnel": "lab", "direction": "transmit", "reason": reason}
        assert daemon.metric("bridged_drops_total", **labels) == 0


def fallbacks(daemon: Bridged, offload: str, cause: str) -> int:
    found: int = daemon.tunnel()["dataplane"]["offload_fallbacks"].get(offload, {}).get(cause, 0)
    return found


def coalescing(daemon: Bridged) -> dict[str, str]:
    found: dict[str, str] = daemon.tunnel()["coalescing"]
    return found


@pytest.mark.parametrize("plane", PLANES)
def test_on_this_kernel_the_self_test_passes_and_super_frames_are_made(plane: str) -> None:
    with pair(plane) as (sites, daemons):
        assert_all_crosses(sites)
        for daemon in daemons:
            kinds = coalescing(daemon)
            assert set(kinds.values()) == {"joined"}
            assert set(kinds) == ({"tcp4", "tcp6"} if plane == "portable" else set(SAMPLES))
            assert "coalescing_tried" in daemon.log
            assert fallbacks(daemon, "coalesce", "selftest") == 0
            histogram = daemon.tunnel()["dataplane"]["histograms"]["frames_per_tap_write"]
            assert histogram["total"] > sum(histogram["counts"]), "some writes held several frames"


@pytest.mark.parametrize("plane", PLANES)
def test_a_kernel_that_takes_no_super_frames_is_found_by_the_self_test(plane: str) -> None:
    with pair(plane, ("super_frames",)) as (sites, daemons):
        for daemon in daemons:
            assert_told(
                daemon, "coalesce", "selftest", "coalescing_refused", "the kernel refused the super-frame"
            )
            assert all("refused the super-frame" in reason for reason in coalescing(daemon).values())
            assert not daemon.tunnel()["dataplane"]["offloads"]["coalesce"]
            assert "goes frame by frame" in daemon.command("status", "--config", str(daemon.file))
        assert_all_crosses(sites)
        for daemon in daemons:
            assert fallbacks(daemon, "coalesce", "einval") == 0, "none was ever tried"


@pytest.mark.parametrize("plane", PLANES)
def test_a_kernel_that_takes_no_super_frames_is_found_by_the_first_one(plane: str) -> None:
    """`coalesce: on` leaves the self-test out."""
    with pair(plane, ("super_frames",), coalesce="on") as (sites, daemons):
        send_until_given_up(sites, daemons, "coalesce", "einval")
        for daemon in daemons:
            assert_told(daemon, "coalesce", "einval", "offload_fallback", "the TAP refused a super-frame")
            assert fallbacks(daemon, "coalesce", "einval") == 1
            assert not daemon.tunnel()["dataplane"]["offloads"]["coalesce"]


@pytest.mark.parametrize("plane", PLANES)
def test_where_the_self_test_cannot_run_it_says_so_and_goes_on(plane: str) -> None:
    with pair(plane, ("unshare",)) as (sites, daemons):
        for daemon in daemons:
            assert "coalescing_not_tried" in daemon.log
            assert set(coalescing(daemon).values()) == {"joined"}
        assert_all_crosses(sites)


@pytest.mark.parametrize("plane", PLANES)
def test_an_old_kernel_without_udp_offloads_and_uso(plane: str) -> None:
    with pair(plane, ("udp_gro", "udp_segment", "uso", "release")) as (sites, daemons):
        for daemon in daemons:
            assert_told(daemon, "udp_gro", "einval", "this kernel has no UDP_GRO")
            assert_told(daemon, "udp_gso", "einval", "packets leave one by one")
            offloads = daemon.tunnel()["dataplane"]["offloads"]
            assert not (offloads["udp_gro"] or offloads["udp_gso"] or offloads["tap_uso"])
            assert set(coalescing(daemon)) == {"tcp4", "tcp6"}
            if plane == "native":
                assert_told(daemon, "tap_uso", "einval", "tap_offloads_refused")
                assert offloads["tap_tso"]
        assert_all_crosses(sites)


def test_an_old_release_that_has_uso_joins_no_udp() -> None:
    if "native" not in PLANES:
        pytest.fail("this needs the native data plane; run `make setup` where there is Rust")
    with pair("native", ("release",)) as (sites, daemons):
        for daemon in daemons:
            assert_told(daemon, "coalesce", "config", "coalescing_refused", "may lose UDP super-frames")
            kinds = coalescing(daemon)
            assert kinds["tcp4"] == kinds["tcp6"] == "joined"
            assert "kernel 2.6." in kinds["udp4"] and "kernel 2.6." in kinds["udp6"]
            assert daemon.tunnel()["dataplane"]["offloads"]["tap_uso"], "reading them is another matter"
        assert_all_crosses(sites)


@pytest.mark.parametrize("plane", PLANES)
def test_a_tap_without_segmentation_offloads(plane: str) -> None:
    with pair(plane, ("tso", "uso")) as (sites, daemons):
        for daemon in daemons:
            offloads = daemon.tunnel()["dataplane"]["offloads"]
            assert offloads["tap_vnet"] and not offloads["tap_tso"]
            if plane == "native":
                assert_told(daemon, "tap_tso", "einval", "tap_offloads_refused")
        assert_all_crosses(sites)


@pytest.mark.parametrize("plane", PLANES)
def test_a_tap_without_virtio_header(plane: str) -> None:
    with pair(plane, tap={"name": "tap0", "offload": False}) as (sites, daemons):
        for daemon in daemons:
            offloads = daemon.tunnel()["dataplane"]["offloads"]
            assert not any(offloads[name] for name in ("tap_vnet", "tap_tso", "tap_uso", "coalesce"))
            assert coalescing(daemon) == {}
            assert "coalescing_tried" not in daemon.log, "nothing to try"
        assert_all_crosses(sites)


@pytest.mark.parametrize("plane", PLANES)
def test_a_wan_card_without_any_offload(plane: str) -> None:
    """The kernel cuts what is sent with UDP_SEGMENT, and sums it up; nothing is given up."""
    with pair(plane) as (sites, daemons):
        for site in (sites.a, sites.b):
            for feature in ("tx-udp-segmentation", "gso", "sg", "tx"):
                site.namespace.run("ethtool", "-K", WAN_PORT, feature, "off")
        assert_all_crosses(sites)
        for daemon in daemons:
            assert daemon.tunnel()["dataplane"]["offloads"]["udp_gso"]
            assert_none_lost(daemon)


@pytest.mark.parametrize("plane", PLANES)
def test_a_wan_card_that_segments_no_udp(plane: str) -> None:
    """EIO for every send with UDP_SEGMENT."""
    with pair(plane, ("segments",)) as (sites, daemons):
        send_until_given_up(sites, daemons, "udp_gso", "eio")
        for daemon in daemons:
            assert_told(daemon, "udp_gso", "eio", "offload_fallback", "cause=eio")
            assert fallbacks(daemon, "udp_gso", "eio") <= 2, "it is remembered, whatever the size"
            assert_none_lost(daemon)


@pytest.mark.parametrize("plane", PLANES)
def test_a_socket_that_refuses_segmentation_from_some_moment_on(plane: str) -> None:
    """EINVAL, the kernel's own: it does not segment where checksums are off."""
    with pair(plane) as (sites, daemons):
        for daemon in daemons:
            switch_checksums_off(daemon)
        send_until_given_up(sites, daemons, "udp_gso", "einval")
        for daemon in daemons:
            assert_told(daemon, "udp_gso", "einval", "offload_fallback", "cause=einval")


@pytest.mark.parametrize("plane", PLANES)
def test_a_wan_whose_mtu_shrinks_under_the_tunnel(plane: str) -> None:
    """EMSGSIZE, the kernel's own: what was cut for 9000 bytes no longer fits."""
    with pair(plane) as (sites, daemons):
        assert_all_crosses(sites)
        for site in (sites.a, sites.b):
            site.namespace.ip("link", "set", WAN_PORT, "mtu", "1400")
        send_until_given_up(sites, daemons, "udp_gso", "emsgsize", ("udp4", "udp6"))
        for daemon in daemons:
            assert_told(daemon, "udp_gso", "emsgsize", "offload_fallback", "cause=emsgsize")
            assert_none_lost(daemon)


def switch_checksums_off(daemon: Bridged) -> None:
    """SO_NO_CHECK on the daemon's UDP socket of the tunnel, from outside."""
    pid = int(daemon.status()["pid"])
    pidfd = os.pidfd_open(pid)
    libc = ctypes.CDLL(None, use_errno=True)
    changed = 0
    try:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            try:
                is_socket = os.readlink(entry).startswith("socket:")
            except FileNotFoundError:  # it was closed meanwhile
                continue
            descriptor = libc.syscall(PIDFD_GETFD, pidfd, int(entry.name), 0) if is_socket else -1
            if descriptor < 0:
                continue
            with socket.socket(fileno=descriptor) as sock:
                if sock.family == socket.AF_INET and sock.type == socket.SOCK_DGRAM:
                    sock.setsockopt(socket.SOL_SOCKET, SO_NO_CHECK, 1)
                    changed += 1
    finally:
        os.close(pidfd)
    assert changed, "no UDP socket found"
