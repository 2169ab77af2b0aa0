"""One-time codes by time: the values of RFC 6238, and what is no secret."""

from __future__ import annotations

import pytest

from bridged.errors import ConfigurationError
from bridged.protocol.keys.one_time_code import parse_one_time_secret

RFC = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"
"""12345678901234567890 in Base32."""


@pytest.mark.parametrize(
    ("now", "code"), [(59, "94287082"), (1111111109, "07081804"), (20000000000, "65353130")]
)
def test_codes_are_those_of_the_standard(now: int, code: str) -> None:
    secret = parse_one_time_secret(f"otpauth://totp/x?secret={RFC}&digits=8", "key")
    assert secret.code(now) == code


def test_the_steps_before_and_after_count_and_no_others() -> None:
    secret = parse_one_time_secret(f" {RFC[:16].lower()} {RFC[16:]}\n", "key")
    code = secret.code(3000)
    assert [secret.step_of(code, now) for now in (2969, 2970, 3000, 3059, 3060)] == [
        None,
        100,
        100,
        100,
        None,
    ]
    assert secret.step_of("äöü", 3000) is None


@pytest.mark.parametrize(
    "text",
    ["", "SECRET", "GEZDGNBVGY3TQOJ1", "otpauth://hotp/x?secret=" + RFC, "otpauth://totp/x", "otpauth://["],
)
def test_what_is_no_secret_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_one_time_secret(text, "tunnels.a.login.totp_secret")
    assert not text or text not in str(caught.value)
