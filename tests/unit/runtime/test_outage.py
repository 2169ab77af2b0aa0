"""Why a client is not connected, in words."""

from __future__ import annotations

from bridged.addresses import Endpoint
from bridged.protocol.session.timers import NEVER
from bridged.runtime.client.outage import Outage

HUB, SPARE = Endpoint("192.0.2.1", 1194), Endpoint("192.0.2.2", 1194)


def test_five_seconds_without_an_answer_are_said_with_the_servers_and_what_the_network_says_of_them() -> None:
    outage = Outage(100.0)
    outage.note_called(HUB, 100.0)
    outage.note_called(SPARE, 100.0)
    assert outage.report(104.9) is None
    assert outage.words(104.9) is None
    outage.note_refused(SPARE, "nobody listens there")
    servers = "192.0.2.1:1194, 192.0.2.2:1194 (nobody listens there)"
    assert outage.report(105.0) == {"seconds": 5, "servers": servers}
    assert outage.words(107.0) == f"no answer for 7 s from {servers}"


def test_what_the_network_says_is_shown_at_once_and_new_once() -> None:
    outage = Outage(0.0)
    outage.note_called(HUB, 0.0)
    assert outage.note_refused(HUB, "nobody listens there")
    assert outage.words(0.1) == "no answer from 192.0.2.1:1194 (nobody listens there)"
    assert not outage.note_refused(HUB, "nobody listens there")
    assert outage.note_refused(HUB, "host unreachable, says 198.51.100.1")
    assert not outage.note_refused(HUB, "nobody listens there"), "two in turn would fill the log"


def test_silence_is_logged_ever_more_seldom() -> None:
    outage = Outage(0.0)
    outage.note_called(HUB, 0.0)
    said = [second for second in range(8000) if outage.report(float(second)) is not None]
    assert said == [5, 65, 665, 4265, 7865]


def test_the_reason_of_a_refusal_is_kept_when_silence_follows() -> None:
    outage = Outage(0.0)
    outage.note_called(HUB, 0.0)
    outage.note_answer(1.0)
    outage.note_reason("auth_failed: the server refuses us: no room (temp)")
    outage.note_called(HUB, 0.0)
    outage.note_timeout("timeout: no answer")
    outage.note_nameless("cannot look up hub.example: no answer in time")
    words = outage.words(21.0)
    assert words == (
        "auth_failed: the server refuses us: no room (temp); no answer for 20 s from 192.0.2.1:1194"
    )
    report = outage.report(21.0)
    assert report is not None and "no room" in str(report["last_reason"])


def test_a_newer_refusal_replaces_an_older_one() -> None:
    outage = Outage(0.0)
    outage.note_timeout("timeout: first")
    outage.note_reason("tls_failed: second")
    outage.note_reason("auth_failed: third")
    assert outage.words(1.0) == "auth_failed: third"


def test_an_answer_ends_the_silence() -> None:
    outage = Outage(0.0)
    outage.note_called(HUB, 0.0)
    assert outage.report(5.0) is not None
    outage.note_answer(6.0)
    assert outage.words(7.0) is None
    outage.note_called(HUB, 0.0)
    assert outage.report(10.9) is None
    assert outage.report(11.0) is not None


def test_silence_is_counted_from_the_first_call_not_from_a_start_that_took_long() -> None:
    outage = Outage(0.0)
    assert outage.next_report == NEVER, "nobody waits for a report that cannot come"
    outage.note_called(HUB, 15.0)
    assert outage.next_report == 20.0
    assert outage.report(19.9) is None
    outage.note_called(HUB, 18.0)
    assert outage.report(20.0) == {"seconds": 5, "servers": "192.0.2.1:1194"}
    outage.begin(100.0)
    outage.note_called(HUB, 130.0)
    assert outage.words(134.9) is None
    outage.note_answer(131.0)
    outage.note_called(HUB, 132.0)
    report = outage.report(140.0)
    assert report is not None and report["seconds"] == 9, "a server that answers and falls silent is reported"


def test_a_server_is_named_in_the_log_once_for_each_outage() -> None:
    outage = Outage(0.0)
    assert [outage.note_called(endpoint, 0.0) for endpoint in (HUB, SPARE, HUB)] == [True, True, False]


def test_many_servers_make_no_long_line() -> None:
    outage = Outage(0.0)
    for number in range(1, 41):
        outage.note_called(Endpoint(f"192.0.2.{number}", 1194), 0.0)
    words = outage.words(9.0)
    assert words is not None and words.endswith("and 34 more")
