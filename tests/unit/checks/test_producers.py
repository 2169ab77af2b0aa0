"""Values of the catalogue without code, and error codes without a place in it, are found."""

from __future__ import annotations

from scripts.checks import producers
from scripts.checks.error_calls import error_calls
from scripts.checks.sources import Sources

ERRORS = """
class BridgedError(Exception):
    def __init__(self, code, message): ...
class ConfigurationError(BridgedError):
    def __init__(self, reason, *, file=None, code="configuration"): ...
class DataplaneError(BridgedError):
    pass
class Full(DataplaneError):
    def __init__(self): super().__init__("full", "no room")
"""


def test_a_drop_reason_that_nobody_counts_is_found_for_each_build() -> None:
    findings = set(producers.check(Sources.of({"bridged/dataplane/a.py": 'drop("tap_full")\n'})))
    path = "bridged/catalogue/counters.py"
    assert f"{path}: native code never drops for `tap_full`" in findings
    assert f"{path}: portable code never drops for `tap_full`" not in findings
    assert f"{path}: portable code never drops for `tap_down`" in findings
    assert f"{path}: native code never counts `mss_fitted`" in findings
    assert "bridged/catalogue/figures.py: native code never shows `udp_steering`" in findings
    assert "bridged/catalogue/figures.py: portable code never shows `frames_per_tap_write`" in findings
    assert f"{path}: nothing produces the handshake outcome `crl_expired`" in findings
    assert "bridged/catalogue/error_codes.py: nothing raises `bind_failed`" in findings


def test_docstrings_and_comparisons_produce_nothing() -> None:
    text = '"""tap_full"""\nif reason == "tap_down":\n    drop("tap_full")\n'
    findings = set(producers.check(Sources.of({"bridged/dataplane/a.py": text})))
    assert "bridged/catalogue/counters.py: portable code never drops for `tap_down`" in findings


def test_a_drop_without_a_row_is_found() -> None:
    text = 'drops.count("receive", "tap_down", 3)\ndrops.count("receive", "fun")\n'
    text += 'drops["transmit", "joy"] += 1\nfigures.get("receive", 0)\n'
    findings = set(producers.check(Sources.of({"bridged/dataplane/a.py": text})))
    assert {finding for finding in findings if "has no drop reason" in finding} == {
        "bridged/dataplane/a.py:2: counters.py has no drop reason `fun`",
        "bridged/dataplane/a.py:3: counters.py has no drop reason `joy`",
    }


def test_an_unknown_error_code_is_found() -> None:
    text = (
        ERRORS + 'raise DataplaneError("bind_filed", "…")\nraise ConfigurationError("why", code="cipher")\n'
    )
    findings = set(producers.check(Sources.of({"bridged/errors.py": text})))
    assert "bridged/errors.py:10: error_codes.py lacks `bind_filed` of this DataplaneError" in findings
    assert not any("`cipher` of" in finding for finding in findings)


def test_codes_are_read_by_position_name_and_from_a_base() -> None:
    text = (
        ERRORS
        + 'DataplaneError("one", "…")\nConfigurationError("two")\nConfigurationError("x", code="three")\n'
    )
    calls = error_calls(Sources.of({"bridged/errors.py": text}).python)
    assert [(call.error, call.code) for call in calls] == [
        ("DataplaneError", "full"),
        ("DataplaneError", "one"),
        ("ConfigurationError", "three"),
    ]
