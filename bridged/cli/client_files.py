"""The folder of `client-config-dir`: its files become entries of `clients`."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bridged.cli.materials import read_octets
from bridged.errors import ConfigurationError

if TYPE_CHECKING:
    from bridged.profiles.profile import ServerSettings
    from bridged.profiles.statements import Statement

FILES_MAX: Final = 10_000
PUSH_CHARACTERS_MAX: Final = 256
_SHOWN: Final = 20
_DEFAULT: Final = "DEFAULT"


def read_client_files(folder: Path, server: ServerSettings) -> list[str]:
    """Fill `server.clients`. Returns one remark for each file that says more than bridged can do.

    Raises:
        ConfigurationError: the folder cannot be read although only its clients may connect; a file is cut
            off; or there are too many.
    """
    try:
        files = sorted(path for path in folder.iterdir() if path.is_file())
    except OSError as error:
        if server.only_known_clients:
            reason = f"cannot be read ({error.strerror}), and `ccd-exclusive` lets in only its clients"
            raise ConfigurationError(reason, file=folder, key="client-config-dir") from None
        return [f"{folder} cannot be read: copy it here, then try again, or write `clients` yourself"]
    if len(files) > FILES_MAX:
        raise ConfigurationError(f"has more than {FILES_MAX} files", file=folder, key="client-config-dir")
    network = server.pool.network if server.pool is not None else None
    remarks: list[str] = []
    for path in files:
        if path.name.startswith(".") or not path.name.isprintable() or len(path.name) > 64:
            continue
        client, left = _read(path, network)
        if path.name == _DEFAULT:
            left, client = sorted({*left, *client}), {}
            if left:
                remarks.append("DEFAULT: is for clients without a file; not taken over: write it into `push`")
        else:
            server.clients[path.name] = client
            if left:
                remarks.append(f"{path.name}: {', '.join(left)}: not needed or not possible here")
    more = len(remarks) - _SHOWN
    return [*remarks[:_SHOWN], f"and {more} more files"] if more > 0 else remarks


def _read(path: Path, network: IPv4Network | None) -> tuple[dict[str, Any], list[str]]:
    """The client's entry, and the directives that are left out."""
    from bridged.profiles.statements import split_statements
    from bridged.profiles.text import decode_text

    client: dict[str, Any] = {}
    left: dict[str, None] = {}
    for statement in split_statements(decode_text(read_octets(path), str(path)), str(path)):
        if not _take(client, statement, network):
            left[f"`{statement.name}`"] = None
    return client, list(left)


def _take(client: dict[str, Any], statement: Statement, network: IPv4Network | None) -> bool:
    words = statement.arguments
    if statement.name == "disable":
        client["enabled"] = False
        return True
    if statement.name == "ifconfig-push" and words and network is not None:
        try:
            address = IPv4Address(words[0])
        except ValueError:
            return False
        if address not in network:
            return False
        client["address"] = str(address)
        return True
    if statement.name == "push" and words:
        option = " ".join(" ".join(words).split())
        is_sendable = option.isascii() and option.isprintable() and "," not in option
        if not option or not is_sendable or len(option) > PUSH_CHARACTERS_MAX:
            return False
        client.setdefault("push", []).append(option)
        return True
    return False
