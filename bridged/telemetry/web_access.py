"""Who may read /metrics: TLS, bearer token and users. Follows the web configuration file as it changes.

All methods run in the loop of the metrics server, except `load`.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import secrets
import ssl
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import structlog

from bridged.configuration.secrets import exposure
from bridged.endings import take_every_step
from bridged.errors import BridgedError
from bridged.files import FileMark, mark_at
from bridged.supervision import SUPERVISOR, yielding_pool
from bridged.telemetry import passwords
from bridged.telemetry.web_config import WebConfig, load_web_config

DUTY: Final = "web_config"
LOOK_SECONDS: Final = 1.0
"""How often the files are looked at, at most."""
KNOWN_MAX: Final = 128
"""Correct passwords that are remembered, as keyed digests: each scrape would cost 50 ms."""
FAILED_MAX: Final = 1024
REST_SHARE: Final = 4
"""After a wrong password of an address that failed before, the next one of such addresses waits this many
times as long as the comparison took."""


class WebAccess:
    """Decides about connections and requests. `token`: a bearer token that is enough. `file`: see `load`."""

    def __init__(self, token: str | None = None, file: Path | None = None) -> None:
        self._token = None if token is None else f"Bearer {token}".encode()
        self._file = file
        self._config = WebConfig(())
        self._marks: tuple[FileMark | None, ...] = ()
        self._looked_at = float("-inf")
        self._secret = secrets.token_bytes(32)
        self._known: OrderedDict[bytes, None] = OrderedDict()
        self._failed: OrderedDict[str, None] = OrderedDict()
        self._lanes: dict[str, ThreadPoolExecutor] = {}
        self._rests_until = 0.0
        self._is_closing = threading.Event()
        self._log = structlog.get_logger("bridged.metrics")

    def load(self) -> WebConfig:
        """Read the web configuration file for the first time, if there is one.

        Raises:
            WebConfigError: it cannot be used.
        """
        if self._file is not None:
            self._config = load_web_config(self._file)
            self._marks = self._config.marks
            self._warn_of_readable()
        return self._config

    def close(self) -> None:
        self._is_closing.set()
        self._is_closing = threading.Event()
        lanes = list(self._lanes.values())
        self._lanes.clear()
        take_every_step(partial(lane.shutdown, wait=False, cancel_futures=True) for lane in lanes)

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers of every answer."""
        return self._config.headers

    def tls(self) -> ssl.SSLContext | None:
        """The context of a new connection; None: plain HTTP. Looks for changes of the files."""
        self._follow()
        return self._config.tls

    def refuses_certificate(self, found: Mapping[str, Any] | None) -> bool:
        """Whether the client's verified certificate (`getpeercert`) has none of the names that may read."""
        names = self._config.client_names
        if not names:
            return False
        return names.isdisjoint(str(value) for _, value in (found or {}).get("subjectAltName", ()))

    def challenge(self) -> str:
        """The header WWW-Authenticate of a refusal."""
        return "Basic" if self._config.users else "Bearer"

    async def allows(self, authorization: str, neighbourhood: str) -> bool:
        """Whether a request with this header `Authorization` may be answered."""
        if self._token is None and not self._config.users:
            return True
        given = authorization.encode("latin-1", "replace")
        if self._token is not None and hmac.compare_digest(given, self._token):
            return True
        user, password = _basic(authorization)
        if not self._config.users or user is None:
            return False
        return await self._knows(user, password, neighbourhood)

    async def _knows(self, user: str, password: bytes, neighbourhood: str) -> bool:
        # An unknown user takes as long as a known one.
        stored = self._config.users.get(user) or next(iter(self._config.users.values()))
        mark = hmac.digest(self._secret, b"\0".join((user.encode(), stored.encode(), password)), sha256)
        is_user = user in self._config.users
        # A user who got another name keeps the hash: the former name counts no more.
        if is_user and mark in self._known:
            self._known.move_to_end(mark)
            return True
        is_suspect = neighbourhood in self._failed
        # It has failed until it is right: also if the client breaks off, or comes many times at once.
        _remember(self._failed, neighbourhood, FAILED_MAX)
        compare = partial(self._compare_slowly if is_suspect else passwords.matches, password, stored)
        run = asyncio.get_running_loop().run_in_executor
        is_right = await run(self._lane("slow" if is_suspect else "fast"), compare)
        if is_right and is_user and user in self._config.users:
            _remember(self._known, mark, KNOWN_MAX)
            self._failed.pop(neighbourhood, None)
            return True
        return False

    def _lane(self, name: str) -> ThreadPoolExecutor:
        if name not in self._lanes:
            self._lanes[name] = yielding_pool(1, f"metrics-{name}")
        return self._lanes[name]

    def _compare_slowly(self, password: bytes, stored: str) -> bool:
        """In the one thread of those who failed before: it rests after a wrong password, whoever waits."""
        if self._is_closing.wait(max(0.0, self._rests_until - time.monotonic())):
            return False
        began = time.monotonic()
        is_right = passwords.matches(password, stored)
        if not is_right:
            now = time.monotonic()
            self._rests_until = now + REST_SHARE * (now - began)
        return is_right

    def _follow(self) -> None:
        """Read the files again if they changed, or could not be used. What cannot be used changes nothing."""
        now = time.monotonic()
        if self._file is None or now - self._looked_at < LOOK_SECONDS:
            return
        self._looked_at = now
        if tuple(map(mark_at, self._config.files)) == self._marks:
            return
        try:
            config = load_web_config(self._file)
            _refuse_change(self._file, self._config, config)
        except BridgedError as error:
            # What is missing may come without a change of what was read before.
            self._marks = ()
            SUPERVISOR.note_failure(DUTY, "", error)
            return
        self._config = config
        self._marks = config.marks
        SUPERVISOR.note_done(DUTY)
        self._log.info("web_config_read", file=str(self._file), users=len(config.users))
        self._warn_of_readable()

    def _warn_of_readable(self) -> None:
        for file in self._config.files[2:3] if self._config.tls is not None else ():
            detail = exposure(file)
            if detail is not None:
                self._log.warning("private_file_readable", where=str(file), detail=detail)


def _refuse_change(file: Path, before: WebConfig, after: WebConfig) -> None:
    """A running listener keeps its protocol, and never opens to strangers.

    Raises:
        BridgedError: the change needs a new daemon.
    """
    if (before.tls is None) != (after.tls is None):
        text = f"metrics.web_config_file {file}: tls_server_config came or went; restart the daemon"
        raise BridgedError("bad_web_config", text)
    if before.keeps_strangers_out and not after.keeps_strangers_out:
        text = f"metrics.web_config_file {file}: no users or client certificates any more; restart the daemon"
        raise BridgedError("bad_web_config", text)


def _basic(authorization: str) -> tuple[str | None, bytes]:
    """User and password of basic authentication (RFC 7617); user None: it is none."""
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return None, b""
    try:
        user, colon, password = base64.b64decode(encoded.strip(), validate=True).partition(b":")
    except (binascii.Error, ValueError):
        return None, b""
    return (user.decode("utf-8", "replace"), password) if colon else (None, b"")


def _remember(names: OrderedDict[Any, None], name: Any, most: int) -> None:
    names[name] = None
    names.move_to_end(name)
    if len(names) > most:
        names.popitem(last=False)
