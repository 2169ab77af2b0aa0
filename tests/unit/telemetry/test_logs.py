"""What the daemon writes to standard error."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from bridged.configuration.schema import Log
from bridged.telemetry.logs import (
    EVENTS_BURST,
    EVENTS_WINDOW,
    KEYS_REMEMBERED,
    REDACTED,
    RepeatLimiter,
    choose_format,
    configure_logs,
    redact,
)


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    structlog.reset_defaults()
    root.handlers, root.level = handlers, level


def written(log: Log, *events: tuple[str, str, dict[str, Any]]) -> list[str]:
    stream = io.StringIO()
    configure_logs(log, stream)
    logger = structlog.get_logger()
    for level, event, fields in events:
        getattr(logger, level)(event, **fields)
    return stream.getvalue().splitlines()


def test_json_is_one_object_a_line_with_time_and_level() -> None:
    (line,) = written(Log(format="json"), ("info", "peer_connected", {"peer": "a", "count": 2}))
    entry = json.loads(line)
    assert list(entry) == ["timestamp", "level", "event", "peer", "count"]
    assert entry["timestamp"].endswith("Z")
    del entry["timestamp"]
    assert entry == {"event": "peer_connected", "level": "info", "peer": "a", "count": 2}


def test_journald_has_priority_and_quoted_fields_on_one_line() -> None:
    lines = written(
        Log(format="journald"),
        ("warning", "handshake_failed", {"reason": "tls_failed", "text": 'a "b"\n<0>forged'}),
        ("error", "stopped", {}),
    )
    assert lines == ["<4>handshake_failed reason=tls_failed text='a \"b\"\\n<0>forged'", "<3>stopped"]


def test_console_is_readable_and_has_no_colours_in_a_file() -> None:
    (line,) = written(Log(format="console"), ("info", "listening", {"endpoint": "[::]:1194"}))
    assert "listening" in line
    assert "endpoint=[::]:1194" in line
    assert "\x1b" not in line


def test_events_below_the_level_are_left_out() -> None:
    lines = written(Log(level="warning", format="json"), ("info", "a", {}), ("warning", "b", {}))
    assert [json.loads(line)["event"] for line in lines] == ["b"]


@pytest.mark.parametrize(
    ("terminal", "environment", "kind"),
    [
        (True, {"JOURNAL_STREAM": "1:2"}, "console"),
        (False, {"JOURNAL_STREAM": "1:2"}, "journald"),
        (False, {}, "json"),
    ],
)
def test_auto_follows_where_the_lines_go(terminal: bool, environment: dict[str, str], kind: str) -> None:
    stream = io.StringIO()
    stream.isatty = lambda: terminal  # type: ignore[method-assign]
    assert choose_format(stream, environment) == kind


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("key", "x"),
        ("private_key", "x"),
        ("auth_token", "x"),
        ("password", "x"),
        ("data", b"octets"),
        ("text", "-----BEGIN EC PRIVATE KEY-----"),
        ("text", "-----BEGIN OpenVPN Static key V1-----"),
    ],
)
def test_what_looks_like_a_secret_is_not_written(name: str, value: object) -> None:
    assert redact(None, "info", {"event": "e", name: value}) == {"event": "e", name: REDACTED}


@pytest.mark.parametrize("name", ["key_id", "key_group", "key_derivation", "peer", "tokens_left"])
def test_names_that_only_resemble_a_secret_s_are_written(name: str) -> None:
    assert redact(None, "info", {name: "x"}) == {name: "x"}


def test_a_repeated_event_is_limited_and_counted() -> None:
    now = [100.0]
    limit = RepeatLimiter(lambda: now[0])
    passed = 0
    for _ in range(EVENTS_BURST + 30):
        try:
            limit(None, "info", {"event": "bad_packet", "tunnel": "a"})
            passed += 1
        except structlog.DropEvent:
            pass
    assert passed == EVENTS_BURST
    assert limit(None, "info", {"event": "bad_packet", "tunnel": "b"}) == {
        "event": "bad_packet",
        "tunnel": "b",
    }
    now[0] += EVENTS_WINDOW
    assert limit(None, "info", {"event": "bad_packet", "tunnel": "a"})["suppressed"] == 30
    assert "suppressed" not in limit(None, "info", {"event": "bad_packet", "tunnel": "a"})


def test_the_limiter_forgets_old_sources() -> None:
    limit = RepeatLimiter(lambda: 0.0)
    for number in range(3 * KEYS_REMEMBERED):
        limit(None, "info", {"event": "e", "peer": str(number)})
    assert len(limit._seen) == KEYS_REMEMBERED


def test_messages_of_libraries_become_events() -> None:
    stream = io.StringIO()
    configure_logs(Log(format="json"), stream)
    logging.getLogger("some.library").warning("value is %s", 5)
    logging.getLogger("some.library").info("chatter")
    (line,) = stream.getvalue().splitlines()
    entry = json.loads(line)
    assert (entry["event"], entry["library"], entry["text"]) == (
        "library_message",
        "some.library",
        "value is 5",
    )


@pytest.mark.parametrize("kind", ["console", "json", "journald"])
def test_nothing_from_outside_reaches_a_log_with_control_characters(kind: str) -> None:
    evil = "a\x1b]0;owned\x07\x9b31m\u202e\r\n<0>forged\x00"
    stream = io.StringIO()
    configure_logs(Log(format=kind), stream)
    log = structlog.get_logger()
    fields = {"peer": evil, "options": [evil, (evil,)], "more": {evil: evil}, "error": OSError(evil)}
    log.warning("handshake_failed", **fields)
    log.warning(evil)
    logging.getLogger("library").warning("said %s", evil)
    text = stream.getvalue()
    assert len(text.splitlines()) == 3
    assert {char for char in text if not char.isprintable()} == {"\n"}
    assert "owned" in text
    if kind == "json":
        for line in text.splitlines():
            values = json.loads(line)
            assert all(str(value).isprintable() for value in values.values())


def test_numbers_and_flags_stay_what_they_are() -> None:
    (line,) = written(Log(format="json"), ("info", "x", {"a": 1, "b": 1.5, "c": True, "d": None, "e": ["y"]}))
    entry = json.loads(line)
    assert [entry[name] for name in "abcde"] == [1, 1.5, True, None, ["y"]]


def test_a_traceback_keeps_its_lines_on_a_console() -> None:
    stream = io.StringIO()
    configure_logs(Log(format="console"), stream)
    try:
        raise ValueError("\x1b[2J")
    except ValueError:
        structlog.get_logger().exception("failed")
    text = stream.getvalue()
    assert "Traceback" in text and len(text.splitlines()) > 2
    assert "\x1b" not in text and "\\x1b[2J" in text
