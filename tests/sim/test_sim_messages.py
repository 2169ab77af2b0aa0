"""What the ends tell one another behind the keys, and what comes of it."""

from __future__ import annotations

import pytest

from bridged.errors import LocalProtocolError
from bridged.protocol.role import Role
from bridged.protocol.session.conversation_client import HALT_RETRY_SECONDS
from bridged.protocol.session.conversation_server import DISMISSED_SECONDS
from bridged.protocol.session.events import InstallKey, SendPayload
from bridged.protocol.session.key_state import KeyPhase
from bridged.protocol.session.states import SessionState
from tests.sim.conversing import make, say, waiting_for_admission
from tests.sim.noisy_wire import Noise, Simulation, renegotiations, settings


def test_a_client_that_gets_no_options_gives_up_after_the_hand_window() -> None:
    sim = waiting_for_admission()
    sim.run_until(100)
    assert sim.client.down.reason == "push_failed"
    assert 60 <= sim.client.down.duration <= 62
    assert sim.server.down.reason == "push_failed"
    assert sim.client.ended and sim.server.ended


def test_auth_pending_makes_a_client_wait_longer() -> None:
    sim = waiting_for_admission()
    say(sim, sim.server, "AUTH_PENDING,timeout 30")
    sim.run_until(100)
    assert 30 <= sim.client.down.duration <= 40


def test_auth_pending_is_bounded_by_what_the_settings_allow() -> None:
    sim = Simulation(
        settings(Role.CLIENT, "tls-crypt", reneg_seconds=200.0),
        settings(Role.SERVER, "tls-crypt", hand_window=500.0),
        admit=None,
    )
    sim.run_until(3)
    say(sim, sim.server, "AUTH_PENDING,timeout 99999")
    sim.run_until(300)
    assert 100 <= sim.client.down.duration <= 110


def test_push_request_is_repeated_every_five_seconds() -> None:
    sim = waiting_for_admission()
    before = sim.datagrams
    sim.run_until(50)
    # Each request is one packet and one acknowledgement; nothing else goes on.
    assert sim.datagrams - before == 2 * 10


def test_a_late_admission_is_still_one() -> None:
    sim = waiting_for_admission()
    sim.run_until(20)
    sim.server.session.admit(3, sim.now)
    sim._drain()
    sim.run_until(3)
    assert sim.client.established and sim.server.established
    assert sim.client.session.terms.transmit_peer_id == 3


def test_an_admission_that_comes_too_late_changes_nothing() -> None:
    sim = waiting_for_admission()
    sim.run_until(200)
    assert sim.server.ended
    sim.server.session.admit(3, sim.now)
    sim.server.session.refuse("auth_failed", "late", sim.now)
    sim._drain()
    assert sim.server.session.state is SessionState.CLOSED


def test_nobody_can_be_admitted_before_the_keys() -> None:
    sim = make()
    with pytest.raises(LocalProtocolError):
        sim.client.session.admit(1, sim.now)
    with pytest.raises(LocalProtocolError):
        sim.client.session.refuse("auth_failed", "no", sim.now)


def test_a_temporary_refusal_names_the_wait_and_the_next_address() -> None:
    sim = waiting_for_admission()
    say(sim, sim.server, "AUTH_FAILED,TEMP[backoff 42,advance remote]:busy")
    down = sim.client.down
    assert (down.reason, down.retry_after, down.advance) == ("auth_failed", 42, "remote")
    assert "busy" in down.detail


def test_a_refusal_of_an_established_client_is_an_expired_authentication() -> None:
    sim = make()
    sim.run_until(5)
    say(sim, sim.server, "AUTH_FAILED,SESSION: token expired")
    assert sim.client.down.reason == "auth_expired" and sim.client.down.was_established


@pytest.mark.parametrize(
    ("text", "reason", "retry_after", "advance"),
    [
        ("HALT,[P]maintenance", "kicked", HALT_RETRY_SECONDS, None),
        ("RESTART,[N]moved", "exit_notify", 0, "remote"),
        ("RESTART", "exit_notify", 0, None),
        ("EXIT", "exit_notify", 0, None),
    ],
)
def test_a_farewell_of_the_server_ends_the_client(
    text: str, reason: str, retry_after: float, advance: str | None
) -> None:
    sim = make()
    sim.run_until(5)
    say(sim, sim.server, text)
    down = sim.client.down
    assert (down.reason, down.retry_after, down.advance) == (reason, retry_after, advance)
    sim.run_until(10)
    assert sim.client.ended


@pytest.mark.parametrize("dead_seconds", [0.0, 1.0])
def test_a_replaced_peer_that_is_still_there_is_heard_out_and_told_to_wait(dead_seconds: float) -> None:
    sim = make()
    sim.run_until(5)
    sim.noise = Noise(loss=1.0 if dead_seconds else 0.0)
    sim.server.session.dismiss("it connected again", "another machine", sim.now)
    assert sim.server.session.state is SessionState.DRAINING, "no frame goes to it any more"
    sim._drain()
    sim.run_until(dead_seconds)
    sim.noise = Noise()
    sim.run_until(20)
    assert sim.server.ended and sim.server.session.dismissal_was_acknowledged
    assert sim.server.down.reason == "replaced"
    down = sim.client.down
    assert (down.reason, down.retry_after) == ("auth_expired", DISMISSED_SECONDS)
    assert "another machine" in down.detail


def test_a_replaced_peer_that_is_gone_is_not_taken_for_another_machine_and_soon_forgotten() -> None:
    sim = make()
    sim.run_until(5)
    sim.noise = Noise(loss=1.0)
    sim.server.session.dismiss("it connected again", "another machine", sim.now)
    sim._drain()
    sim.run_until(6)
    assert sim.server.ended and not sim.server.session.dismissal_was_acknowledged
    assert sim.client.down is None


def test_a_replaced_peer_whose_rival_has_gone_meanwhile_may_come_back_at_once() -> None:
    sim = make()
    sim.run_until(5)
    sim.noise = Noise(loss=1.0)
    sim.server.session.dismiss("it connected again", "another machine", sim.now)
    sim._drain()
    sim.server.session.soften_dismissal()
    sim.run_until(1)
    sim.noise = Noise()
    sim.run_until(20)
    assert sim.server.ended and sim.client.down.retry_after == 0
    assert sim.client.down.reason == "exit_notify"


def test_a_session_that_is_not_established_is_dismissed_without_a_word() -> None:
    sim = waiting_for_admission()
    sim.server.session.dismiss("it connected again", "another machine", sim.now)
    sim._drain()
    sim.run_until(1)
    assert sim.server.ended and not sim.server.session.dismissal_was_acknowledged


def test_a_farewell_before_the_options_is_a_reset_by_the_peer() -> None:
    sim = waiting_for_admission()
    say(sim, sim.server, "RESTART,not now")
    assert sim.client.down.reason == "reset_by_peer" and not sim.client.down.was_established


@pytest.mark.parametrize(
    "text", ["INFO,hello", "CR_RESPONSE,xyz", "UNHEARD_OF,1", "PUSH_REPLY,ping 1", "EXI"]
)
def test_messages_without_meaning_are_ignored(text: str) -> None:
    sim = make()
    sim.run_until(5)
    terms = sim.client.session.terms
    say(sim, sim.server, text)
    say(sim, sim.client, text)
    assert sim.client.down is None and sim.server.down is None
    assert sim.client.session.terms is terms


def test_a_repeated_request_within_half_a_minute_gets_no_second_answer() -> None:
    sim = make()
    sim.run_until(5)
    for pause, answers in ((0, 0), (0, 0), (30, 1), (0, 0)):
        sim.run_until(pause)
        before = sim.server.session.keys.primary.send.next_message_id
        say(sim, sim.client, "PUSH_REQUEST")
        assert sim.server.session.keys.primary.send.next_message_id - before == answers


def test_an_overlong_push_reply_fails_the_push_and_not_tls() -> None:
    sim = waiting_for_admission()
    for _ in range(100):
        sim.server.session.keys.say("PUSH_REPLY," + "route 192.0.2.1," * 50 + "push-continuation 2", sim.now)
        sim.run_until(2)
        if sim.client.down:
            break
    assert sim.client.down.reason == "push_failed"


@pytest.mark.parametrize(("text", "words"), [("", "The server shut down or is restarting."), (",tea", "tea")])
def test_a_plain_stop_reads_as_a_stop(text: str, words: str) -> None:
    sim = make()
    sim.run_until(5)
    say(sim, sim.server, f"RESTART{text}")
    assert sim.client.down.reason == "exit_notify" and words in sim.client.down.detail
    assert "no reason" not in sim.client.down.detail


def test_a_token_pushed_after_a_renegotiation_changes_nothing() -> None:
    sim = make(reneg_seconds=20.0)
    sim.run_until(30)
    assert "established" in renegotiations(sim.client)
    say(sim, sim.server, "PUSH_REPLY,auth-token SESS_ID_abc")
    assert sim.client.down is None


def test_a_farewell_during_a_renegotiation_goes_through_the_older_tls_session() -> None:
    sim = make()
    sim.run_until(5)
    sim.server.session.request_renegotiation("manual", sim.now)
    sim.server.session.close("shutdown", "stopping", sim.now)
    sim._drain()
    sim.run_until(10)
    assert sim.client.down.reason == "exit_notify"
    assert sim.server.down.reason == "shutdown" and sim.server.ended


def test_without_exit_on_the_control_channel_the_client_leaves_on_the_data_channel() -> None:
    sim = make(use_exporter=False)
    sim.run_until(5)
    sim.client.session.close("shutdown", "stopping", sim.now)
    sim._drain()
    assert len(sim.client.of(SendPayload)) == 1
    sim.server.session.handle_occ_exit(sim.now)
    sim._drain()
    sim.run_until(10)
    assert sim.server.down.reason == "exit_notify" and sim.server.ended and sim.client.ended


def test_a_lost_farewell_ends_the_leaving_side_in_time() -> None:
    sim = make()
    sim.run_until(5)
    sim.noise = Noise(loss=1.0)
    sim.client.session.close("shutdown", "stopping", sim.now)
    sim._drain()
    assert not sim.client.ended
    sim.run_until(1.1)
    assert sim.client.ended


def test_a_second_close_is_harmless_and_hastens_a_drain() -> None:
    sim = make()
    sim.run_until(5)
    sim.noise = Noise(loss=1.0)
    sim.client.session.handle_occ_exit(sim.now)
    sim.client.session.close("shutdown", "again", sim.now)
    sim._drain()
    sim.run_until(1.1)
    assert sim.client.ended and sim.client.down.reason == "exit_notify"
    sim.client.session.close("shutdown", "and again", sim.now)
    assert sim.client.session.poll_event() is None


def test_a_refused_server_session_keeps_its_ids_for_a_while() -> None:
    """What the client repeats must not open a second session with the same cookie."""
    sim = make(admit=False)
    sim.run_until(3)
    assert sim.server.down is not None and not sim.server.ended
    sim.run_until(6)
    assert sim.server.ended


@pytest.mark.parametrize("steps", range(12))
@pytest.mark.parametrize("who", ["client", "server"])
def test_a_session_that_goes_down_amid_a_renegotiation_brings_no_new_key(who: str, steps: int) -> None:
    """What still comes in is acknowledged; nothing but the end may come of it (`End.take` watches)."""
    sim = make()
    sim.run_until(5)
    sim.client.session.request_renegotiation("manual", sim.now)
    sim._drain()
    for _ in range(steps):
        sim.now = max(sim.now, sim._next_time())
        sim._step()
    end = sim.client if who == "client" else sim.server
    end.session.handle_occ_exit(sim.now)
    sim._drain()
    keys = len(end.of(InstallKey))
    sim.run_until(20)
    assert end.ended and len(end.of(InstallKey)) == keys


@pytest.mark.parametrize("steps", range(14))
@pytest.mark.parametrize("starter", ["client", "server"])
def test_a_farewell_at_any_moment_of_a_renegotiation_is_understood(starter: str, steps: int) -> None:
    sim = make()
    sim.run_until(5)
    one, other = (sim.client, sim.server) if starter == "client" else (sim.server, sim.client)
    one.session.request_renegotiation("manual", sim.now)
    sim._drain()
    for _ in range(steps):
        sim.now = max(sim.now, sim._next_time())
        sim._step()
    other.session.close("shutdown", "stopping", sim.now)
    sim._drain()
    sim.run_until(10)
    assert one.down.reason == "exit_notify", one.down
    assert one.ended and other.ended


def test_no_farewell_takes_the_place_of_a_key_message() -> None:
    """A server whose TLS is through, but not the client's key message, says it in the older TLS session."""
    met = 0
    for seed in range(60):
        common = {"tls_mtu": 300}
        client, server = settings(Role.CLIENT, "none", **common), settings(Role.SERVER, "none", **common)
        sim = Simulation(client, server, seed=seed)
        sim.run_until(5)
        sim.client.session.request_renegotiation("manual", sim.now)
        sim._drain()
        sim.noise = Noise(loss=0.3)

        def is_between(sim: Simulation) -> bool:
            key = sim.server.session.keys.primary
            return key.phase is KeyPhase.EXCHANGE and not key.is_exchanged

        sim.run_until(50, stop=is_between)
        if not is_between(sim):
            continue
        met += 1
        sim.noise = Noise()
        sim.server.session.close("shutdown", "stopping", sim.now)
        sim._drain()
        sim.run_until(10)
        assert sim.client.down.reason == "exit_notify", f"seed {seed}: {sim.client.down}"
    assert met >= 5
