"""The exception tree.

Every error has a stable `code` (bridged/catalogue/error_codes.py): the metric label, the API field, and what
tests look at. The text is for people and may change.
"""

from __future__ import annotations

import errno as errno_names
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


class BridgedError(Exception):
    """Root of all errors that this package raises on purpose."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class ConfigurationError(BridgedError):
    """An unusable configuration: where (file, line, key), why, and what to do.

    `line` counts from 1; None means the whole file. `key` is the dotted path of the key.
    """

    def __init__(
        self,
        reason: str,
        *,
        file: Path | str | None = None,
        line: int | None = None,
        key: str = "",
        code: str = "configuration",
    ) -> None:
        self.reason = reason
        self.file = file
        self.line = line
        self.key = key
        where = ":".join(str(part) for part in (file, line) if part is not None)
        super().__init__(code, ": ".join(part for part in (where, key, reason) if part))


class ConfigurationErrors(ConfigurationError):
    """All errors of one file, in file order. The attributes are those of the first error.

    The text has one line for each error: `file:line: key: reason`.
    """

    def __init__(self, errors: Sequence[ConfigurationError]) -> None:
        first = errors[0]
        super().__init__(first.reason, file=first.file, line=first.line, key=first.key, code=first.code)
        self.errors = tuple(errors)
        self.message = "\n".join(str(error) for error in errors)
        self.args = (self.message,)


class LocalProtocolError(BridgedError):
    """We broke the contract of a state machine: a bug in this program."""

    def __init__(self, message: str, code: str = "local_protocol") -> None:
        super().__init__(code, message)


class RemoteProtocolError(BridgedError):
    """The peer broke the protocol: count by `code` and drop; never log it packet by packet.

    `code` is a drop reason of docs/reference/metrics.md.
    """

    def __init__(self, code: str, message: str = "") -> None:
        super().__init__(code, message or code)


class TlsError(BridgedError):
    """A TLS session failed. `code` is a handshake outcome of docs/reference/metrics.md."""


class PeerRefusedError(TlsError):
    """Our rules refuse the peer's certificate. A peer's complaint about ours is a plain `TlsError`."""


class LoginUnavailable(BridgedError):
    """A client's password or one-time secret cannot be read now."""

    def __init__(self, message: str) -> None:
        super().__init__("login_unavailable", message)


class NetlinkError(BridgedError):
    """The kernel refused a netlink operation.

    `operation` is what was tried on `link`; `number` is the errno (0: no answer).
    """

    def __init__(self, operation: str, link: str, number: int, detail: str = "") -> None:
        self.operation = operation
        self.link = link
        self.number = number
        name = errno_names.errorcode.get(number, str(number))
        text = f"{operation} on {link}: {name}"
        super().__init__(name.lower() if number else "netlink", f"{text} ({detail})" if detail else text)


class DataplaneError(BridgedError):
    """The data plane cannot do what was asked of it."""


class ShutdownErrors(BridgedError):
    """Errors of a teardown that was completed nevertheless, in order."""

    def __init__(self, errors: Sequence[BaseException]) -> None:
        self.errors = tuple(errors)
        super().__init__("shutdown", "; ".join(str(error) for error in errors))


@contextmanager
def naming(path: Path | str) -> Iterator[None]:
    """Set `filename` of every OSError inside to `path`: the system does not say which file a full disk, or
    a write to a temporary name, was for.

    Raises:
        OSError: as raised inside, with `filename`.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename == str(path):
            raise
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
