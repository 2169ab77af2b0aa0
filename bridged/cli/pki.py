"""`bridged init` and `invite`: the embedded CA, and invitations.

Results go to stdout, messages to stderr. Exit status: 0 done, 1 failed, 2 wrong use or a bad file.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from bridged.cli.ca_failures import ca_failures
from bridged.cli.files import BridgeName, Output, Ports, holds, one_line, refuse_existing, say_written, write
from bridged.cli.output import say
from bridged.cli.peers import end_certificates, find_daemon
from bridged.cli.status import DEFAULT_CONFIG, Config
from bridged.errors import ConfigurationError

if TYPE_CHECKING:
    from bridged.addresses import Endpoint
    from bridged.pki import EmbeddedCa, IssuedIdentity
    from bridged.profiles import ClientProfile

DEFAULT_PORT: Final = 1194

StateFolder = Annotated[
    Path, typer.Option("--state", metavar="DIR", help="State folder. The CA is kept in DIR/pki.")
]


def register(app: typer.Typer) -> None:
    app.command("init")(init)
    app.command("invite")(invite)


def init(
    state: StateFolder,
    remote: Annotated[
        str,
        typer.Option(
            "--remote", metavar="HOST[:PORT]", help="Name or address under which clients reach this server."
        ),
    ],
    bridge: BridgeName = "br0",
    port: Ports = None,
    output: Output = None,
    old_clients: Annotated[
        bool,
        typer.Option(
            "--old-clients",
            help="Take clients of OpenVPN 2.4, and those that were invited before each had a key of its own.",
        ),
    ] = False,
) -> None:
    """Make a CA, a server certificate, the wrap's keys and the server's configuration file."""
    from bridged.configuration.load import parse
    from bridged.pki import EmbeddedCa, pki_directory, tls_crypt_v2_key_path

    endpoint = _endpoint(remote)
    state = state.absolute()
    is_new = not pki_directory(state).exists()
    # A CA of an earlier version keeps the wrap that its invitations have, unless both are wanted.
    has_own_keys = is_new or old_clients or tls_crypt_v2_key_path(state).exists()
    wrap = _wrap_yaml(state, old_clients) if has_own_keys else _old_wrap_yaml(state)
    text = _server_yaml(state, bridge, port or [], endpoint.port, wrap)
    # Refuse a bad bridge or port name before a CA is written.
    parse(text, output or Path("server.yaml"))
    if output is not None and not holds(output, text):
        refuse_existing(output)
    with ca_failures():
        if is_new:
            authority = EmbeddedCa.create(state)
        else:
            # Before it is completed: a refusal leaves everything as it was.
            _refuse_other_remote(EmbeddedCa.open(state), endpoint)
            authority = EmbeddedCa.ensure(state)
        is_changed = has_own_keys and not is_new and not authority.makes_wrap_keys
        if has_own_keys:
            authority.make_wrap_keys()
        authority.set_remote(str(endpoint))
    write(output, text, private=False)
    if is_changed:
        say("invitations have a key each from now on: let the server use this `wrap` before you invite")
    if has_own_keys and not old_clients:
        _warn_of_old_clients(authority)
    made = "made" if is_new else "kept"
    say(f"{made} the CA, the server's certificate and the keys of the wrap in {authority.directory}")
    if output is not None:
        say_written(output)
    say(f"next: `bridged invite NAME --state {shlex.quote(str(state))} --output NAME.ovpn` for each site")


AsksPassword = Annotated[
    bool,
    typer.Option("--password", help="The server asks for a user name and a password (`authentication`)."),
]


def invite(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="The site's name, as `bridged status` shows it.")
    ],
    state: StateFolder,
    output: Output = None,
    remote: Annotated[
        str | None,
        typer.Option(
            "--remote", metavar="HOST[:PORT]", help="The server's address. Default: that of `bridged init`."
        ),
    ] = None,
    days: Annotated[
        int | None, typer.Option("--days", min=1, max=36500, help="Validity. Default: as long as the CA.")
    ] = None,
    replace: Annotated[
        bool,
        typer.Option("--replace", help="Invite a site again and revoke its former certificate at once."),
    ] = False,
    password: AsksPassword = False,
    old_client: Annotated[
        bool,
        typer.Option(
            "--old-client",
            help="For OpenVPN 2.4: the key that all old clients share (`bridged init --old-clients`).",
        ),
    ] = False,
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Write an .ovpn file for a new site, for `bridged join` and for OpenVPN 2.5 to 2.7."""
    from bridged.pki import EmbeddedCa, check_name
    from bridged.pki.authority import CLIENT_DAYS
    from bridged.profiles import serialize_profile

    with ca_failures():
        check_name(name)
        authority = EmbeddedCa.open(state.absolute())
        endpoint = _endpoint(remote or _known_remote(authority, state))
        if output is not None:
            refuse_existing(output)
        former = replace and any(row.name == name and row.revoked is None for row in authority.certificates())
        # Now: without it nobody could be told that the former certificate is revoked.
        daemon = find_daemon(config, state) if former else None
        _refuse_unserved(config, state.absolute(), authority, shares_key=old_client)
        identity = authority.issue(
            name, "client", days=days or CLIENT_DAYS, replace=replace, has_wrap_key=not old_client
        )
        try:
            profile = _invitation(authority, identity, endpoint, password=password)
            write(output, serialize_profile(profile), private=True)
        except BaseException:
            # The only copy of the key is lost: free the name, or return it to the former certificate.
            authority.withdraw(identity)
            raise
    where = "the profile" if output is None else str(output)
    say(f"invited {name} (until {identity.not_after:%Y-%m-%d})")
    say(f"Send {where} over a secure channel, then delete your copy: it contains a private key.")
    if daemon is not None:
        # Not to standard output, which may be the profile.
        end_certificates(name, daemon, identity.serial, say)


def _invitation(
    authority: EmbeddedCa, identity: IssuedIdentity, endpoint: Endpoint, *, password: bool
) -> ClientProfile:
    from bridged.pki.authority import SERVER_NAME
    from bridged.profiles import ClientProfile

    return ClientProfile(
        name=identity.name,
        remote=endpoint,
        server_name=SERVER_NAME,
        ca_pem=authority.certificate_pem.decode(),
        certificate_pem=identity.certificate_pem.decode(),
        key_pem=identity.key_pem.decode(),
        tls_crypt_key="" if identity.wrap_key else authority.tls_crypt_key,
        tls_crypt_v2_key=identity.wrap_key,
        asks_password=password,
    )


def _warn_of_old_clients(authority: EmbeddedCa) -> None:
    rows = authority.certificates()
    old = [row.name for row in rows if row.usage == "client" and row.revoked is None and not row.wrap_key]
    if old:
        names = ", ".join(old[:5]) + (" and others" if old[5:] else "")
        say(
            f"warning: {names} have the key that old clients share: this configuration refuses them without "
            "`old_clients_key`; use `--old-clients`, or invite them again"
        )


def _refuse_unserved(config: Path, state: Path, authority: EmbeddedCa, *, shares_key: bool) -> None:
    """Refuse an invitation with a key that the server would not take, as far as its configuration is known.

    Raises:
        ConfigurationError: says what to write there.
    """
    from bridged.configuration import load
    from bridged.pki import tls_crypt_key_path, tls_crypt_v2_key_path

    has_own = authority.makes_wrap_keys and not shares_key
    tunnels = []
    # One that is wrong or missing says nothing; `bridged check` is for that.
    with suppress(ConfigurationError):
        configuration = load(config)
        if configuration.state_directory.resolve() == state.resolve():
            found = configuration.tunnels.values()
            tunnels = [one.wrap for one in found if one.role == "server" and one.tls.embedded]
    if not tunnels:
        if authority.makes_wrap_keys and shares_key:
            say(
                f"note: {config} has no server with this CA; the server's `wrap` needs "
                f"`old_clients_key: {tls_crypt_key_path(state)}`"
            )
        return
    if has_own and not any(wrap.mode == "tls-crypt-v2" for wrap in tunnels):
        raise ConfigurationError(
            "no server here has `mode: tls-crypt-v2`, and this CA gives each client a key for it; write "
            f"`wrap: {{mode: tls-crypt-v2, key: {tls_crypt_v2_key_path(state)}, old_clients_key: "
            f"{tls_crypt_key_path(state)}}}` and reload, or use `--old-client`",
            file=config,
            key="wrap.mode",
        )
    if not has_own and all(wrap.mode == "tls-crypt-v2" and not wrap.old_clients_key for wrap in tunnels):
        raise ConfigurationError(
            "no server here takes clients without a key of their own; write "
            f"`old_clients_key: {tls_crypt_key_path(state)}` into its `wrap` and reload, then try again",
            file=config,
            key="wrap.old_clients_key",
        )


def _refuse_other_remote(authority: EmbeddedCa, endpoint: Endpoint) -> None:
    if authority.remote not in (None, str(endpoint)):
        raise ConfigurationError(
            f"already exists, made for {authority.remote}; a new CA would lock out every invited "
            "peer. Use another --state, or move the folder away first",
            file=authority.directory,
            code="pki_exists",
        )


def _server_yaml(state: Path, bridge: str, ports: Sequence[str], port: int, wrap: str) -> str:
    quoted_ports = ", ".join(json.dumps(name) for name in ports)
    listen = "" if port == DEFAULT_PORT else f'    listen: "[::]:{port}"\n'
    no_listen = '    # listen: "[::]:1194"       # UDP address and port\n' if not listen else ""
    return f"""\
# A server, made by `bridged init`. Check it with `bridged check FILE`, start it with
# `bridged run --config FILE`, invite a site with
# `bridged invite NAME --state {one_line(shlex.quote(str(state)))} --output NAME.ovpn`.

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
{wrap}    # forward_between_peers: true  # sites reach each other
    # keepalive: {{ping_seconds: 10, restart_seconds: 60}}

# metrics:
#   listen: 127.0.0.1:9743         # Prometheus metrics; null turns them off
"""


def _wrap_yaml(state: Path, old_clients: bool) -> str:
    from bridged.pki import tls_crypt_key_path, tls_crypt_v2_key_path

    old = "" if old_clients else "# "
    folder = one_line(shlex.quote(str(state)))
    return f"""\
    wrap:
      # Each invitation contains a key of its own, made with this one. Peers without such a key, or with a
      # refused one (`bridged revoke NAME --state {folder}`), get no answer.
      mode: tls-crypt-v2
      key: {json.dumps(str(tls_crypt_v2_key_path(state)))}
      # Clients of OpenVPN 2.4 share a key:
      # `bridged invite NAME --old-client --state {folder} --output NAME.ovpn`.
      {old}old_clients_key: {json.dumps(str(tls_crypt_key_path(state)))}
"""


def _old_wrap_yaml(state: Path) -> str:
    from bridged.pki import tls_crypt_key_path

    return f"""\
    wrap:
      # Peers without this key get no answer. Invitations contain it.
      mode: tls-crypt
      key: {json.dumps(str(tls_crypt_key_path(state)))}
"""


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
            f"the CA in {state} does not know the server's address; give `--remote HOST[:PORT]`"
        )
    return authority.remote
