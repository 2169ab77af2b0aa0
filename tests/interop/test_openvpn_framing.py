"""Compression framing with real OpenVPN of three generations, both roles: every form that profiles have."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.interop.interop_ends import Ends, iperf, joined, log_events, wait_for_event
from tests.lab import Lab, Profile, TwoSites, wait_for
from tests.lab.frames import missing_at

pytestmark = pytest.mark.root
ESCAPED = bytes.fromhex("50dead000001")
"""The address of a station that nobody has, which begins as the mark of `stub-v2` does."""


@pytest.fixture(scope="module")
def sites() -> Iterator[TwoSites]:
    with Lab("framing") as lab:
        yield TwoSites(lab)


def check(ends: Ends, agreed: str, *, streams: bool = False) -> None:
    """Both ends frame alike: small, large and (with `streams`) joined frames cross whole."""
    assert ends.peer()["framing"] == agreed
    ends.ping_both_ways(count=1)
    assert ends.changed_frames() == {}
    ours, theirs = ends.our_site.host, ends.their_site.host
    if streams:
        for source, target in ((ours, theirs), (theirs, ours)):
            stream = iperf(source, target, 1)
            assert stream.wait(20) == 0, stream.output()
    assert ends.unwanted_drops() == {}
    assert log_events(ends.ours, "options_differ") == []
    assert "Bad compression" not in ends.theirs.log and "Bad LZO" not in ends.theirs.log


OUR_SERVER = [
    ("2.5", "auto", "comp-lzo", "stub-v2"),
    ("2.5", "comp-lzo", "", "comp-lzo"),
    ("2.5", "stub", "comp-lzo no", "stub"),
    ("2.6", "auto", "", "none"),
    ("2.6", "auto", "compress lz4", "stub-v2"),
    ("2.6", "comp-lzo", "compress", "comp-lzo"),
    ("2.6", "stub", "", "stub"),
    ("2.6", "stub-v2", "comp-lzo yes", "stub-v2"),
    ("2.7", "auto", "compress lz4-v2", "stub-v2"),
    ("2.7", "comp-lzo", "comp-lzo", "comp-lzo"),
    ("2.7", "stub", "compress migrate", "stub"),
]


@pytest.mark.parametrize(("release", "setting", "option", "agreed"), OUR_SERVER)
def test_our_server_gives_each_client_the_framing_that_it_asks_for_and_knows(
    sites: TwoSites, release: str, setting: str, option: str, agreed: str
) -> None:
    keys = {"compression_framing": setting}
    extra = (option,) if option else ()
    with joined(sites, Profile(), "server", tunnel=keys, extra=extra, release=release) as ends:
        check(ends, agreed, streams=release == "2.6" and setting == agreed)
        assert "'comp-lzo' is" not in ends.theirs.log, "no inconsistency between the options strings"


def test_a_client_that_ignores_what_is_pushed_frames_as_the_server_is_set_to(sites: TwoSites) -> None:
    extra = ("comp-lzo no", 'pull-filter ignore "comp-lzo"')
    with joined(sites, Profile(), "server", tunnel={"compression_framing": "comp-lzo"}, extra=extra) as ends:
        check(ends, "comp-lzo")


OUR_CLIENT = [
    ("2.5", "comp-lzo", ("comp-lzo",), "comp-lzo"),
    ("2.5", "stub", ("compress",), "stub"),
    ("2.5", "auto", ("compress stub-v2", 'push "compress stub-v2"'), "stub-v2"),
    ("2.6", "comp-lzo", ("comp-lzo no",), "comp-lzo"),
    ("2.6", "stub", ("compress lz4",), "stub"),
    ("2.6", "stub-v2", ("compress lz4-v2",), "stub-v2"),
    ("2.6", "auto", ("comp-lzo no", 'push "comp-lzo no"'), "comp-lzo"),
    ("2.6", "comp-lzo", (), "none"),
    ("2.7", "comp-lzo", ("compress lzo",), "comp-lzo"),
    ("2.7", "stub", ("compress stub", 'push "compress stub"'), "stub"),
]


@pytest.mark.parametrize(("release", "setting", "options", "agreed"), OUR_CLIENT)
def test_our_client_frames_as_the_server_pushes_or_as_its_profile_says(
    sites: TwoSites, release: str, setting: str, options: tuple[str, ...], agreed: str
) -> None:
    keys = {"compression_framing": setting}
    with joined(sites, Profile(), "client", tunnel=keys, extra=options, release=release) as ends:
        check(ends, agreed, streams=release == "2.6" and setting == agreed)
        if release != "2.5":
            for name in ("IV_LZO_STUB", "IV_COMP_STUB", "IV_COMP_STUBv2"):
                assert f"peer info: {name}=1" in ends.theirs.log


@pytest.mark.parametrize("release", ["2.6", "2.7"])
def test_a_server_that_migrates_its_clients_pushes_a_framing_that_it_does_not_use(
    sites: TwoSites, release: str
) -> None:
    keys = {"compression_framing": "comp-lzo"}
    extra = ("compress migrate",)
    with joined(sites, Profile(), "client", tunnel=keys, extra=extra, release=release) as ends:
        check(ends, "stub-v2")
        ours, theirs = ends.our_site.host, ends.their_site.host
        source = bytes.fromhex(theirs.mac.replace(":", ""))
        frames = {"begins with the mark": ESCAPED + source + b"\x88\xb5" + bytes(50)}
        # Our site's host speaks first, as that station: OpenVPN never floods a unicast.
        said = b"\xff" * 6 + ESCAPED + b"\x88\xb5" + bytes(50)
        assert missing_at(ours, theirs, {"broadcast": said}) == {}
        assert missing_at(theirs, ours, frames) == {}


COMPRESSING = [
    ("2.5", "comp-lzo yes", "comp-lzo"),
    ("2.5", "compress lz4", "stub"),
    ("2.6", "comp-lzo yes", "comp-lzo"),
    ("2.6", "compress lz4-v2", "stub-v2"),
]


@pytest.mark.parametrize(("release", "option", "framing"), COMPRESSING)
def test_what_a_server_compresses_is_dropped_counted_and_said_once_with_the_cure(
    sites: TwoSites, release: str, option: str, framing: str
) -> None:
    keys = {"compression_framing": framing}
    extra = (option, "allow-compression yes")
    with joined(sites, Profile(), "client", tunnel=keys, extra=extra, release=release) as ends:
        theirs, ours = ends.their_site.host, ends.our_site.host
        question = ("ping", "-c", "3", "-i", "0.02", "-W", "1", "-s", "1400", "-p", "00", ours.ipv4)
        # OpenVPN never floods a unicast. What is this small it does not compress.
        ours.ping(theirs.ipv4, count=1)
        theirs.namespace.run(*question, check=False)
        wait_for(lambda: ends.unwanted_drops().get("receive compressed", 0) >= 3, "drops: compressed", 5)
        line = wait_for_event(ends.ours, "peer_compresses", "allow-compression yes")
        assert {"comp-lzo": "`comp-lzo no`", "stub": "`compress stub`", "stub-v2": "`compress stub-v2`"}[
            framing
        ] in line
        assert len(log_events(ends.ours, "peer_compresses")) == 1
        drops = ends.ours.tunnel()["dataplane"]["drops"]["receive"]
        assert set(drops) >= {"compressed"} and "bad_framing" not in drops
        # What it cannot make smaller it sends plain, framed: the tunnel is up.
        assert ends.peer()["connected"]
