"""Names for the shells' completion: `bridged complete-names peers|tunnels [FILE]`, one a line.

Called at each TAB, so it loads neither typer nor httpx, waits half a second at most, and is silent where no
daemon answers.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from bridged.cli.output import hand_over

DEFAULT_SOCKET: Final = Path("/run/bridged/bridged.sock")
DEFAULT_CONFIG: Final = Path("/etc/bridged/bridged.yaml")
WAIT_SECONDS: Final = 0.5
ANSWER_OCTETS_MAX: Final = 32 << 20
_REQUEST: Final = b"GET /v1/status HTTP/1.1\r\nHost: bridged\r\nConnection: close\r\n\r\n"


def print_names(arguments: list[str]) -> None:
    """Print the names of one kind that the daemon of the configuration (second argument) knows."""
    kind, config = arguments[0] if arguments else "", arguments[1] if len(arguments) > 1 else ""
    try:
        status = _ask(_socket_of(Path(config).expanduser() if config else None))
        names = sorted(set(_names(status, kind)))
    except Exception:
        # A completion has nobody to complain to.
        return
    hand_over("".join(f"{name}\n" for name in names if name.isprintable()))


def _socket_of(config: Path | None) -> Path:
    if config is None and (DEFAULT_SOCKET.exists() or not DEFAULT_CONFIG.exists()):
        return DEFAULT_SOCKET
    from bridged.configuration import load_admin

    return load_admin(config or DEFAULT_CONFIG)[0].socket


def _ask(path: Path) -> Any:
    """The daemon's status.

    Raises:
        OSError, ValueError: no answer in time, or none that can be read.
    """
    answer = bytearray()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(WAIT_SECONDS)
        connection.connect(str(path))
        connection.sendall(_REQUEST)
        while (part := connection.recv(1 << 16)) and len(answer) < ANSWER_OCTETS_MAX:
            answer += part
    head, _, body = answer.partition(b"\r\n\r\n")
    if b" 200 " not in head.partition(b"\r\n")[0]:
        raise ValueError("refused")
    return json.loads(body)


def _names(status: Any, kind: str) -> Iterator[str]:
    for tunnel in status["tunnels"]:
        if kind == "tunnels":
            yield tunnel["name"]
        elif kind == "peers":
            yield from (peer["name"] for peer in tunnel["peers"])
