"""The embedded CA is tended while the daemon runs, and what ends is said 30 days ahead."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from structlog.testing import capture_logs

from bridged.configuration import load
from bridged.pki import EmbeddedCa, PkiError
from bridged.runtime.site.site import Site
from bridged.runtime.site.trust_keeper import TrustKeeper
from bridged.runtime.tunnels.tunnel_credentials import plan_tunnel
from bridged.supervision import SUPERVISOR
from tests.lab.waiting import in_time

NOW = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)


class Running:
    """Stands for a tunnel: a plan, and who was judged again."""

    def __init__(self, plan: Any) -> None:
        self.plan = plan
        self.judged = 0

    def renew_credentials(self, plan: Any) -> int:
        self.plan = plan
        self.judged += 1
        return 2


class Rig:
    def __init__(self, folder: Path) -> None:
        path = folder / "bridged.yaml"
        tunnel = {"role": "server", "bridge": "br0", "tls": {"embedded": True}}
        path.write_text(yaml.safe_dump({"bridges": {"br0": {}}, "tunnels": {"main": tunnel}}))
        path.chmod(0o600)
        self.state = folder / "state"
        self.configuration = load(path).model_copy(update={"state_directory": self.state})
        self.authority = EmbeddedCa.create(self.state)
        no_watch: Any = None
        self.site = Site(no_watch, folder)
        self.site._target = self.configuration
        self.tunnel = Running(plan_tunnel(self.configuration, "main", folder))
        known: Any = SimpleNamespace(running=self.tunnel)
        self.site._tunnels["main"] = known
        self.now = NOW
        self.keeper = TrustKeeper(self.site, asyncio.Lock(), lambda: self.state, lambda: self.now)

    def tend(self, after: timedelta = timedelta(0)) -> list[Any]:
        """One hourly round at that time; what it logged."""
        self.now = NOW + after
        with capture_logs() as logs:
            asyncio.run(self.keeper.tend())
        return [{key: row[key] for key in ("event", "role", "tunnel") if key in row} for row in logs]

    def own_end(self) -> float:
        return float(self.tunnel.plan.certificates["own"])


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def test_the_server_s_certificate_is_renewed_by_the_running_daemon(rig: Rig) -> None:
    before = rig.own_end()
    assert rig.tend() == [] and rig.tend(timedelta(days=700)) == []
    assert rig.own_end() == before
    assert rig.tend(timedelta(days=790)) == [{"event": "embedded_ca_changed"}]
    assert rig.own_end() > before + 700 * 86_400
    assert rig.tend(timedelta(days=790, hours=1)) == []


def test_a_revocation_counts_in_the_running_tunnels_at_once(rig: Rig) -> None:
    rig.authority.issue("shop", "client")
    rig.tend()
    judged, factory = rig.tunnel.judged, rig.tunnel.plan.make_engine
    with capture_logs() as logs:
        done = asyncio.run(rig.keeper.revoke("shop"))
    assert (done.revoked, done.ended) == (1, 2)
    assert rig.tunnel.judged == judged + 1 and rig.tunnel.plan.make_engine is not factory
    assert rig.tunnel.plan.crl_next_update is not None
    assert [row["event"] for row in logs] == ["certificate_revoked"]
    with pytest.raises(PkiError, match="no valid certificate"):
        asyncio.run(rig.keeper.revoke("shop"))
    assert rig.tend() == [], "its own work is no news"


def test_what_another_process_revoked_is_found_by_the_next_round(rig: Rig) -> None:
    rig.authority.issue("shop", "client")
    rig.tend()
    rig.authority.revoke("shop")
    assert rig.tend() == [{"event": "embedded_ca_changed"}]
    assert rig.tunnel.plan.crl_next_update is not None


@pytest.mark.parametrize("role", ["own", "ca", "crl"])
def test_what_ends_is_said_thirty_days_ahead_and_once_a_day(rig: Rig, role: str) -> None:
    def ends(role: str) -> float:
        return (NOW + timedelta(days=400 if role != ending else 100)).timestamp()

    ending = role
    rig.tunnel.plan = replace(
        rig.tunnel.plan,
        is_embedded=False,
        certificates={"own": ends("own"), "ca": ends("ca")},
        crl_next_update=ends("crl"),
    )
    event = "revocation_list_ends" if role == "crl" else "certificate_ends"
    said = [{"event": event, "role": role, "tunnel": "main"}]
    assert rig.tend(timedelta(days=69)) == []
    assert rig.tend(timedelta(days=70, hours=1)) == said
    assert rig.tend(timedelta(days=70, hours=2)) == []
    assert rig.tend(timedelta(days=71, hours=1)) == said
    assert rig.tend(timedelta(days=101)) == said, "also when it has ended"


def test_a_round_that_fails_is_said_and_the_next_one_comes(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = 0

    async def tend() -> None:
        nonlocal rounds
        rounds += 1
        if rounds == 1:
            raise OSError(28, "No space left on device", "/x/y")

    monkeypatch.setattr(rig.keeper, "tend", tend)
    monkeypatch.setattr("bridged.runtime.site.trust_keeper.PERIOD_SECONDS", 0.001)
    monkeypatch.setattr("bridged.supervision.FIRST_PAUSE_SECONDS", 0.001)

    async def scenario() -> None:
        rig.keeper.start()
        while rounds < 1:
            await asyncio.sleep(0)
        assert [item.duty for item in SUPERVISOR.undone()] == ["certificates"]
        assert "/x/y" in SUPERVISOR.undone()[0].reason
        async with in_time(10):
            while rounds < 3:
                await asyncio.sleep(0.001)
        await rig.keeper.stop()
        assert SUPERVISOR.undone() == ()

    asyncio.run(scenario())
