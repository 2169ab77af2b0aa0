"""`bridged join`: a client's configuration from an OpenVPN profile.

Results go to stdout, messages to stderr. Exit status: 0 done, 1 failed, 2 wrong use or a bad file.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bridged.cli.files import BridgeName, Output, Ports, one_line, refuse_existing, write
from bridged.cli.materials import Materials, read_octets
from bridged.cli.output import say
from bridged.errors import ConfigurationError

if TYPE_CHECKING:
    from bridged.profiles import Trust


def register(app: typer.Typer) -> None:
    app.command("join")(join)


def join(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Client profile (.ovpn) of an OpenVPN TAP server.")
    ],
    bridge: BridgeName,
    port: Ports = None,
    state: Annotated[
        Path | None,
        typer.Option(
            "--state", metavar="DIR", help="Write keys to DIR/joined. Default: into the YAML itself."
        ),
    ] = None,
    output: Output = None,
) -> None:
    """Make a client's configuration from an .ovpn file."""
    from bridged.configuration.load import parse
    from bridged.profiles import parse_profile, render_yaml, to_configuration
    from bridged.profiles.text import decode_text

    profile = parse_profile(decode_text(read_octets(file), str(file)), str(file))
    materials = Materials(profile, file)
    for text in materials.exposed():
        say(f"{file}: warning: {text}")
    if output is not None:
        refuse_existing(output)
    name = _tunnel_name(file)
    texts = materials.texts()
    heading = [
        f"A client of {profile.remotes[0]}, made by `bridged join` from {one_line(file.name)}.",
        "Check it with `bridged check FILE`, start it with `bridged run --config FILE`.",
    ]

    def render(trust: Trust) -> str:
        configuration = to_configuration(
            profile,
            trust,
            tunnel_name=name,
            bridge=bridge,
            ports=port or [],
            state_directory=state.absolute() if state else None,
        )
        return render_yaml(configuration, heading)

    inline = _trust(texts)
    # Refuse names and values that the daemon would refuse, before anything is written.
    parse(render(inline), output or Path("client.yaml"))
    text = render(inline if state is None else _store(texts, state.absolute() / "joined" / name))
    write(output, text, private=True)
    for notice in profile.notices:
        say(f"{file}:{notice.line}: warning: {notice.text}" if notice.line else f"{file}: {notice.text}")
    if output is not None:
        say(f"wrote {output}; start it with `bridged run --config {shlex.quote(str(output))}`")


def _tunnel_name(file: Path) -> str:
    """The file's name without its ending; characters that a tunnel's name cannot have become `-`."""
    allowed = [char if char.isascii() and (char.isalnum() or char in "_.-") else "-" for char in file.stem]
    return "".join(allowed).lstrip("_.-")[:63] or "client"


def _trust(values: dict[str, str]) -> Trust:
    from bridged.profiles import Trust

    return Trust(
        certificate=values["client.crt"],
        key=values["client.key"],
        ca=values.get("ca.crt"),
        crl=values.get("crl.pem"),
        wrap_key=values.get("wrap.key"),
    )


def _store(texts: dict[str, str], folder: Path) -> Trust:
    """Write the texts as files that only their owner may read; refuse to replace different ones."""
    from bridged.pki import make_private_directory, write_atomic

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
    return _trust({name: str(folder / name) for name in texts})
