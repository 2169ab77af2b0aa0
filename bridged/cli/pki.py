"""`bridged init`, `invite`, `join`: the embedded CA, invitations, and configurations made from them.

Results go to stdout, messages to stderr. Exit status: 0 done, 1 failed, 2 wrong use or a bad file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from bridged.errors import ConfigurationError

if TYPE_CHECKING:
    from bridged.addresses import Endpoint
    from bridged.pki import EmbeddedCa
    from bridged.profiles import Material, Profile, Trust

DEFAULT_PORT: Final = 1194
PROFILE_OCTETS_MAX: Final = 1 << 20
_USAGE_CODES: Final = frozenset({"pki_name", "pki_exists", "pki_duplicate", "pki_missing", "pki_unknown"})

State = Annotated[Path, typer.Option("--state", metavar="DIR", help="State folder; the CA is in DIR/pki.")]
BridgeName = Annotated[str, typer.Option("--bridge", help="Kernel bridge.")]
Ports = Annotated[
    list[str] | None, typer.Option("--port", help="LAN interface that joins the bridge; may be repeated.")
]
Output = Annotated[Path | None, typer.Option("--output", metavar="FILE", help="Default: stdout.")]


def register(app: typer.Typer) -> None:
    app.command("init")(init)
    app.command("invite")(invite)
    app.command("join")(join)


def init(
    state: State,
    remote: Annotated[
        str, typer.Option("--remote", metavar="HOST[:PORT]", help="How clients reach this server.")
    ],
    bridge: BridgeName = "br0",
    port: Ports = None,
    output: Output = None,
) -> None:
    """Make a CA, a server certificate, a tls-crypt key and the server's configuration."""
    from bridged.configuration.load import parse
    from bridged.pki import EmbeddedCa, pki_directory

    endpoint = _endpoint(remote)
    state = state.absolute()
    text = _server_yaml(state, bridge, port or [], endpoint.port)
    # Before anything is written: a bad bridge or port name must leave no CA behind.
    parse(text, output or Path("server.yaml"))
    if output is not None and not _holds(output, text):
        _refuse_existing(output)
    is_new = not pki_directory(state).exists()
    with _failures():
        if is_new:
            authority = EmbeddedCa.create(state)
        else:
            authority = EmbeddedCa.ensure(state)
            if authority.remote not in (None, str(endpoint)):
                raise ConfigurationError(
                    f"exists already, made for {authority.remote}; a new CA would lock out every invited "
                    "peer. Use another --state, or move the folder away first",
                    file=authority.directory,
                    code="pki_exists",
                )
        authority.set_remote(str(endpoint))
    _write(output, text, private=False)
    made = "made" if is_new else "kept"
    _say(f"{made} the CA, the server's certificate and the tls-crypt key in {authority.directory}")
    if output is not None:
        _say(f"wrote {output}; start it with `bridged run --config {output}`")
    _say(f"next: `bridged invite NAME --state {state} --output NAME.ovpn` for each site")


def invite(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The site's name, as it shows in status.")],
    state: State,
    output: Output = None,
    remote: Annotated[
        str | None,
        typer.Option("--remote", metavar="HOST[:PORT]", help="In place of the one that `init` was given."),
    ] = None,
    days: Annotated[
        int | None, typer.Option("--days", min=1, max=36500, help="Validity; default: as long as the CA.")
    ] = None,
) -> None:
    """Write one .ovpn file for a new site: for OpenVPN 2.4 to 2.7, and for `bridged join`."""
    from bridged.pki import EmbeddedCa, check_name
    from bridged.pki.authority import CLIENT_DAYS, SERVER_NAME
    from bridged.profiles import ClientProfile, serialize_profile

    with _failures():
        check_name(name)
        authority = EmbeddedCa.open(state.absolute())
        endpoint = _endpoint(remote or _known_remote(authority, state))
        if output is not None:
            _refuse_existing(output)
        identity = authority.issue(name, "client", days=days or CLIENT_DAYS)
        try:
            profile = ClientProfile(
                name=name,
                remote=endpoint,
                server_name=SERVER_NAME,
                ca_pem=authority.certificate_pem.decode(),
                certificate_pem=identity.certificate_pem.decode(),
                key_pem=identity.key_pem.decode(),
                tls_crypt_key=authority.tls_crypt_key,
            )
            _write(output, serialize_profile(profile), private=True)
        except BaseException:
            # The only copy of the key is lost: the name must be free again.
            authority.revoke(name)
            raise
    where = "it" if output is None else str(output)
    _say(f"invited {name} (until {identity.not_after:%Y-%m-%d}); hand {where} over secretly, then delete it")


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
        _refuse_existing(output)
    name = _tunnel_name(file)
    materials = _materials(profile, file)
    heading = [
        f"A client of {profile.remotes[0]}, made by `bridged join` from {_one_line(file.name)}.",
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
    _write(output, text, private=True)
    for notice in profile.notices:
        _say(f"{file}:{notice.line}: warning: {notice.text}" if notice.line else f"{file}: {notice.text}")
    if output is not None:
        _say(f"wrote {output}; start it with `bridged run --config {output}`")


def _server_yaml(state: Path, bridge: str, ports: Sequence[str], port: int) -> str:
    quoted_ports = ", ".join(json.dumps(name) for name in ports)
    listen = "" if port == DEFAULT_PORT else f'    listen: "[::]:{port}"\n'
    no_listen = '    # listen: "[::]:1194"       # UDP address and port\n' if not listen else ""
    return f"""\
# A server, made by `bridged init`. Check it with `bridged check FILE`, start it with
# `bridged run --config FILE`, invite a site with `bridged invite NAME --state {_one_line(state)}`.

state_directory: {json.dumps(str(state))}

bridges:
  {json.dumps(bridge)}:
    # LAN interfaces that join the bridge. Their addresses and routes move to the bridge.
    ports: [{quoted_ports}]

tunnels:
  server:
    role: server
    bridge: {json.dumps(bridge)}
{listen}{no_listen}    tls:
      # The CA under the state folder, made by `bridged init`.
      embedded: true
    wrap:
      # Who does not have this key gets no answer at all. Invitations contain it.
      mode: tls-crypt
      key: {json.dumps(str(_wrap_key(state)))}
    # forward_between_peers: true  # sites reach each other
    # keepalive: {{ping_seconds: 10, restart_seconds: 60}}

# metrics:
#   listen: 127.0.0.1:9743         # Prometheus metrics; null turns them off
"""


def _wrap_key(state: Path) -> Path:
    from bridged.pki import tls_crypt_key_path

    return tls_crypt_key_path(state)


def _one_line(path: Path | str) -> str:
    text = str(path)
    return text if text.isprintable() else json.dumps(text)


def _endpoint(text: str) -> Endpoint:
    from bridged.addresses import Endpoint

    try:
        endpoint = Endpoint.parse(text, DEFAULT_PORT)
    except ValueError as error:
        raise ConfigurationError(str(error), key="--remote") from None
    if not endpoint.host.isprintable() or set(endpoint.host) & set(" \"'\\#;<>/"):
        raise ConfigurationError(f"{endpoint.host!r} is not a host name or an address", key="--remote")
    return endpoint


def _known_remote(authority: EmbeddedCa, state: Path) -> str:
    if authority.remote is None:
        raise ConfigurationError(
            f"the CA in {state} does not know how clients reach this server; give `--remote HOST[:PORT]`"
        )
    return authority.remote


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


def _holds(output: Path, text: str) -> bool:
    """The file is there already, with exactly this content."""
    try:
        return output.read_bytes() == text.encode()
    except OSError:
        return False


def _refuse_existing(output: Path) -> None:
    if output.exists() or output.is_symlink():
        raise ConfigurationError("exists already; remove it, or choose another --output", file=output)
    if not output.absolute().parent.is_dir():
        raise ConfigurationError(f"no folder {output.absolute().parent}", file=output)
    if not os.access(output.absolute().parent, os.W_OK):
        raise ConfigurationError(f"folder {output.absolute().parent} is not writable", file=output)


def _write(output: Path | None, text: str, *, private: bool) -> None:
    from bridged.pki import PRIVATE_FILE, PUBLIC_FILE, write_atomic

    if output is None:
        typer.echo(text, nl=False)
    else:
        write_atomic(output, text.encode(), PRIVATE_FILE if private else PUBLIC_FILE)


@contextmanager
def _failures() -> Iterator[None]:
    """Wrong use of the CA ends with status 2 like a wrong configuration."""
    from bridged.pki import PkiError

    try:
        yield
    except PkiError as error:
        if error.code in _USAGE_CODES:
            raise ConfigurationError(error.message, code=error.code) from None
        raise


def _say(text: str) -> None:
    typer.echo(text, err=True)
