"""What the admin API answers: a real server on a real Unix socket, asked by the real client."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bridged.admin.client import AdminClient, AdminError
from bridged.admin.documents import health_document, status_document
from bridged.admin.models import FdbAnswer, HealthAnswer, StatusAnswer
from bridged.catalogue.counters import FAMILIES
from bridged.catalogue.error_codes import ERROR_CODES
from bridged.runtime.snapshot import BridgeStatus, DaemonSnapshot, DutiesStatus, ReloadStatus
from bridged.supervision import Undone
from bridged.units import UnixSeconds
from tests.lab.snapshots import NOW, absent_peer, daemon, peer, status_answer, tunnel
from tests.unit.admin.admin_rig import State, asked, request, served


def test_status_is_the_snapshot_with_nested_keys(path: Path) -> None:
    answer = served(path, State(), lambda client: client.status_json())
    (site,) = answer["tunnels"]
    warehouse, workshop = site["peers"]
    assert warehouse["counters"]["frames"] == {"receive": {"unicast": 10}, "transmit": {"broadcast": 3}}
    assert warehouse["key_group"] == "X25519MLKEM768"
    assert workshop["last_seen"] is None
    assert site["handshakes"] == {"initial": {"established": 1, "timeout": 2}}
    assert site["dataplane"]["queues"] == {"tap_write": [1, 1024]}
    assert site["dataplane"]["offload_fallbacks"] == {"udp_gro": {"einval": 1}}
    assert answer["bridges"][0]["ports"] == {"eth1": True, "eth2": False}
    assert answer["confirm_deadline"] is None


def test_the_client_s_model_is_the_daemon_s(path: Path) -> None:
    state = State(replace(daemon(), confirm_deadline=NOW + 60))
    assert served(path, state, lambda client: client.status()) == status_answer(state.current)


def test_the_daemon_s_documents_are_what_the_client_s_classes_describe() -> None:
    document = status_document(replace(daemon(), confirm_deadline=NOW + 60))
    assert StatusAnswer.model_validate(document).model_dump(mode="json") == document
    health = health_document(daemon())
    assert HealthAnswer.model_validate(health).model_dump(mode="json") == health


def test_every_field_of_the_snapshot_has_a_place_in_the_answer() -> None:
    """A new field of the snapshot must be published on purpose, or left out here by name."""

    def names(value: Any) -> set[str]:
        if hasattr(value, "__dataclass_fields__"):
            return set(value.__dataclass_fields__)
        return set(type(value).model_fields)

    snapshot = daemon()
    answer = status_answer(snapshot)
    assert names(snapshot) == names(answer)
    assert names(snapshot.tunnels[0]) == names(answer.tunnels[0])
    assert names(snapshot.tunnels[0].peers[0]) == names(answer.tunnels[0].peers[0])
    assert names(snapshot.bridges[0]) == names(answer.bridges[0])
    plane, told = snapshot.tunnels[0].dataplane, answer.tunnels[0].dataplane
    assert names(plane) - names(told) == {"peers", "counts"}
    assert {family.name for family in FAMILIES} <= names(told)


def test_requests_are_answered_in_the_daemon_s_event_loop(path: Path) -> None:
    state = State()
    served(path, state, lambda client: client.status())
    assert state.threads == {threading.get_ident()}


def test_reload_tells_its_outcome(path: Path) -> None:
    state = State()
    state.reloaded = ReloadStatus({"rejected": 1}, "rejected", "site.yaml:3: no such key")
    answer = served(path, state, lambda client: client.reload())
    assert (answer.outcome, answer.detail) == ("rejected", "site.yaml:3: no such key")


def test_confirm_tells_whether_something_waited(path: Path) -> None:
    answers = served(path, State(), lambda client: [client.confirm(), client.confirm()])
    assert [answer.confirmed for answer in answers] == [True, False]


def test_the_fdb_names_the_peer_behind_each_station(path: Path) -> None:
    answer = FdbAnswer.model_validate(served(path, State(), lambda client: client.fdb_json("sites")))
    assert answer.total == 2
    assert [(row.address, row.peer, row.static) for row in answer.stations] == [
        ("02:00:00:00:00:01", "warehouse", False),
        ("02:00:00:00:00:02", None, True),
    ]
    assert [(row.address, row.peer) for row in answer.waiting] == [("02:00:00:00:00:03", "shop")]


def test_a_station_is_added_behind_a_peer_or_in_the_lan_and_removed(path: Path) -> None:
    def ask(client: AdminClient) -> list[object]:
        added = [client.add_station("sites", "02:00:00:00:00:05", peer) for peer in ("shop", None)]
        removed = [client.remove_station("sites", f"02:00:00:00:00:0{last}").removed for last in "25"]
        return [*((one.address, one.peer, one.installed) for one in added), *removed]

    assert served(path, State(), ask) == [
        ("02:00:00:00:00:05", "shop", False),
        ("02:00:00:00:00:05", None, True),
        True,
        False,
    ]


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("", 422),
        ("?tunnel=sites", 422),
        ("?tunnel=sites&address=02:00:00:00:00", 422),
        ("?tunnel=sites&address=02:00:00:00:00:05&peer=", 422),
        (f"?tunnel=sites&address=02:00:00:00:00:05&peer={'x' * 65}", 422),
        ("?tunnel=nowhere&address=02:00:00:00:00:05", 404),
        ("?tunnel=sites&address=02:00:00:00:00:05&peer=full", 409),
    ],
)
def test_a_station_that_cannot_be_added_is_refused(path: Path, query: str, status: int) -> None:
    ((answered, _, document),) = asked(path, request(f"/v1/stations/add{query}", "POST"), count=1)
    assert answered == status and document["detail"]


def test_an_unknown_tunnel_is_told(path: Path) -> None:
    with pytest.raises(AdminError, match="no tunnel 'nowhere'"):
        served(path, State(), lambda client: client.fdb_json("nowhere"))


@pytest.mark.parametrize("up", [True, False])
def test_health_follows_the_tunnels(path: Path, up: bool) -> None:
    def ask(client: AdminClient) -> tuple[int, bool, dict[str, str]]:
        status = client._http.get("/v1/health").status_code
        answer = HealthAnswer.model_validate_json(client._http.get("/v1/health").content)
        return status, answer.ok, answer.tunnels

    state = State(daemon(tunnel("a"), tunnel("b", up=up, state="listening" if up else "stopped")))
    expected = {"a": "listening", "b": "listening" if up else "stopped"}
    assert served(path, state, ask) == (200 if up else 503, up, expected)


@pytest.mark.parametrize("amiss", ["duty", "bridge"])
def test_health_is_bad_while_a_duty_is_not_done_or_a_bridge_is_not_as_configured(
    path: Path, amiss: str
) -> None:
    def ask(client: AdminClient) -> tuple[int, dict[str, str], dict[str, str]]:
        answer = HealthAnswer.model_validate_json(client._http.get("/v1/health").content)
        return client._http.get("/v1/health").status_code, answer.bridges, answer.undone

    well = daemon(tunnel("a"))
    assert served(path, State(well), ask) == (200, {}, {})
    if amiss == "duty":
        undone = Undone("tap", "tap0", UnixSeconds(1.0), "too many open files")
        state = replace(well, duties=DutiesStatus({"tap": 1}, (undone,)))
        expected: tuple[dict[str, str], dict[str, str]] = ({}, {"tap tap0": "too many open files"})
    else:
        bridge = BridgeStatus("br0", None, None, False, {}, problem="eth1 cannot join")
        state = replace(well, bridges=(bridge,))
        expected = ({"br0": "eth1 cannot join"}, {})
    assert served(path, State(state), ask) == (503, *expected)


def test_the_openapi_description_has_every_route_with_its_answer(path: Path) -> None:
    schema = served(path, State(), lambda client: client._http.get("/v1/openapi.json").json())
    assert set(schema["paths"]) == {
        *(f"/v1/{route}" for route in ("status", "confirm", "reload", "kick", "revoke", "fdb", "health")),
        "/v1/stations/add",
        "/v1/stations/remove",
    }
    schemas = schema["components"]["schemas"]
    assert {"StatusAnswer", "PeerAnswer", "FdbAnswer"} <= set(schemas)
    assert set(schemas["ErrorCode"]["enum"]) == {code.name for code in ERROR_CODES}
    assert all(
        "default" in answer["responses"] for path in schema["paths"].values() for answer in path.values()
    )


def test_a_failing_daemon_is_a_500_and_the_server_lives_on(path: Path) -> None:
    class Broken(State):
        def snapshot(self) -> DaemonSnapshot:
            raise RuntimeError("broken")

    def ask(client: AdminClient) -> bool:
        with pytest.raises(AdminError, match="internal error"):
            client.status()
        return client.confirm().confirmed

    assert served(path, Broken(), ask) is True


@pytest.mark.parametrize("query", ["", "?tunnel=", f"?tunnel={'x' * 64}"])
def test_the_fdb_needs_a_tunnel_s_name(path: Path, query: str) -> None:
    ((status, _, document),) = asked(path, request(f"/v1/fdb{query}"), count=1)
    assert (status, document) == (422, {"detail": "needs ?tunnel=NAME"})


def test_a_newer_daemon_s_answer_is_understood(path: Path) -> None:
    answer = status_answer(daemon(tunnel("sites", peer("a"), absent_peer("b"))))
    newer = json.loads(answer.model_dump_json())
    newer["invented_later"] = 1
    newer["tunnels"][0]["peers"][0]["invented_later"] = {"x": 1}
    assert type(answer).model_validate(newer) == answer


def test_kick_says_how_many_sessions_ended_and_knows_its_tunnels(path: Path) -> None:
    state = State()
    assert served(path, state, lambda client: client.kick("shop").ended) == 2
    assert served(path, state, lambda client: client.kick("depot", "sites").ended) == 0
    with pytest.raises(AdminError, match="no tunnel 'x'"):
        served(path, state, lambda client: client.kick("shop", "x"))


def test_revoke_carries_the_daemon_s_own_error_code(path: Path) -> None:
    state = State()
    answer = served(path, state, lambda client: client.revoke("shop", Path("/s"), "7f"))
    assert (answer.revoked, answer.ended) == (1, 2) and state.revoked == ("shop", "7f", "/s")
    with pytest.raises(AdminError, match="no valid certificate for 'depot'") as caught:
        served(path, state, lambda client: client.revoke("depot", Path("/s")))
    assert caught.value.code == "pki_unknown"
    for name in ("", "x" * 65):
        with pytest.raises(AdminError):
            served(path, state, lambda client, name=name: client.revoke(name, Path("/s")))  # type: ignore[misc]


def test_what_the_api_answers_is_plain_ascii(path: Path) -> None:
    evil = "a\x1b\x7f\x9b31m\u202eö"
    state = State(daemon(tunnel("sites", peer(evil), last_error=evil)))
    raw = served(path, state, lambda client: client._http.get("/v1/status").content)
    assert all(32 <= octet < 127 for octet in raw)
    assert json.loads(raw)["tunnels"][0]["last_error"] == evil
