"""Structured logs on standard error: constant event names with fields, no secrets, no floods.

    log = structlog.get_logger()
    log.info("peer_connected", tunnel="main", peer="laptop")

Formats: `console` for people; `json` with one object a line; `journald` with syslog priority and key=value
fields. Each (event, tunnel, peer, reason) is written EVENTS_BURST times in EVENTS_WINDOW seconds, then
counted; the next one written says how many were `suppressed`.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, Final, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from bridged.configuration.schema import Log
from bridged.protocol.text import visible

EVENTS_BURST: Final = 20
EVENTS_WINDOW: Final = 10.0
KEYS_REMEMBERED: Final = 1024
REDACTED: Final = "(not shown)"

_SECRET_NAME = re.compile(
    r"(^|_)(key|keys|password|passwd|passphrase|secret|token|psk|pem|cookie|master|plaintext)$"
)
_SECRET_TEXT = re.compile(r"-----BEGIN [A-Za-z0-9 ]*(PRIVATE KEY|Static key)", re.IGNORECASE)
_PRIORITIES: Final = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
_SOURCE_FIELDS: Final = ("event", "tunnel", "peer", "reason", "code")


def configure_logs(log: Log, stream: TextIO | None = None) -> None:
    """Set up structlog, and the `logging` of libraries, for this process. May be called again."""
    out = stream if stream is not None else sys.stderr
    level = logging.getLevelNamesMapping()[log.level.upper()]
    kind = log.format if log.format != "auto" else choose_format(out, os.environ)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            RepeatLimiter(time.monotonic),
            redact,
            structlog.processors.format_exc_info,
            *_renderers(kind, out),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(out),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers = [_LibraryHandler()]
    root.setLevel(max(level, logging.WARNING))


def choose_format(stream: TextIO, environment: Mapping[str, str]) -> str:
    """The meaning of `auto`: console on a terminal, journald if systemd reads the stream, else json."""
    if stream.isatty():
        return "console"
    return "journald" if "JOURNAL_STREAM" in environment else "json"


def redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Hide values that look like a secret by name or content, and all bytes: the last line of defence."""
    for name, value in event.items():
        if (
            _SECRET_NAME.search(name)
            or isinstance(value, (bytes, bytearray, memoryview))
            or (isinstance(value, str) and _SECRET_TEXT.search(value))
        ):
            event[name] = REDACTED
    return event


def make_visible(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Write control characters of all values as escapes: names, reasons and options come from strangers."""
    for name, value in event.items():
        event[name] = _visible(value, lines=name == "exception")
    return event


def _visible(value: Any, *, lines: bool = False) -> Any:
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_visible(item) for item in value]
    if isinstance(value, Mapping):
        return {_visible(key): _visible(item) for key, item in value.items()}
    return visible(str(value), lines=lines)


class RepeatLimiter:
    """Drops events that one source repeats too often. `clock` gives monotonic seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._seen: OrderedDict[tuple[str, ...], list[float]] = OrderedDict()

    def __call__(self, _logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        key = tuple(str(event.get(name, "")) for name in _SOURCE_FIELDS)
        now = self._clock()
        # [begin of the window, events written in it, events suppressed since the last one written]
        entry = self._seen.setdefault(key, [now, 0, 0])
        self._seen.move_to_end(key)
        if len(self._seen) > KEYS_REMEMBERED:
            self._seen.popitem(last=False)
        if now - entry[0] >= EVENTS_WINDOW:
            entry[0], entry[1] = now, 0
        if entry[1] >= EVENTS_BURST:
            entry[2] += 1
            raise structlog.DropEvent
        entry[1] += 1
        if entry[2]:
            event["suppressed"] = int(entry[2])
            entry[2] = 0
        return event


def _renderers(kind: str, stream: TextIO) -> list[Processor]:
    if kind == "journald":  # The journal adds the time; the renderer quotes unprintable characters.
        return [_render_journald]
    stamp = structlog.processors.TimeStamper(fmt="iso", utc=True)
    if kind == "console":
        return [make_visible, stamp, structlog.dev.ConsoleRenderer(colors=stream.isatty())]
    return [make_visible, stamp, _head_first, structlog.processors.JSONRenderer(default=str)]


def _head_first(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Put time, level and name before the fields, for people who read JSON."""
    head = {name: event.pop(name) for name in ("timestamp", "level", "event") if name in event}
    return {**head, **event}


def _render_journald(_logger: WrappedLogger, method: str, event: MutableMapping[str, Any]) -> str:
    level = str(event.pop("level", method))
    name = event.pop("event", "")
    exception = event.pop("exception", None)
    fields = [f"{key}={_quoted(value)}" for key, value in event.items()]
    line = f"<{_PRIORITIES.get(level, 6)}>" + " ".join([visible(str(name)), *fields])
    return line if exception is None else f"{line} exception={_quoted(exception)}"


def _quoted(value: Any) -> str:
    """The text if it is printable without spaces, else as a Python string literal."""
    text = str(value)
    return text if text and text.isprintable() and not set(' "=') & set(text) else repr(text)


class _LibraryHandler(logging.Handler):
    """Turns `logging` records of libraries into our events."""

    def emit(self, record: logging.LogRecord) -> None:
        log = structlog.get_logger()
        write = getattr(log, record.levelname.lower(), log.warning)
        try:
            write("library_message", library=record.name, text=record.getMessage(), exc_info=record.exc_info)
        except Exception:
            self.handleError(record)
