"""Whatever a peer or a file says about logins, it is read or refused, and never more than that."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from bridged.errors import ConfigurationError
from bridged.protocol.keys.one_time_code import parse_one_time_secret
from bridged.protocol.session.login import DynamicChallenge, decode_base64, encode_base64
from bridged.runtime.server.auth_token import PREFIX, TokenMint, TokenRules
from bridged.runtime.server.login_attempts import LoginAttempts
from bridged.runtime.server.password_file import is_user_name, parse_users

MINT = TokenMint(b"k" * 32)
RULES = TokenRules(1000.0, 100.0)
TIMES = st.floats(min_value=0, max_value=2**40, allow_nan=False)


@given(st.text(), st.text())
def test_only_tokens_of_ours_are_good(username: str, text: str) -> None:
    assert MINT.judge(username, text, RULES, 1000.0) == "wrong"
    assert MINT.judge(username, PREFIX + text, RULES, 1000.0) == "wrong"


@given(st.text(), st.binary(min_size=12, max_size=12), TIMES, TIMES)
def test_a_token_counts_in_its_time_and_for_its_user(
    username: str, token_id: bytes, made: float, later: float
) -> None:
    token = MINT.make(username, token_id, made)
    verdict = MINT.judge(username, token, RULES, made + later)
    assert verdict == ("good" if int(made + later) - int(made) <= 99 else verdict)
    assert verdict != "wrong" and (later <= 102 or verdict == "expired")
    assert MINT.judge(username + "x", token, RULES, made) == "wrong"


@given(st.text())
def test_any_challenge_is_read_or_is_none(text: str) -> None:
    for reason in (text, f"CRV1:{text}", f"CRV1:R,E:x:{encode_base64('alice')}:{text}"):
        DynamicChallenge.parse(reason)
    assert decode_base64(encode_base64(text)) == text


@given(st.one_of(st.text(), st.text(alphabet="ABCDEFGHIJKLMNOPQRSTUVWXYZ234567= ")))
def test_any_text_is_a_secret_or_no_secret(text: str) -> None:
    for one in (text, f"otpauth://totp/x?secret={text}", f"otpauth://{text}"):
        with suppress(ConfigurationError):
            secret = parse_one_time_secret(one, "key")
            assert secret.step_of(secret.code(5000.0), 5000.0) is not None


@given(st.binary(max_size=300))
def test_any_password_file_is_read_or_refused_without_its_text(content: bytes) -> None:
    with suppress(ConfigurationError):
        assert all(map(is_user_name, parse_users(content, Path("users"))))


@given(st.lists(st.tuples(st.sampled_from(["192.0.2.1", "192.0.2.2", "2001:db8::1"]), TIMES), max_size=60))
def test_nobody_fails_more_often_than_the_limits_say(attempts: list[tuple[str, float]]) -> None:
    limits, failed = LoginAttempts(), list[tuple[str, float]]()
    for host, now in sorted(attempts, key=lambda one: one[1]):
        if limits.wait(host, f"name-{len(failed)}", now) == 0.0:
            limits.note_failure(host, f"name-{len(failed)}", now)
            failed.append((host, now))
    for host, end in failed:
        recent = [one for other, one in failed if other == host and end - 60 < one <= end]
        assert len(recent) <= 5 + 5
