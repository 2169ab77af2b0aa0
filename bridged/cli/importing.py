"""`bridged import`: a configuration from a file of OpenVPN, with a report of each directive.

Results go to stdout, messages to stderr. Exit status: 0 done, 1 failed, 2 wrong use or a bad file.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from bridged.cli.client_files import read_client_files
from bridged.cli.files import Output, Ports, one_line, refuse_existing, say_written, write
from bridged.cli.materials import Materials, read_octets
from bridged.cli.output import say
from bridged.errors import ConfigurationError

if TYPE_CHECKING:
    from bridged.profiles import Profile, Reading, Trust

DEFAULT_BRIDGE: Final = "br0"
_REFUSED: Final = "the lines marked `refused` must be changed as they say"

State = Annotated[
    Path | None,
    typer.Option("--state", metavar="DIR", help="Write keys to DIR/joined. Default: into the YAML itself."),
]
BridgeOption = Annotated[
    str | None,
    typer.Option("--bridge", help="Name of the kernel bridge. Default: the one that an `up` script names."),
]
PasswordFile = Annotated[
    Path | None,
    typer.Option(
        "--password-file",
        metavar="FILE",
        help="First line: the password of an encrypted key or PKCS#12 file. Default: `askpass` of the "
        "profile, or asked for on a terminal.",
    ),
]


def register(app: typer.Typer) -> None:
    app.command("import")(import_file)


def import_file(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="Client profile, server configuration, or OpenWrt's /etc/config/openvpn."
        ),
    ],
    bridge: BridgeOption = None,
    port: Ports = None,
    section: Annotated[
        str | None, typer.Option("--section", metavar="NAME", help="The section of an OpenWrt file.")
    ] = None,
    state: State = None,
    password_file: PasswordFile = None,
    output: Output = None,
) -> None:
    """Make a configuration from an OpenVPN file, and say what becomes of each directive.

    Without --bridge and `up` script, the bridge is br0.
    """
    from bridged.profiles import read_file
    from bridged.profiles.text import decode_text

    reading = read_file(decode_text(read_octets(file), str(file)), str(file), section)
    _show_report(reading, file)
    if reading.errors:
        raise ConfigurationError(f"{_REFUSED}; nothing was written", file=file)
    profile = reading.profile
    if profile.server is not None and profile.server.client_directory is not None:
        folder = file.absolute().parent / (profile.directory or "") / profile.server.client_directory
        for remark in read_client_files(folder, profile.server):
            say(f"{file}: client-config-dir: {remark}")
    name = reading.section or tunnel_name(file)
    which = f"A client of {profile.remotes[0]}" if profile.server is None else "A server"
    write_configuration(
        profile,
        Materials(profile, file, password_file),
        name=tunnel_name(Path(name)),
        bridge=bridge or profile.bridge or DEFAULT_BRIDGE,
        ports=port or [],
        state=state,
        output=output,
        which=f"{which}, made by `bridged import` from {one_line(file.name)}.",
    )


def _show_report(reading: Reading, file: Path) -> None:
    """Each directive with its line, then what concerns the whole file."""
    for outcome in reading.report:
        where = f"{file}:{outcome.line}" if outcome.line else str(file)
        say(f"{where}: {outcome}")


def write_configuration(
    profile: Profile,
    materials: Materials,
    *,
    name: str,
    bridge: str,
    ports: Sequence[str],
    state: Path | None,
    output: Path | None,
    which: str,
) -> None:
    """Write the YAML, and the keys if there is a `state` folder. `which`: first line of the heading.

    Raises:
        ConfigurationError: a file that is named cannot be used, the daemon would refuse the result, or
            `output` cannot be written.
    """
    from bridged.configuration.load import parse
    from bridged.profiles import render_yaml, to_configuration

    for text in materials.exposed():
        say(f"{materials.file}: warning: {text}")
    if output is not None:
        refuse_existing(output)
    texts = materials.texts()
    for text in materials.remarks:
        say(f"{materials.file}: {text}")
    heading = [which, "Check it with `bridged check FILE`, start it with `bridged run --config FILE`."]

    def render(trust: Trust) -> str:
        configuration = to_configuration(
            profile,
            trust,
            tunnel_name=name,
            bridge=bridge,
            ports=ports,
            state_directory=state.absolute() if state else None,
        )
        return render_yaml(configuration, heading)

    inline = _trust(texts)
    # Refuse names and values that the daemon would refuse, before anything is written.
    parse(render(inline), output or Path("bridged.yaml"))
    role = "client" if profile.server is None else "server"
    trust = inline if state is None else _store(texts, state.absolute() / "joined" / name, role)
    write(output, render(trust), private=True)
    if output is not None:
        say_written(output)


def tunnel_name(file: Path) -> str:
    """The file's name without its ending; characters that a tunnel's name cannot have become `-`."""
    allowed = [char if char.isascii() and (char.isalnum() or char in "_.-") else "-" for char in file.stem]
    return "".join(allowed).lstrip("_.-")[:63] or "client"


def _trust(values: dict[str, str]) -> Trust:
    from bridged.profiles import Trust

    return Trust(
        certificate=values.get("own.crt"),
        key=values.get("own.key"),
        ca=values.get("ca.crt"),
        crl=values.get("crl.pem"),
        wrap_key=values.get("wrap.key"),
        old_wrap_key=values.get("old-wrap.key"),
        login=values.get("login.txt"),
        proxy_login=values.get("proxy.txt"),
    )


def _store(texts: dict[str, str], folder: Path, role: str) -> Trust:
    """Write the texts as files that only their owner may read; refuse to replace different ones."""
    from bridged.pki import make_private_directory, write_atomic

    texts = {name.replace("own.", f"{role}."): text for name, text in texts.items()}
    for name, text in texts.items():
        path = folder / name
        if path.exists() and path.read_text(encoding="utf-8", errors="replace") != text:
            raise ConfigurationError(
                "already exists with other content: this state folder has joined another server by this "
                "name; rename the .ovpn file, or delete the folder first",
                file=path,
            )
    for parent in (folder.parent.parent, folder.parent, folder):
        make_private_directory(parent)
    for name, text in texts.items():
        write_atomic(folder / name, text.encode())
    return _trust({name.replace(f"{role}.", "own."): str(folder / name) for name in texts})
