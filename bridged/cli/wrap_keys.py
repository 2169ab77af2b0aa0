"""`bridged wrap-key server|client|show|refuse|allow`: tls-crypt-v2 keys beside the embedded CA.

Its invitations have such keys already. Results go to stdout, messages to stderr. Exit status: 0 done, 1
nothing to do, 2 wrong use or a bad file.
"""

from __future__ import annotations

import base64
import binascii
import re
import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bridged.cli.bans import DaemonState
from bridged.cli.files import Output, refuse_existing, write
from bridged.cli.output import say, show
from bridged.cli.peers import find_daemon
from bridged.cli.status import DEFAULT_CONFIG, Config
from bridged.errors import ConfigurationError, RemoteProtocolError

if TYPE_CHECKING:
    from bridged.protocol.keys.client_wrap_key import ServerWrapKey

app = typer.Typer(name="wrap-key", help="Make tls-crypt-v2 keys as OpenVPN's; refuse a stolen one.")

ServerKey = Annotated[
    Path, typer.Option("--server-key", metavar="FILE", help="The server's key: `wrap.key` of its tunnel.")
]
Key = Annotated[
    str,
    typer.Argument(
        metavar="KEY", help="The identifier that `show` prints, or the file or profile with the key."
    ),
]


@app.command("server")
def server_command(output: Output = None) -> None:
    """Make a server's key, as `openvpn --genkey tls-crypt-v2-server` does."""
    from bridged.protocol.keys.client_wrap_key import ServerWrapKey

    if output is not None:
        refuse_existing(output)
    write(output, ServerWrapKey.generate(secrets.token_bytes).serialize(), private=True)


@app.command("client")
def client_command(
    server_key: ServerKey,
    output: Output = None,
    metadata: Annotated[
        str | None,
        typer.Option("--metadata", metavar="TEXT", help="For the verify command, in place of today's date."),
    ] = None,
    is_base64: Annotated[bool, typer.Option("--base64", help="TEXT is Base64, as OpenVPN takes it.")] = False,
) -> None:
    """Make a client's key, as `openvpn --genkey tls-crypt-v2-client` does."""
    if output is not None:
        refuse_existing(output)
    octets = None if metadata is None else _octets(metadata) if is_base64 else metadata.encode()
    key = _read_server_key(server_key).make_client_key(secrets.token_bytes, int(time.time()), octets)
    write(output, key.serialize(), private=True)
    say(f"the key's identifier is {key.identifier}; note whom you give it to")


@app.command("show")
def show_command(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A client's key, or a profile with one.")],
    server_key: Annotated[
        Path | None,
        typer.Option("--server-key", metavar="FILE", help="Also say what the server reads in the key."),
    ] = None,
) -> None:
    """Print the identifier of a client's key, by which it is refused. It is no secret."""
    from bridged.cli.materials import read_octets
    from bridged.protocol.keys.client_wrap_key import parse_client_key

    key = parse_client_key(read_octets(file).decode("ascii", "replace"), str(file))
    if server_key is None:
        show(key.identifier)
        return
    try:
        opened = _read_server_key(server_key).unwrap(key.wrapped)
    except RemoteProtocolError:
        raise ConfigurationError(f"was not made with the key in {server_key}", file=file) from None
    show(key.identifier)
    if opened.made_at is not None:
        show(f"made {time.strftime('%Y-%m-%d', time.gmtime(opened.made_at))}")
    elif opened.metadata_type is not None:
        text = opened.metadata.decode("utf-8", "backslashreplace")
        show(f"metadata of type {opened.metadata_type}: {text}")


@app.command("refuse")
def refuse_command(
    key: Key,
    name: Annotated[
        str, typer.Option("--name", metavar="TEXT", help="Whose key it is; only people read that.")
    ] = "",
    config: Config = DEFAULT_CONFIG,
    state: DaemonState = None,
) -> None:
    """Refuse a client's key; a session ends within 30 seconds. Works without a running daemon, too."""
    from bridged.pki import lock_state, refused_keys_path
    from bridged.pki.refused_list import add_refused

    identifier, folder = _identifier(key), _state(config, state)
    if not name.isprintable():
        raise ConfigurationError("has unprintable characters", key="--name")
    with lock_state(folder):
        if not add_refused(refused_keys_path(folder), [(identifier, name)]):
            say(f"{identifier} is refused already")
            raise typer.Exit(1)
    show(f"refused {identifier}, in {refused_keys_path(folder)}")


@app.command("allow")
def allow_command(key: Key, config: Config = DEFAULT_CONFIG, state: DaemonState = None) -> None:
    """Take a client's key from the list of refused ones."""
    from bridged.pki import lock_state, refused_keys_path
    from bridged.pki.refused_list import remove_refused

    identifier, folder = _identifier(key), _state(config, state)
    with lock_state(folder):
        if not remove_refused(refused_keys_path(folder), identifier):
            say(f"{identifier} is not refused")
            raise typer.Exit(1)
    show(f"{identifier} may connect again")


def _state(config: Path, state: Path | None) -> Path:
    folder = find_daemon(config, state).state
    if not folder.is_dir():
        raise ConfigurationError("no such folder; where is the daemon's `state_directory`?", file=folder)
    return folder


def _identifier(key: str) -> str:
    from bridged.cli.materials import read_octets
    from bridged.protocol.keys.client_wrap_key import parse_client_key

    if re.fullmatch(r"[0-9a-fA-F]{32}", key):
        return key.lower()
    file = Path(key)
    if not file.exists():
        reason = "is neither a file nor the identifier of a key (32 hex digits, see `bridged wrap-key show`)"
        raise ConfigurationError(reason, file=file)
    return parse_client_key(read_octets(file).decode("ascii", "replace"), key).identifier


def _read_server_key(file: Path) -> ServerWrapKey:
    from bridged.cli.materials import read_octets
    from bridged.protocol.keys.client_wrap_key import parse_server_key

    return parse_server_key(read_octets(file).decode("ascii", "replace"), str(file))


def _octets(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ConfigurationError("is no Base64 text", key="--metadata") from None
