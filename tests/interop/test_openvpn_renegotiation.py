"""Data keys are replaced while traffic runs, and no frame is lost by it: real OpenVPN at the other end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bridged.runtime.server.password_file import hash_password
from tests.interop.interop_ends import Ends, Pinger, Role, iperf, joined
from tests.lab import Lab, Profile, TwoSites
from tests.lab.bounds import at_least
from tests.lab.password_server import PASSWORD, USER
from tests.lab.pki import write_private
from tests.lab.relay import Relay

pytestmark = [pytest.mark.root, pytest.mark.measures]
TRAFFIC_SECONDS = 6.0
SHORT = 2
RELAY = "203.0.113.1", 1195
CONTROL_DELAY = 0.1
LEAST_RENEGOTIATIONS = 2


@pytest.fixture(scope="module")
def sites() -> Iterator[TwoSites]:
    with Lab("reneg") as lab:
        yield TwoSites(lab, wan="switch")


@pytest.fixture
def slow_control(sites: TwoSites) -> Iterator[None]:
    """At `RELAY`: site a, but control packets take longer than frames."""
    relay = Relay(sites.wan_namespace, RELAY, (sites.a.wan_ipv4, 1194), delay=CONTROL_DELAY, only="control")
    yield
    relay.process.stop()


def renegotiate_under_traffic(ends: Ends, seconds: float, interval: float = 0.01) -> tuple[Pinger, Pinger]:
    """Pings from either side, and one TCP stream, for so long."""
    ours, theirs = ends.our_site.host, ends.their_site.host
    stream = iperf(theirs, ours, seconds)
    pingers = (Pinger(ours, theirs.ipv4, seconds, interval), Pinger(theirs, ours.ipv6, seconds, interval))
    for pinger in pingers:
        pinger.finish()
    assert stream.wait(20) == 0, stream.tail()
    received = json.loads(stream.output())["end"]["sum_received"]["bytes"]
    at_least(received, 1_000_000, "octets of the TCP stream")
    return pingers


def renegotiated(ends: Ends) -> dict[str, int]:
    """Completed ones, by what started them."""
    found: dict[str, dict[str, int]] = ends.ours.tunnel()["renegotiations"]
    assert all(set(outcomes) == {"established"} for outcomes in found.values()), found
    return {trigger: outcomes["established"] for trigger, outcomes in found.items()}


@pytest.mark.parametrize(
    ("ours_as", "starter", "derivation"),
    [
        ("server", "us", "exporter"),
        ("server", "us", "prf"),
        ("server", "them", "exporter"),
        ("client", "us", "exporter"),
        ("client", "them", "exporter"),
        ("client", "them", "prf"),
    ],
)
def test_no_ping_is_lost_over_several_renegotiations_under_load(
    sites: TwoSites, ours_as: Role, starter: str, derivation: str
) -> None:
    profile = Profile(reneg_seconds=SHORT if starter == "them" else 3600)
    keys = {"renegotiate": {"seconds": SHORT if starter == "us" else 3600}, "key_derivation": derivation}
    if derivation == "exporter":
        keys["key_derivation"] = "auto"
    with joined(sites, profile, ours_as, tunnel=keys) as ends:
        ends.ping_both_ways()
        pingers = renegotiate_under_traffic(ends, TRAFFIC_SECONDS)
        assert [pinger.lost for pinger in pingers] == [[], []]
        trigger = "time" if starter == "us" else "peer"
        for done in (renegotiated(ends).get(trigger, 0), ends.theirs.renegotiations()):
            at_least(done, LEAST_RENEGOTIATIONS, "renegotiations")
        assert ends.unwanted_drops() == {}
        assert "Authenticate/Decrypt" not in ends.theirs.log
        assert ends.theirs.key_derivations()[-1] == derivation
        assert len(ends.ours.connected_peers()) == 1 and ends.peer()["connections"] == 1


@pytest.mark.parametrize("ours_as", ["server", "client"])
def test_both_ends_may_want_to_renegotiate_at_the_same_time(sites: TwoSites, ours_as: Role) -> None:
    with joined(
        sites, Profile(reneg_seconds=SHORT), ours_as, tunnel={"renegotiate": {"seconds": SHORT}}
    ) as ends:
        ends.ping_both_ways()
        pingers = renegotiate_under_traffic(ends, TRAFFIC_SECONDS)
        assert [pinger.lost for pinger in pingers] == [[], []]
        at_least(sum(renegotiated(ends).values()), LEAST_RENEGOTIATIONS, "renegotiations")
        assert ends.unwanted_drops() == {}
        assert ends.peer()["connections"] == 1


@pytest.mark.parametrize("ours_as", ["server", "client"])
@pytest.mark.parametrize(("limit", "count"), [("bytes", 100_000), ("packets", 300)])
def test_a_key_is_replaced_after_so_many_bytes_or_packets(
    sites: TwoSites, ours_as: Role, limit: str, count: int
) -> None:
    keys = {"renegotiate": {"seconds": 0, limit: count}}
    with joined(sites, Profile(), ours_as, tunnel=keys) as ends:
        pinger = Pinger(ends.our_site.host, ends.their_site.host.ipv4, 3.0, 0.005)
        iperf(ends.their_site.host, ends.our_site.host, 1).wait(20)
        assert pinger.finish().lost == []
        for done in (renegotiated(ends).get(limit, 0), ends.theirs.renegotiations()):
            at_least(done, 1, "renegotiations")
        assert ends.unwanted_drops() == {}
        assert ends.peer()["connections"] == 1


def asking(way: str, profile: Profile, folder: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Settings of our server that judges each renegotiation in this way, and what OpenVPN's client needs."""
    if way == "verify_command":
        own = profile.authority.issue("server", "server")
        tls = {"ca": profile.authority.certificate, "certificate": own.certificate, "key": own.key}
        return {"tls": tls | {"verify_command": ["/bin/true"]}}, ()
    if way == "nothing":
        return {}, ()
    users, login = folder / "passwords", folder / "login.txt"
    write_private(users, f"{USER}:{hash_password(PASSWORD)}\n")
    write_private(login, f"{USER}\n{PASSWORD}\n")
    token = {"token_seconds": 0} if way == "password" else {}
    return {"authentication": {"password_file": str(users), **token}}, (f"auth-user-pass {login}",)


@pytest.mark.parametrize(
    ("ours_as", "asks"),
    [
        ("server", "nothing"),
        ("server", "verify_command"),
        ("server", "password"),
        ("server", "token"),
        ("client", "nothing"),
    ],
)
def test_a_frame_under_a_new_key_may_come_before_the_last_acknowledgement(
    sites: TwoSites, slow_control: None, tmp_path: Path, ours_as: Role, asks: str
) -> None:
    """OpenVPN seals with its first new key at once."""
    profile = Profile(reneg_seconds=3600, port=RELAY[1] if ours_as == "server" else 1194)
    keys, extra = asking(asks, profile, tmp_path)
    keys["renegotiate"] = {"seconds": 3}
    if ours_as == "server":
        keys["listen"] = "0.0.0.0:1194"
    remote = RELAY[0] if ours_as == "server" else f"{RELAY[0]}:{RELAY[1]}"
    with joined(sites, profile, ours_as, tunnel=keys, extra=extra, remote=remote) as ends:
        ends.ping_both_ways()
        ours, theirs = ends.our_site.host, ends.their_site.host
        pingers = [
            Pinger(source, target, TRAFFIC_SECONDS)
            for source, target in ((ours, theirs.ipv4), (theirs, ours.ipv6))
        ]
        assert [pinger.finish().lost for pinger in pingers] == [[], []]
        at_least(renegotiated(ends).get("time", 0), 1, "renegotiations")
        assert ends.unwanted_drops() == {}
        assert ends.peer()["connections"] == 1
