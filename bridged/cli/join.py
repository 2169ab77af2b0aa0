"""`bridged join`: a client's configuration from an OpenVPN profile.

Results go to stdout, messages to stderr. Exit status: 0 done, 1 failed, 2 wrong use or a bad file.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from bridged.cli.files import BridgeName, Output, Ports, one_line, refuse_existing, say, write
from bridged.errors import ConfigurationError

if TYPE_CHECKING:
    from bridged.profiles import Material, Profile, Trust

PROFILE_OCTETS_MAX: Final = 1 << 20


def register(app: typer.Typer) -> None:
    app.command("join")(join)


def join(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The .ovpn file of an OpenVPN TAP server.")],
    bridge: BridgeName,
    port: Ports = None,
    state: Annotated[
        Path | None,
        typer.Option(
            "--state", metavar="DIR", help="State folder; keys go to DIR/joined. Default: inline in the YAML."
        ),
    ] = None,
    output: Output = None,
) -> None:
    """Write a client's configuration from an .ovpn file."""
    from bridged.configuration.load import parse
    from bridged.profiles import parse_profile, render_yaml, to_configuration

    profile = parse_profile(_read_profile(file), str(file))
    if output is not None:
        refuse_existing(output)
    name = _tunnel_name(file)
    materials = _materials(profile, file)
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

    inline = _trust(materials)
    # Before anything is written: names and values that the daemon would refuse.
    parse(render(inline), output or Path("client.yaml"))
    text = render(inline if state is None else _store(materials, state.absolute() / "joined" / name))
    write(output, text, private=True)
    for notice in profile.notices:
        say(f"{file}:{notice.line}: warning: {notice.text}" if notice.line else f"{file}: {notice.text}")
    if output is not None:
        say(f"wrote {output}; start it with `bridged run --config {output}`")


def _read_profile(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            content = stream.read(PROFILE_OCTETS_MAX + 1)
    except OSError as error:
        raise ConfigurationError(f"cannot be read: {error.strerror or error}", file=file) from None
    if len(content) > PROFILE_OCTETS_MAX:
        raise ConfigurationError(f"larger than {PROFILE_OCTETS_MAX} octets; is it a profile?", file=file)
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigurationError("not UTF-8 text", file=file, line=line) from None


def _tunnel_name(file: Path) -> str:
    """The file's name without its end, as far as a tunnel's name may have its characters."""
    allowed = [char if char.isascii() and (char.isalnum() or char in "_.-") else "-" for char in file.stem]
    return "".join(allowed).lstrip("_.-")[:63] or "client"


def _materials(profile: Profile, file: Path) -> dict[str, str]:
    """Texts of everything that the profile holds or names, by the name of the file they would get."""
    folder = file.absolute().parent / (profile.directory or "")

    def text_of(material: Material, key: str) -> str:
        if material.text is not None:
            return material.text
        path = folder / (material.path or "")
        if path.exists() and not path.is_file():
            # A pipe or a device would hold `join` up for ever.
            raise ConfigurationError(f"{path} is no regular file", file=file, line=material.line, key=key)
        try:
            return _read_profile(path)
        except ConfigurationError as error:
            reason = f"{path} {error.reason}"
            raise ConfigurationError(reason, file=file, line=material.line, key=key) from None

    found = {
        "ca.crt": (profile.ca, "ca"),
        "client.crt": (profile.certificate, "cert"),
        "client.key": (profile.key, "key"),
        "crl.pem": (profile.crl, "crl-verify"),
        "wrap.key": (profile.wrap_key, profile.wrap),
    }
    texts = {name: text_of(material, key) for name, (material, key) in found.items() if material is not None}
    if profile.extra_certificates is not None:
        texts["client.crt"] += "\n" + text_of(profile.extra_certificates, "extra-certs")
    _check_materials(texts, file)
    return {name: text.strip() + "\n" for name, text in texts.items()}


def _check_materials(texts: dict[str, str], file: Path) -> None:
    """Refuse now what the daemon would refuse when it starts."""
    from bridged.protocol.static_key import parse_static_key
    from bridged.tls import TlsSettings, make_engine_factory

    if "wrap.key" in texts:
        parse_static_key(texts["wrap.key"], f"{file}, tls-auth or tls-crypt")
    settings = TlsSettings(
        "client",
        texts["client.crt"].encode(),
        texts["client.key"].encode(),
        texts["ca.crt"].encode() if "ca.crt" in texts else None,
        texts["crl.pem"].encode() if "crl.pem" in texts else None,
        # With a CA the pins do not matter here; without one there must be some.
        peer_fingerprints=() if "ca.crt" in texts else ("00" * 32,),
    )
    names = {"tls.certificate": "cert", "tls.key": "key", "tls.ca": "ca", "tls.crl": "crl-verify"}
    try:
        make_engine_factory(settings)
    except ConfigurationError as error:
        raise ConfigurationError(error.reason, file=file, key=names.get(error.key, error.key)) from None


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
    """Write the texts as files that only their owner may read; refuse to replace other ones."""
    from bridged.pki import make_private_directory, write_atomic

    for name, text in texts.items():
        path = folder / name
        if path.exists() and path.read_text(encoding="utf-8", errors="replace") != text:
            raise ConfigurationError(
                "exists with another content: this state folder has joined another server by this name; "
                "rename the .ovpn file, or delete the folder first",
                file=path,
            )
    for parent in (folder.parent.parent, folder.parent, folder):
        make_private_directory(parent)
    for name, text in texts.items():
        write_atomic(folder / name, text.encode())
    return _trust({name: str(folder / name) for name in texts})
