"""Asks a program of the operator whether a password is right, as OpenVPN's auth-user-pass-verify does.

The program may answer at once by its exit status (0 yes, 1 no), or with status 2 and later by one character,
`1` or `0`, in the file that `auth_control_file` names. It never runs longer than it may.
"""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from bridged.files import open_to_read
from bridged.protocol.text import printable
from bridged.tls.subject import printed_subject
from bridged.tls.verification import common_name

DEFERRED: Final = 2
LOOK_SECONDS: Final = 0.25
REASON_CHARACTERS_MAX: Final = 200
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class Question:
    """What the program is asked. `environment`: facts of the peer, without the password."""

    username: str
    password: str = field(repr=False)
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CommandAnswer:
    """`reason`: for the peer and the log; may be empty. `is_failure`: the program gave no answer.

    `has_run`: it was started, so whoever asked has tried something. `is_crowded`: it wanted to answer later,
    and there is no room for that.
    """

    is_right: bool
    reason: str = ""
    is_failure: bool = False
    has_run: bool = True
    is_crowded: bool = False


async def ask_command(
    command: tuple[str, ...],
    way: Literal["file", "environment"],
    question: Question,
    seconds: float,
    may_defer: Callable[[], bool],
) -> CommandAnswer:
    """Run the program, and wait for its answer at most `seconds`. Never raises, except when cancelled.

    `may_defer` hears that the program will answer later, and says whether that is waited for.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="bridged-login-") as folder:
            async with asyncio.timeout(seconds):
                return await _ask(command, way, question, Path(folder), may_defer)
    except TimeoutError:
        return CommandAnswer(False, f"the command gave no answer within {seconds:g} s", is_failure=True)
    except (OSError, ValueError) as error:
        return CommandAnswer(False, f"the command cannot be run: {error}", is_failure=True, has_run=False)


async def ask_verify(
    command: tuple[str, ...], chain: Sequence[bytes], facts: Mapping[str, str], seconds: float
) -> CommandAnswer:
    """Ask about each certificate of a chain in DER form, the peer's own last, as OpenVPN's tls-verify does.

    The program gets the depth and the subject as arguments. Never raises, except when cancelled.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="bridged-verify-") as folder:
            async with asyncio.timeout(seconds):
                for depth, octets in reversed(list(enumerate(chain))):
                    status = await _ask_of(command, depth, octets, facts, Path(folder))
                    if status:
                        reason = f"the verify command refuses the certificate at depth {depth}"
                        return CommandAnswer(False, reason, is_failure=status != 1)
    except TimeoutError:
        return CommandAnswer(
            False, f"the verify command gave no answer within {seconds:g} s", is_failure=True
        )
    except (OSError, ValueError) as error:
        return CommandAnswer(False, f"the verify command cannot be run: {error}", is_failure=True)
    return CommandAnswer(True)


async def ask_metadata(command: tuple[str, ...], kind: int, metadata: bytes, seconds: float) -> CommandAnswer:
    """Ask about the metadata of a tls-crypt-v2 client key, as OpenVPN's tls-crypt-v2-verify does.

    The program gets `metadata_type` and `metadata_file` in its environment. Never raises, except when
    cancelled.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="bridged-key-") as folder:
            file = Path(folder) / "metadata"
            file.write_bytes(metadata)
            environment = {
                "PATH": os.environ.get("PATH", _PATH),
                "script_type": "tls-crypt-v2-verify",
                "metadata_type": str(kind),
                "metadata_file": str(file),
            }
            async with asyncio.timeout(seconds):
                status = await _run(command, environment)
    except TimeoutError:
        return CommandAnswer(
            False, f"the verify command of keys gave no answer within {seconds:g} s", is_failure=True
        )
    except (OSError, ValueError) as error:
        return CommandAnswer(False, f"the verify command of keys cannot be run: {error}", is_failure=True)
    if status in (0, 1):
        return CommandAnswer(status == 0)
    return CommandAnswer(False, f"the verify command of keys ended with status {status}", is_failure=True)


async def _ask_of(
    command: tuple[str, ...], depth: int, octets: bytes, facts: Mapping[str, str], folder: Path
) -> int:
    certificate = x509.load_der_x509_certificate(octets)
    subject = printed_subject(certificate.tbs_certificate_bytes)
    file = folder / f"{depth}.pem"
    file.write_bytes(certificate.public_bytes(Encoding.PEM))
    environment = {
        "PATH": os.environ.get("PATH", _PATH),
        "script_type": "tls-verify",
        **facts,
        f"tls_id_{depth}": subject,
        f"tls_serial_{depth}": str(certificate.serial_number),
        f"X509_{depth}_CN": common_name(certificate),
        "peer_cert": str(file),
    }
    return await _run([*command, str(depth), subject], environment)


async def _ask(
    command: tuple[str, ...],
    way: Literal["file", "environment"],
    question: Question,
    folder: Path,
    may_defer: Callable[[], bool],
) -> CommandAnswer:
    control, reason = folder / "control", folder / "reason"
    environment = {
        "PATH": os.environ.get("PATH", _PATH),
        "script_type": "user-pass-verify",
        **question.environment,
        "username": question.username,
        "auth_control_file": str(control),
        "auth_failed_reason_file": str(reason),
    }
    arguments = list(command)
    if way == "file":
        file = folder / "login"
        file.touch(0o600)
        file.write_text(f"{question.username}\n{question.password}\n", encoding="utf-8")
        arguments.append(str(file))
    else:
        environment["password"] = question.password
    async with _started(arguments, environment) as process:
        status = await process.wait()
        if status == DEFERRED:
            if not may_defer():
                return CommandAnswer(False, is_crowded=True)
            return await _await_control(control, reason)
        if status not in (0, 1):
            return CommandAnswer(
                False, _reason(reason) or f"the command ended with status {status}", is_failure=True
            )
        return CommandAnswer(status == 0, "" if status == 0 else _reason(reason))


async def _run(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    async with _started(arguments, environment) as process:
        return await process.wait()


@asynccontextmanager
async def _started(
    arguments: Sequence[str], environment: Mapping[str, str]
) -> AsyncIterator[asyncio.subprocess.Process]:
    """The program; at the end it is killed, with whatever it has started."""
    process = await asyncio.create_subprocess_exec(
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        env=dict(environment),
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        if process.returncode is None:
            await process.wait()


async def _await_control(control: Path, reason: Path) -> CommandAnswer:
    while True:
        with suppress(OSError):
            said = _beginning(control, 1)
            if said == b"1":
                return CommandAnswer(True)
            if said == b"0":
                return CommandAnswer(False, _reason(reason))
        await asyncio.sleep(LOOK_SECONDS)


def _reason(file: Path) -> str:
    try:
        text = _beginning(file, 4 * REASON_CHARACTERS_MAX).decode("utf-8", "replace")
    except OSError:
        return ""
    return printable(" ".join(text.split()), REASON_CHARACTERS_MAX)


def _beginning(file: Path, octets: int) -> bytes:
    """Of a regular file: a pipe in its place would hold up the daemon."""
    with open_to_read(file) as stream:
        return stream.read(octets)
