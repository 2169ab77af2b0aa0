"""User name, password and token between two session machines on a virtual clock."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from bridged.protocol.role import Role
from bridged.protocol.session.events import (
    Authenticated,
    ChallengeAnswered,
    InstallKey,
    LoginOffered,
    Renegotiated,
)
from bridged.protocol.session.login import Credentials, DynamicChallenge
from tests.sim.noisy_wire import End, Noise, Simulation, renegotiations, settings


@dataclass
class Login:
    """A client's login that notes what happens to it."""

    username: str = "alice"
    password: str = "secret"
    token: Credentials | None = None
    codes: list[str] = field(default_factory=list)
    challenges: list[DynamicChallenge] = field(default_factory=list)
    refusals: int = 0

    @property
    def answers_challenges(self) -> bool:
        return bool(self.codes)

    def credentials(self) -> Credentials:
        return self.token or Credentials(self.username, self.password)

    def code(self) -> str:
        return self.codes.pop(0)

    def note_token(self, token: str, username: str | None) -> None:
        self.token = Credentials(username or self.username, token, is_token=True)

    def forget_token(self) -> bool:
        had, self.token = self.token is not None, None
        return had

    def note_challenge(self, challenge: DynamicChallenge) -> bool:
        self.challenges.append(challenge)
        return self.answers_challenges

    def succeed(self, other: object) -> bool:
        return other is self

    def note_accepted(self) -> None:
        self.refusals = 0

    def note_refused(self) -> float:
        self.refusals += 1
        return 60.0


def make(login: Login, *, seed: int = 1, noise: Noise | None = None) -> Simulation:
    return Simulation(
        settings(Role.CLIENT, "tls-crypt", login=login),
        settings(Role.SERVER, "tls-crypt", checks_login=True),
        **({"noise": noise, "seed": seed} if noise is not None else {}),
        admit=None,
    )


def offered(end: End) -> Authenticated:
    (event,) = end.of(Authenticated)
    return event


def let_in(sim: Simulation, token: str | None = None) -> None:
    sim.server.session.admit(7, sim.now, token=token)
    sim._drain()


def test_a_token_takes_the_passwords_place_and_each_renegotiation_brings_another() -> None:
    login = Login()
    sim = make(login)
    sim.run_until(3)
    assert (offered(sim.server).username, offered(sim.server).password) == ("alice", "secret")
    let_in(sim, "SESS_ID_AT_1")
    sim.run_until(6)
    assert sim.client.established and sim.server.established
    assert not sim.server.session.terms.has_unasked_password
    for number in (1, 2):
        assert sim.client.session.request_renegotiation("time", sim.now)
        sim._drain()
        sim.run_until(3)
        offers = sim.server.of(LoginOffered)
        assert [offer.password for offer in offers[-1:]] == [f"SESS_ID_AT_{number}"]
        assert renegotiations(sim.client) == ["established"] * (number - 1), "not before the server agrees"
        sim.server.session.accept_login(sim.now, f"SESS_ID_AT_{number + 1}")
        sim._drain()
        sim.run_until(3)
        assert renegotiations(sim.client) == renegotiations(sim.server) == ["established"] * number
    assert login.token is not None and login.token.password == "SESS_ID_AT_3"
    assert "secret" not in repr(sim.server.events) and "SESS_ID" not in repr(sim.client.events)


def test_frames_under_a_renegotiated_key_are_accepted_before_the_answer_to_the_login_leaves() -> None:
    """The client may seal with the key as soon as it has the answer."""
    sim = make(Login())
    sim.run_until(3)
    let_in(sim)
    sim.run_until(6)
    sim.client.session.request_renegotiation("time", sim.now)
    sim._drain()
    sim.run_until(9)
    seen = len(sim.server.events)
    sim.server.session.accept_login(sim.now)
    sim._drain()
    happened = [type(event) for event in sim.server.events[seen:]]
    assert InstallKey in happened and Renegotiated not in happened
    sim.run_until(12)
    assert [event.key.key_id for event in sim.server.of(InstallKey)] == [0, 1], "once each"
    assert renegotiations(sim.server) == ["established"]


def test_a_refused_renegotiation_ends_the_session_and_the_token_is_forgotten() -> None:
    login = Login()
    sim = make(login)
    sim.run_until(3)
    let_in(sim, "SESS_ID_AT_1")
    sim.run_until(6)
    sim.server.session.request_renegotiation("time", sim.now)
    sim._drain()
    sim.run_until(9)
    sim.server.session.reject_login("the token has expired", sim.now, is_expired=True)
    sim._drain()
    sim.run_until(20)
    assert sim.server.down.reason == sim.client.down.reason == "auth_expired"
    assert login.token is None and login.refusals == 0
    assert not sim.client.down.is_final and sim.client.down.retry_after == 0.0


def test_a_wrong_password_is_final_and_a_temporary_refusal_is_none() -> None:
    for text, is_final, seconds in (
        ("AUTH_FAILED,wrong", True, 60.0),
        ("AUTH_FAILED", True, 60.0),
        ("AUTH_FAILED,TEMP[backoff 7,advance remote]:busy", False, 7.0),
    ):
        sim = make(Login())
        sim.run_until(3)
        sim.server.session.keys.say(text, sim.now)
        sim.server.session.handle_timeout(sim.now)
        sim._drain()
        sim.run_until(6)
        down = sim.client.down
        assert (down.reason, down.is_final, down.retry_after) == ("auth_failed", is_final, seconds), text
        assert (down.advance == "remote") is (not is_final)


@pytest.mark.parametrize("can_answer", [True, False])
def test_a_dynamic_challenge_is_answered_next_or_named_with_its_cure(can_answer: bool) -> None:
    login = Login(codes=["123456"] if can_answer else [])
    sim = make(login)
    sim.run_until(3)
    sim.server.session.refuse("auth_failed", "CRV1:R,E:state:YWxpY2U=:Your code?", sim.now)
    sim._drain()
    sim.run_until(6)
    (challenge,) = login.challenges
    assert challenge.answer("123456") == Credentials("alice", "CRV1::state::123456")
    assert sim.client.down.is_final is (not can_answer)
    assert ("login.totp_secret" in sim.client.down.detail) is (not can_answer)


def test_a_question_for_a_code_is_answered_on_the_same_session() -> None:
    sim = make(Login(codes=["123456"]))
    sim.run_until(3)
    assert offered(sim.server).answers_challenges
    sim.server.session.challenge("Your code?", 60, sim.now)
    sim._drain()
    sim.run_until(6)
    assert [event.text for event in sim.server.of(ChallengeAnswered)] == ["123456"]
    let_in(sim)
    sim.run_until(12)
    assert sim.client.established and sim.server.established


def test_a_client_waits_as_long_as_a_slow_decision_takes() -> None:
    slow = {"reneg_seconds": 1000.0}
    sim = Simulation(
        settings(Role.CLIENT, "tls-crypt", login=Login(), **slow),
        settings(Role.SERVER, "tls-crypt", checks_login=True, **slow),
        admit=None,
    )
    sim.run_until(3)
    sim.server.session.challenge(None, 200, sim.now)
    sim._drain()
    sim.run_until(150)
    assert not sim.server.of(ChallengeAnswered)
    let_in(sim)
    sim.run_until(10)
    assert sim.client.established and sim.server.established


@pytest.mark.parametrize("seed", range(8))
def test_logins_and_renegotiations_survive_a_noisy_wire(seed: int) -> None:
    login = Login()
    sim = make(login, seed=seed, noise=Noise(loss=0.1, repeat=0.1, corrupt=0.03))
    sim.run_until(120, stop=lambda s: bool(s.server.session and s.server.of(Authenticated)))
    let_in(sim, "SESS_ID_AT_1")
    sim.run_until(300, stop=lambda s: s.client.established and s.server.established)
    sim.client.session.request_renegotiation("time", sim.now)
    sim._drain()
    sim.run_until(200, stop=lambda s: bool(s.server.of(LoginOffered)))
    sim.server.session.accept_login(sim.now, "SESS_ID_AT_2")
    sim._drain()
    sim.run_until(200, stop=lambda s: len(renegotiations(s.server)) == 1)
    sim.run_until(60)
    assert renegotiations(sim.client) == ["established"]
    assert login.token is not None and login.token.password == "SESS_ID_AT_2"
