"""`bridged stations`: a station stays where an operator has put it."""

from __future__ import annotations

import struct

import pytest

from bridged.addresses import MacAddress
from bridged.errors import DataplaneError
from bridged.runtime.tunnels.tunnel import RunningTunnel
from tests.lab import Lab, TwoSites, bridged_pair, wait_for
from tests.lab.frames import send_frames
from tests.lab.waiting import until
from tests.system.daemon_lab import stop_all
from tests.system.loopback_lab import Lab as Loopback
from tests.system.loopback_lab import crosses, endpoint, run

ADDRESS = MacAddress.parse("02:00:00:00:00:99")


def places(tunnel: RunningTunnel) -> dict[str, str | None]:
    entries = tunnel.fdb()
    return {str(MacAddress(entry.station.mac)): peer for entry, peer in entries if entry.is_static}


def test_a_station_waits_for_its_peer_and_comes_back_with_it() -> None:
    async def scenario(lab: Loopback) -> None:
        server, lan = await lab.server()
        assert not server.static_stations.add(ADDRESS, "client").is_installed
        assert places(server) == {}
        client, far = await lab.client(endpoint(server))
        await crosses(far, lan)
        await until(lambda: places(server) == {str(ADDRESS): "client"})
        assert server.standing.kick("client") == 1
        assert places(server) == {} and not next(iter(server.static_stations)).is_installed
        await until(lambda: client.state == "connected" and places(server) == {str(ADDRESS): "client"})

    run(scenario)


def test_a_station_moves_between_peers_and_lan_and_is_removed() -> None:
    async def scenario(lab: Loopback) -> None:
        server, lan = await lab.server()
        _, far = await lab.client(endpoint(server))
        await crosses(far, lan)
        stations = server.static_stations
        for peer in ("client", None):
            assert stations.add(ADDRESS, peer).is_installed
            assert places(server) == {str(ADDRESS): peer}
        assert not stations.add(ADDRESS, "elsewhere").is_installed
        assert places(server) == {}
        assert stations.remove(ADDRESS) and list(stations) == []
        assert not stations.remove(ADDRESS)

    run(scenario)


def test_what_is_no_station_is_refused_and_their_number_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridged.runtime.tunnels.static_stations.STATIC_STATIONS_MAX", 2)

    async def scenario(lab: Loopback) -> None:
        server, _ = await lab.server()
        stations = server.static_stations
        for wrong in ("01:00:00:00:00:01", "00:00:00:00:00:00"):
            for peer in (None, "client"):
                with pytest.raises(DataplaneError) as refused:
                    stations.add(MacAddress.parse(wrong), peer)
                assert refused.value.code == "bad_station"
        stations.add(ADDRESS, None)
        stations.add(MacAddress.parse("02:00:00:00:00:01"), "client")
        with pytest.raises(DataplaneError) as refused:
            stations.add(MacAddress.parse("02:00:00:00:00:02"), None)
        assert refused.value.code == "fdb_full"
        assert not stations.add(ADDRESS, "client").is_installed

    run(scenario)


@pytest.mark.root
def test_an_operator_puts_a_station_into_the_lan_and_no_peer_can_claim_it() -> None:
    with Lab("static") as lab:
        sites = TwoSites(lab)
        server, client = bridged_pair(sites.a, sites.b)

        def stations(*arguments: str, check: bool = True) -> str:
            verb, *rest = arguments
            return server.command("stations", verb, "lab", *rest, "--config", str(server.file), check=check)

        gateway = "02:00:00:00:00:97"
        assert stations("add", gateway, "--lan") == f"{gateway} is in the LAN\n"
        assert stations("add", str(ADDRESS), "--peer", "client") == f"{ADDRESS} is behind client\n"
        assert stations("add", "02:00:00:00:00:98", "--peer", "shop").endswith("when that peer connects\n")
        listed = stations("list")
        assert f"{gateway}  LAN     static\n" in listed
        assert f"{ADDRESS}  client  static\n" in listed
        assert "02:00:00:00:00:98  shop    static, not connected\n" in listed
        source = bytes.fromhex(gateway.replace(":", ""))
        before = server.metric("bridged_drops_total", reason="loop_guard")
        send_frames(sites.b.host, [b"\xff" * 6 + source + b"\x88\xb6" + struct.pack("!H", 7) * 30])
        wait_for(lambda: server.metric("bridged_drops_total", reason="loop_guard") > before, "the drop")
        assert server.stations()[gateway] is None
        assert stations("remove", str(ADDRESS)) == f"removed {ADDRESS}\n"
        assert stations("remove", str(ADDRESS), check=False) == ""
        stop_all(client, server)
