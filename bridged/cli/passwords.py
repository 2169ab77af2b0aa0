"""`bridged password`: users of a server's password file. `bridged pam`: asks PAM about a password.

Exit status: 0 done, 2 wrong use or a damaged file.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from bridged.cli.output import say, show
from bridged.errors import ConfigurationError

_SECRET_OCTETS: Final = 20
_PAM_UNAVAILABLE: Final = 9
"""PAM_AUTHINFO_UNAVAIL."""
_PAM_REFUSALS: Final = frozenset({6, 7, 8, 10, 11, 12, 13})
"""PAM_PERM_DENIED, AUTH_ERR, CRED_INSUFFICIENT, USER_UNKNOWN, MAXTRIES, NEW_AUTHTOK_REQD, ACCT_EXPIRED."""


def register(app: typer.Typer) -> None:
    app.command("password")(password)
    app.command("pam")(pam)


def password(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="The file that `authentication.password_file` names.")
    ],
    name: Annotated[str, typer.Argument(metavar="NAME", help="The user name.")],
    delete: Annotated[bool, typer.Option("--delete", help="Remove the user.")] = False,
    totp: Annotated[
        bool, typer.Option("--totp", help="Make a secret of one-time codes, and ask for a code as well.")
    ] = False,
) -> None:
    """Add a user to a password file, or change the password: asked for, or the first line of stdin.

    The daemon uses the new file at once. Only its owner may read it.
    """
    from bridged.files import write_atomic
    from bridged.runtime.server.password_file import FILE_OCTETS_MAX, hash_password, is_user_name, parse_users

    if not is_user_name(name):
        raise ConfigurationError(
            "is no user name: 1 to 64 printable characters, without `:` and blanks around", key="NAME"
        )
    content = b""
    if file.exists():
        with file.open("rb") as stream:
            content = stream.read(FILE_OCTETS_MAX + 1)
    known = parse_users(content, file)
    if delete and name not in known:
        raise ConfigurationError(f"has no user {name}", file=file)
    lines = content.decode("utf-8", "replace").splitlines()
    kept = [line for line in lines if line.strip().partition(":")[0] != name or line.lstrip().startswith("#")]
    fields: list[str] = []
    secret = ""
    if not delete:
        fields = [name, hash_password(_ask())]
        secret = _new_secret() if totp else _secret_of(lines, name)
        fields += [secret] if secret else []
    text = "".join(f"{line}\n" for line in (*kept, *([":".join(fields)] if fields else [])))
    write_atomic(file, text.encode())
    say(f"{file}: {'removed' if delete else 'changed' if name in known else 'added'} {name}")
    if totp and not delete:
        show(f"otpauth://totp/bridged:{_quoted(name)}?secret={secret}&issuer=bridged")


def _ask() -> str:
    """The new password."""
    from bridged.protocol.keys.key_exchange import MAX_CREDENTIAL

    if sys.stdin.isatty():
        text = str(typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))
    else:
        text = sys.stdin.readline().rstrip("\r\n")
    if not text or len(text.encode()) > MAX_CREDENTIAL:
        raise ConfigurationError(f"a password has 1 to {MAX_CREDENTIAL} bytes", key="password")
    return text


def _new_secret() -> str:
    import base64
    import os

    return base64.b32encode(os.urandom(_SECRET_OCTETS)).decode("ascii")


def _secret_of(lines: list[str], name: str) -> str:
    """The secret that the user has already."""
    for line in lines:
        fields = line.strip().split(":", 2)
        if fields[0] == name and len(fields) == 3:
            return fields[2]
    return ""


def _quoted(name: str) -> str:
    from urllib.parse import quote

    return quote(name, safe="")


def pam(
    service: Annotated[str, typer.Argument(metavar="SERVICE", help="A service of /etc/pam.d.")],
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="User name in the first line, password in the second.")
    ],
) -> None:
    """Ask PAM whether a password is right; made to be the `command` of `authentication`.

    Exit status: 0 right, 1 wrong, 3 PAM cannot say. It asks with the rights of its caller.
    """
    import pamela

    lines = file.read_text(encoding="utf-8").split("\n")
    username, password = (*lines, "", "")[:2]
    if not username or not password:
        raise ConfigurationError("has no user name and password in its first two lines", file=file)
    try:
        pamela.authenticate(username, password, service=service)
    except pamela.PAMError as error:
        needs_root = error.errno == _PAM_UNAVAILABLE and os.geteuid() != 0
        cure = (
            "; if it has `pam_unix`: only root may ask it, write a password file instead"
            if needs_root
            else ""
        )
        say(f"bridged: PAM service {service}: {error.message}{cure}")
        raise typer.Exit(1 if error.errno in _PAM_REFUSALS else 3) from None
