"""Who may stay: kicked, revoked, expired and refused peers are out within a second, in both roles."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from bridged.addresses import Remote
from bridged.pki import EmbeddedCa
from bridged.pki.certificates import Validity, build_authority, build_certificate, generate_key, key_pem
from bridged.pki.certificates import certificate_pem as pem
from bridged.protocol.role import Role
from bridged.protocol.session.events import Authenticated
from bridged.runtime.client.client import ClientRole
from bridged.runtime.tunnels.link import News, PeerLink
from bridged.runtime.tunnels.tunnel import RunningTunnel
from bridged.runtime.tunnels.tunnel_plan import TunnelPlan
from bridged.tls import TlsSettings, make_engine_factory
from bridged.tls.peer_check import PeerCheck
from tests.lab import Authority, Bridged, Lab, LabError, OpenVpn, Profile, TwoSites, wait_for
from tests.lab.bounds import at_most, takes_at_most
from tests.lab.bridged_daemon import server
from tests.lab.pki import Identity
from tests.lab.waiting import until
from tests.sim.noisy_wire import identities, settings, wrap_keys
from tests.system.loopback_lab import Lab as Loopback
from tests.system.loopback_lab import crosses, endpoint, run

pytestmark = pytest.mark.measures

OTHER_CA = pem(
    build_authority(
        "another",
        generate_key(),
        Validity(datetime.now(UTC) - timedelta(days=1), datetime.now(UTC) + timedelta(days=9)),
    )
)
SOON = 1.0
"""Seconds within which a peer is out."""


def rules(tunnel: RunningTunnel, **changes: object) -> TunnelPlan:
    """The tunnel's plan, with other rules for the peer's certificate."""
    name = "server" if tunnel.role.name == "server" else "client"
    ca, certificate, key = identities()[name]
    usage = "client" if name == "server" else "server"
    values: dict[str, object] = {"ca_pem": ca, "peer_usage": usage} | changes
    made = TlsSettings(tunnel.role.name, certificate, key, **values)  # type: ignore[arg-type]
    return replace(tunnel.plan, make_engine=make_engine_factory(made), judge_peer=PeerCheck(made).judge)


def hold_admissions(
    hub: RunningTunnel, held: list[tuple[PeerLink, News]]
) -> Callable[[PeerLink, News], None]:
    """Put aside what would let a peer in; returns what handles it."""
    real = hub.role.handle_news

    def hold(link: PeerLink, news: News) -> None:
        if isinstance(news, Authenticated):
            held.append((link, news))
        else:
            real(link, news)

    hub.role.handle_news = hold  # type: ignore[method-assign]
    return real


def ended(tunnel: RunningTunnel, name: str) -> dict[str, int]:
    return dict(tunnel.records.book.record(name).disconnects)


def test_a_kicked_peer_is_out_at_once_and_may_come_back() -> None:
    async def scenario(lab: Loopback) -> None:
        hub, lan = await lab.server()
        client, far = await lab.client(endpoint(hub))
        other, _ = await lab.client(endpoint(hub), "second")
        await crosses(far, lan)
        await until(lambda: other.state == "connected")
        assert hub.standing.kick("nobody") == 0
        assert hub.standing.kick("client") == 1
        with takes_at_most(SOON, "the end"):
            await until(lambda: client.state != "connected")
        assert ended(hub, "client") == {"kicked": 1}
        await crosses(far, lan)
        assert ended(hub, "second") == {} and other.state == "connected"

    run(scenario)


def test_a_client_may_kick_its_server_and_connects_again() -> None:
    async def scenario(lab: Loopback) -> None:
        hub, lan = await lab.server()
        client, far = await lab.client(endpoint(hub))
        await crosses(far, lan)
        assert client.standing.kick("server") == 1
        with takes_at_most(SOON, "the end"):
            await until(lambda: ended(hub, "client") == {"exit_notify": 1})
        await crosses(far, lan)

    run(scenario)


@pytest.mark.parametrize(
    "changes",
    [
        {"peer_name": "elsewhere"},
        {"peer_fingerprints": ("00" * 32,)},
        {"ca_pem": OTHER_CA},
    ],
    ids=["name", "fingerprint", "authority"],
)
@pytest.mark.parametrize("role", ["server", "client"])
def test_a_change_of_the_rules_ends_the_sessions_that_break_them(
    changes: dict[str, object], role: str
) -> None:
    async def scenario(lab: Loopback) -> None:
        hub, lan = await lab.server()
        client, far = await lab.client(endpoint(hub))
        await crosses(far, lan)
        judging, name = (hub, "client") if role == "server" else (client, "server")
        judging.apply(rules(judging))
        assert ended(judging, name) == {}, "rules that let the peer in end nothing"
        judging.apply(rules(judging, **changes))
        assert ended(judging, name) == {"auth_expired": 1}
        # The other end hears of it, and does not get in again.
        with takes_at_most(SOON, "the end"):
            await until(lambda: hub.records.statistics.handshakes or not client.links)
        await asyncio.sleep(0.3)
        assert not any(link.is_attached for link in hub.links.values())

    run(scenario)


def test_a_handshake_that_began_before_the_change_is_judged_by_the_new_rules() -> None:
    async def scenario(lab: Loopback) -> None:
        hub, _ = await lab.server()
        admitted: list[tuple[PeerLink, News]] = []
        real = hold_admissions(hub, admitted)
        await lab.client(endpoint(hub))
        await until(lambda: admitted)
        hub.apply(rules(hub, peer_name="elsewhere"))
        real(*admitted[0])
        admitted[0][0].pump()
        await until(lambda: hub.records.book.record("client").disconnects, seconds=5)
        assert ended(hub, "client") == {"auth_expired": 1}

    run(scenario)


def test_a_kick_ends_a_handshake_too_and_counts_as_no_outcome_of_one() -> None:
    async def scenario(lab: Loopback) -> None:
        hub, _ = await lab.server()
        admitted: list[tuple[PeerLink, News]] = []
        hold_admissions(hub, admitted)
        await lab.client(endpoint(hub))
        await until(lambda: admitted)
        assert hub.standing.kick("client") == 0, "there was no session yet"
        with takes_at_most(SOON, "the end"):
            await until(lambda: admitted[0][0].handle not in hub.links)
        assert "kicked" not in {outcome for _, outcome in hub.records.statistics.handshakes}

    run(scenario)


@pytest.mark.parametrize("role", ["server", "client"])
def test_a_certificate_that_ends_ends_its_session(role: str) -> None:
    async def scenario(lab: Loopback) -> None:
        now = datetime.now(UTC)
        ca_key, keys = generate_key(), {name: generate_key() for name in ("server", "client")}
        ca = build_authority("short", ca_key, Validity(now - timedelta(days=1), now + timedelta(days=9)))
        end = now.replace(microsecond=0) + timedelta(seconds=3)
        plans = {}
        for name, key in keys.items():
            until_when = now + timedelta(days=1) if name == role else end
            validity = Validity(now - timedelta(days=1), until_when)
            certificate = build_certificate(name, key.public_key(), name, ca, ca_key, validity)
            usage = "server" if name == "client" else "client"
            made = TlsSettings(name, pem(certificate), key_pem(key), pem(ca), peer_usage=usage)
            plans[name] = make_engine_factory(made)
        hub, lan = await lab.server()
        hub.apply(replace(hub.plan, make_engine=plans["server"]))
        plan = TunnelPlan(
            "client",
            "br0",
            settings(Role.CLIENT, "tls-crypt"),
            plans["client"],
            wrap_keys("tls-crypt", Role.CLIENT),
            remotes=(Remote(endpoint(hub)),),
        )
        client, far = await lab._start(ClientRole, plan, None)
        await crosses(far, lan)
        judging, name = (hub, "client") if role == "server" else (client, "server")
        await until(lambda: ended(judging, name))
        at_most(time.time() - end.timestamp(), SOON, "the end")
        assert time.time() >= end.timestamp()
        assert ended(judging, name) == {"auth_expired": 1}

    run(scenario)


def test_ends_of_validity_cost_nothing_for_sessions_that_are_gone() -> None:
    async def scenario(lab: Loopback) -> None:
        hub, _ = await lab.server()
        client, _ = await lab.client(endpoint(hub))
        await until(lambda: client.state == "connected" and hub.standing._peers)
        (handle,) = hub.standing._peers
        link, summary = hub.links[handle], hub.standing._peers[handle][0]
        for number in range(1000):
            hub.standing._peers[10_000 + number] = hub.standing._peers[handle]  # type: ignore[index]
            hub.standing._ends.append((hub.standing._peers[handle][1], 10_000 + number))  # type: ignore[arg-type]
            hub.standing.note(link, summary, 0.0)
        for number in range(1000):
            hub.standing._peers.pop(10_000 + number)  # type: ignore[call-overload]
        hub.standing.forget(link)
        assert len(hub.standing._ends) == 0
        hub.standing.note(link, summary, 0.0)

    run(scenario)


# --- a whole daemon, and OpenVPN as its peer ----------------------------------------------------------


@pytest.mark.root
def test_kick_and_revoke_act_within_a_second_on_a_real_openvpn() -> None:
    with Lab("putout") as lab:
        sites = TwoSites(lab)
        authority = Authority()
        profile = Profile(authority=authority)
        hub = server(
            sites.a, profile, authority.issue("unused", "server"), tunnel={"tls": {"embedded": True}}
        )
        embedded = EmbeddedCa.create(hub.state_directory)
        authority.certificate = embedded.certificate_pem.decode()
        issued = embedded.issue("shop", "client")
        identity = Identity("shop", issued.certificate_pem.decode(), issued.key_pem.decode(), 0)
        shop = OpenVpn(sites.b, "client", profile, identity, remote=sites.a.wan_ipv4)
        hub.start()
        shop.start().wait_connected()
        hub.wait_connected()
        sites.b.host.ping(sites.a.host.ipv4, count=1)

        hub.command("kick", "shop", "--config", str(hub.file))
        with takes_at_most(SOON, "OpenVPN to hear of it"):
            shop.started.wait_for_output("Connection reset command was pushed")
        assert disconnects(hub) == {"kicked": 1}
        shop.wait_connected(20, times=2)
        wait_for(lambda: sites.b.host.reaches(sites.a.host.ipv4), "the kicked peer to be back", 10)

        rules_of_hub = hub.configuration["tunnels"]["lab"]["tls"]
        rules_of_hub["peer_name"] = "elsewhere"
        hub.reload()
        assert hub.connected_peers() == [], "a reload judges those that are connected"
        assert disconnects(hub) == {"kicked": 1, "auth_expired": 1}
        del rules_of_hub["peer_name"]
        hub.reload()
        try:
            shop.wait_connected(2, times=3)
        except LabError:
            # It came while it was not let in: it waits for a minute, because it does not read TLS alerts.
            shop.restart_soft()
            shop.wait_connected(30, times=3)
        hub.wait_connected()

        hub.command("revoke", "shop", "--config", str(hub.file))
        assert hub.connected_peers() == []
        with takes_at_most(SOON, "OpenVPN to hear of it"):
            shop.started.wait_for_output("AUTH_FAILED")
        assert disconnects(hub) == {"kicked": 2, "auth_expired": 1}
        assert shop.started.wait(10) is not None, "OpenVPN ends itself for AUTH_FAILED"
        again = OpenVpn(sites.b, "client", profile, identity, remote=sites.a.wan_ipv4, make_tap=False).start()
        hub.started.wait_for_output("certificate_revoked", 20)
        assert hub.connected_peers() == []
        again.stop(signal.SIGKILL)
        assert hub.stop() == 0, hub.started.tail()
        # Without a daemon it is the files that are changed.
        embedded.issue("depot", "client")
        hub.command("revoke", "depot", "--config", str(hub.file))
        assert [row.name for row in embedded.certificates() if row.revoked] == ["shop", "depot"]


def disconnects(daemon: Bridged) -> dict[str, int]:
    (peer,) = daemon.tunnel()["peers"]
    return dict(peer["disconnects"])
