"""OpenVPN's status files and exporter names: the real tools read what we write."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from bridged.addresses import Endpoint
from bridged.configuration.schema import Metrics
from bridged.telemetry.openvpn_metrics import OpenvpnPage
from bridged.telemetry.openvpn_status import (
    ClientFigures,
    StatusClient,
    StatusStation,
    client_status,
    server_status,
)
from bridged.units import UnixSeconds
from tests.lab.openvpn_tools import read_by_openvpn_monitor, read_by_openvpn_status
from tests.lab.snapshots import absent_peer, daemon, peer, tunnel

NOW = UnixSeconds(1_790_000_000.0)
CIPHER = "AES-256-GCM"
CLIENTS = [
    StatusClient(
        "warehouse", Endpoint("192.0.2.7", 40000), 3, 1200, 340, UnixSeconds(NOW - 60), "AES-256-GCM"
    ),
    StatusClient("a,b\tc\nEND", Endpoint("2001:db8::7", 40001), 4, 5, 6, UnixSeconds(NOW - 5), "AES-128-GCM"),
]
STATIONS = [
    StatusStation("02:00:5e:10:00:01", 0, 3, UnixSeconds(NOW - 2)),
    StatusStation("02:00:5e:10:00:02", 20, 4, UnixSeconds(NOW - 3)),
    StatusStation("02:00:5e:10:00:03", 0, 99, NOW),
]


def test_version_1_is_read_by_openvpn_status() -> None:
    read = read_by_openvpn_status(server_status(1, NOW, CLIENTS[:1], STATIONS))
    (client,) = read.client_list.values()
    assert (client.common_name, str(client.real_address)) == ("warehouse", "192.0.2.7:40000")
    assert (int(client.bytes_received), int(client.bytes_sent)) == (1200, 340)
    assert time.mktime(client.connected_since.timetuple()) == NOW - 60
    (route,) = read.routing_table.values()
    assert str(route.virtual_address) == "2:0:5e:10:0:1"
    assert route.common_name == "warehouse"


def test_version_3_is_read_by_openvpn_monitor() -> None:
    (session,) = read_by_openvpn_monitor(server_status(3, NOW, CLIENTS[:1], STATIONS)).values()
    assert (str(session["remote_ip"]), session["port"], session["username"]) == (
        "192.0.2.7",
        40000,
        "warehouse",
    )
    assert (session["bytes_recv"], session["bytes_sent"]) == (1200, 340)
    assert session["connected_since"].timestamp() == NOW - 60
    assert session["last_seen"].timestamp() == NOW - 2


@pytest.mark.parametrize(("version", "separator"), [(2, ","), (3, "\t")])
def test_rows_have_the_fields_of_their_header_and_names_begin_no_other(version: int, separator: str) -> None:
    lines = server_status(version, NOW, CLIENTS, STATIONS).splitlines()
    assert lines[0].startswith(f"TITLE{separator}OpenVPN 2.6") and lines[-1] == "END"
    for kind, rows in (("CLIENT_LIST", 2), ("ROUTING_TABLE", 2)):
        (header,) = [line for line in lines if line.startswith(f"HEADER{separator}{kind}{separator}")]
        found = [line.split(separator) for line in lines if line.startswith(f"{kind}{separator}")]
        assert len(found) == rows
        assert {len(row) for row in found} == {len(header.split(separator)) - 1}
    assert sum(line == "END" for line in lines) == 1


def test_a_station_of_a_vlan_has_its_number_behind_the_address() -> None:
    assert "02:00:5e:10:00:02@20," in server_status(2, NOW, CLIENTS, STATIONS)


def test_a_client_writes_its_totals() -> None:
    lines = client_status(2, NOW, ClientFigures(1, 2, 3, 4)).splitlines()
    assert lines[0] == "OpenVPN STATISTICS"
    assert "TUN/TAP read bytes,1" in lines and "TCP/UDP write bytes,4" in lines and lines[-1] == "END"


def test_the_exporter_s_names_show_connected_clients_and_a_client_s_totals() -> None:
    ours = replace(tunnel("office", peer("hub")), role="client")
    page = OpenvpnPage(Metrics())
    text = page.text(daemon(tunnel("sites", peer("warehouse"), absent_peer("workshop")), ours)).decode()
    found = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    server, client = ("status_path", "sites"), ("status_path", "office")
    assert found["openvpn_up", server] == found["openvpn_up", client] == 1
    assert found["openvpn_server_connected_clients", server] == 1
    name = ("common_name", "warehouse")
    assert found["openvpn_server_client_received_bytes_total", name, server] == 11_000
    assert found["openvpn_server_client_sent_bytes_total", name, server] == 300
    assert found["openvpn_client_tcp_udp_read_bytes_total", client] == 11_000
    assert "workshop" not in text and "192.0.2.7" not in text


def test_peers_beyond_the_limit_are_summed_there_too() -> None:
    page = OpenvpnPage(Metrics(max_peers=1))
    text = page.text(daemon(tunnel("sites", peer("a"), peer("b"), peer("c")))).decode()
    assert 'common_name="_other"' in text and 'common_name="b"' not in text
