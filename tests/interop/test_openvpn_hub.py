"""Our server as a switch between OpenVPN clients and one of ours; what servers push; what our log tells."""

from __future__ import annotations

import itertools
import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.interop.interop_ends import (
    Ends,
    Pinger,
    joined,
    log_events,
    openvpn,
    running,
    unwanted_drops,
    wait_for_event,
)
from tests.lab import Hub, Lab, OpenVpn, Profile, TwoSites, wait_for
from tests.lab.bridged_daemon import Bridged, client, server
from tests.lab.frames import capturing, discovery_kit, missing_at, received_frames, send_frames
from tests.lab.openvpn import COMPLETED
from tests.lab.pki import Identity

pytestmark = pytest.mark.root


@dataclass(slots=True)
class Star:
    """Site hub: our server. c1 and c2: OpenVPN clients. c3: our client. c4: nobody yet."""

    hub: Hub
    profile: Profile
    ours: Bridged
    openvpns: list[OpenVpn]
    identities: list[Identity]
    client: Bridged
    drops_before: list[dict[str, int]]
    """Of `ours` and `client`, when all were connected."""


@pytest.fixture(scope="module")
def star() -> Iterator[Star]:
    with Lab("star") as lab:
        hub = Hub(lab, 4)
        profile = Profile()
        issue = profile.authority.issue
        identities = [issue(f"site-{number}", "client") for number in (1, 2, 3)]
        remote = hub.server.wan_ipv4
        ours = server(hub.server, profile, issue("server", "server"))
        third = client(hub.clients[2], profile, identities[2], remote)
        with (
            running(ours),
            openvpn(hub.clients[0], "client", profile, identities[0], remote=remote) as first,
            openvpn(hub.clients[1], "client", profile, identities[1], remote=remote) as second,
            running(third),
        ):
            ours.wait_connected(3)
            third.wait_connected()
            yield Star(hub, profile, ours, [first, second], identities, third, [ours.drops(), third.drops()])


def test_all_pairs_of_sites_reach_each_other(star: Star) -> None:
    hosts = [site.host for site in star.hub.sites[:4]]
    for source, target in itertools.permutations(hosts, 2):
        source.ping(target.ipv4, count=2, interval_seconds=0.02)
        source.ping(target.ipv6, count=2, interval_seconds=0.02)
    names = [peer["name"] for peer in star.ours.connected_peers()]
    assert sorted(names) == ["site-1", "site-2", "site-3"]
    assert {peer["fdb_entries"] >= 1 for peer in star.ours.connected_peers()} == {True}
    ours, third = star.drops_before
    assert unwanted_drops(star.ours, ours) == unwanted_drops(star.client, third) == {}


def test_frames_between_clients_cross_our_server_whole(star: Star) -> None:
    hosts = [site.host for site in star.hub.clients[:3]]
    for source, target in itertools.permutations(hosts, 2):
        source.ping(target.ipv4, count=1)
        kit = discovery_kit(source, target)
        assert missing_at(source, target, kit) == {}, f"{source.ipv4} to {target.ipv4}"


def test_a_unicast_frame_reaches_only_its_site(star: Star) -> None:
    first, second, third = (site.host for site in star.hub.clients[:3])
    first.ping(second.ipv4)
    frame = bytes.fromhex((second.mac + first.mac).replace(":", "")) + b"\x88\xb6" + b"only you" * 8
    with capturing(second, third, star.hub.server.host) as (right, *others):
        send_frames(first, [frame])
        seen: list[bytes] = []
        wait_for(lambda: seen.extend(received_frames(right)) or frame in seen, "the frame", 3)
        assert all(frame not in received_frames(sock) for sock in others)


def test_a_certificate_s_second_connection_replaces_the_first(star: Star) -> None:
    remote, replaced = star.hub.server.wan_ipv4, star.openvpns[0]
    starts = replaced.starts
    pinger = Pinger(star.hub.clients[1].host, star.hub.server.host.ipv4, 2)
    with openvpn(star.hub.clients[3], "client", star.profile, star.identities[0], remote=remote) as usurper:
        usurper.wait_connected()
        wait_for_event(star.ours, "peer_disconnected", "site-1", "replaced")
        # After two seconds it would come back, and replace the other in its turn.
        replaced.started.send_signal(signal.SIGSTOP)
        try:
            star.hub.clients[3].host.ping(star.hub.server.host.ipv4)
            peers = {peer["name"]: peer for peer in star.ours.connected_peers()}
        finally:
            replaced.started.send_signal(signal.SIGCONT)
        assert set(peers) == {"site-1", "site-2", "site-3"}
        assert peers["site-1"]["endpoint"].startswith(f"{star.hub.clients[3].wan_ipv4}:")
        assert peers["site-1"]["sessions"] == 1 and peers["site-1"]["disconnects"]["replaced"] >= 1
    assert pinger.finish().lost == [], "another client noticed"
    replaced.wait_up(starts + 1)


# --- what is pushed -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sites() -> Iterator[TwoSites]:
    with Lab("push") as lab:
        yield TwoSites(lab)


def test_pushed_options_without_a_meaning_here_are_ignored_in_one_line(sites: TwoSites) -> None:
    pushed = ('push "route 10.1.0.0 255.255.0.0"', 'push "sndbuf 393216"', 'push "no-such-option 1 2"')
    with joined(sites, Profile(), "client", extra=pushed) as ends:
        (line,) = log_events(ends.ours, "pushed_options_ignored")
        for option in ("route 10.1.0.0 255.255.0.0", "sndbuf 393216", "no-such-option 1 2"):
            assert option in line
        ends.ping_both_ways()


def test_pushed_compression_is_refused_with_the_reason_where_framing_is_off(sites: TwoSites) -> None:
    profile = Profile()
    issue = profile.authority.issue
    keys = {"compression_framing": "none"}
    daemon = client(sites.b, profile, issue("client", "client"), sites.a.wan_ipv4, tunnel=keys)
    extra = ('push "comp-lzo no"',)
    with openvpn(sites.a, "server", profile, issue("server", "server"), extra=extra), running(daemon):
        wait_for_event(
            daemon, "handshake_failed", "framing_mismatch", "comp-lzo no", "compression_framing: auto"
        )
        assert daemon.connected_peers() == []


def test_our_pushed_options_reach_an_openvpn_client(sites: TwoSites) -> None:
    keys = {"push": ["rcvbuf 65536", "sndbuf 65536"]}
    with joined(sites, Profile(ping_seconds=3, restart_seconds=9), "server", tunnel=keys) as ends:
        # It logs its timers after it said that it is complete.
        ends.theirs.started.wait_for_output("Timers: ping 3, ping-restart 9", 5)
        log = ends.theirs.log
        assert "PUSH_REPLY,rcvbuf 65536,sndbuf 65536,ping 3,ping-restart 9,peer-id " in log
        assert COMPLETED in log


# --- the log --------------------------------------------------------------------------------------


def secret_pieces(profile: Profile, *identities: Identity) -> list[str]:
    texts = [identity.key for identity in identities] + [profile.wrap_key]
    return [
        line for text in texts for line in text.splitlines() if len(line) >= 16 and not line.startswith("-")
    ]


def busy(ends: Ends) -> None:
    pingers = [Pinger(ends.our_site.host, ends.their_site.host.ipv4, 4, 0.005)]
    assert ends.changed_frames() == {}
    for pinger in pingers:
        assert pinger.finish().lost == []


def test_our_log_at_debug_level_has_no_secret_and_no_line_for_each_packet(sites: TwoSites) -> None:
    profile = Profile(reneg_seconds=3)
    identity = profile.authority.issue("server", "server")
    top = {"log": {"format": "json", "level": "debug"}}
    with joined(sites, profile, "client", theirs=identity, top=top) as ends:
        busy(ends)
        # How long so many pings take depends on the kernel's ticks: it may be less than the three seconds,
        # after which either end renegotiates.
        wait_for(
            lambda: any(
                outcomes.get("established") for outcomes in ends.ours.tunnel()["renegotiations"].values()
            ),
            "a renegotiation",
            5,
        )
    log = ends.ours.log
    configured = ends.ours.configuration["tunnels"]["lab"]["tls"]["key"]
    own = Identity("client", "", configured, 0)
    pieces = secret_pieces(profile, identity, own)
    assert len(pieces) > 16
    assert [piece for piece in pieces if piece in log] == []
    # Key material, tokens and random values are never printed in any form: no long hexadecimal or base64.
    for line in log.splitlines():
        assert not re.search(r"[0-9a-f]{64}", line.lower()), line
        assert "pre_master" not in line and "PRIVATE" not in line
    # 800 pings, the kit and three keys: a line for each event, none for a packet.
    assert len(log.splitlines()) < 40
