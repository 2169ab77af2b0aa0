"""Directives about user names and passwords in a server's file.

Source: OpenVPN's manual page on `auth-user-pass-verify`, `auth-gen-token` and `verify-client-cert`.
Pure.
"""

from __future__ import annotations

from typing import Final

from bridged.profiles.draft import Draft, Mapper, argument, number, refuse
from bridged.profiles.statements import Statement

FOR_EVER_SECONDS: Final = 10 * 365 * 86_400
USERS_NOTE: Final = (
    "until you write users into the file of `authentication.password_file`, nobody gets in: "
    "`bridged password FILE NAME` for each"
)


def _verify(draft: Draft, statement: Statement) -> None:
    script = argument(statement, "a command")
    draft.server.asks_passwords = True
    way = "environment" if statement.arguments[-1] == "via-env" else "file"
    draft.note(
        statement,
        f"the script is not run; {USERS_NOTE}. Or let bridged ask it, as the user `bridged`: "
        f"`authentication: {{command: [{script}], command_input: {way}}}`",
    )


def _pam(draft: Draft, statement: Statement) -> None:
    draft.server.asks_passwords = True
    draft.note(statement, f"the plug-in is not loaded; {USERS_NOTE}")


def _plugin(draft: Draft, statement: Statement) -> None:
    file = argument(statement, "a file")
    if "down-root" in file:
        draft.note(statement, "the plug-in is not loaded; what its script undoes, bridged undoes itself")
    elif "auth" in file or "ldap" in file or "radius" in file:
        _pam(draft, statement)
    else:
        refuse("plug-ins are not loaded; remove the line if the tunnel works without")


def _optional(draft: Draft, statement: Statement) -> None:
    draft.server.may_lack_password = True


def _no_certificate(draft: Draft, statement: Statement) -> None:
    draft.server.client_certificate = "none"


def _client_certificate(draft: Draft, statement: Statement) -> None:
    kind = statement.arguments[0] if statement.arguments else "require"
    if kind == "none":
        draft.server.client_certificate = "none"
    elif kind == "optional":
        draft.server.client_certificate = "optional"
    elif kind == "require":
        draft.server.client_certificate = None
    else:
        refuse(f"{kind!r} is none of none, optional, require")


def _by_user(draft: Draft, statement: Statement) -> None:
    draft.server.names_by_user = True


def _token(draft: Draft, statement: Statement) -> None:
    seconds = number(statement.arguments[0], 0, 1 << 31) if statement.arguments else 0
    draft.server.token_seconds = seconds or FOR_EVER_SECONDS
    if "external-auth" in statement.arguments:
        draft.note(statement, "`external-auth` is not needed: bridged checks its tokens itself")


def _token_secret(draft: Draft, statement: Statement) -> None:
    draft.note(statement, "not used: bridged makes a key of its own, and keeps it in the state folder")


SERVER_LOGIN_MAPPERS: Final[dict[str, Mapper]] = {
    "auth-user-pass-verify": _verify,
    "auth-user-pass-optional": _optional,
    "client-cert-not-required": _no_certificate,
    "verify-client-cert": _client_certificate,
    "username-as-common-name": _by_user,
    "auth-gen-token": _token,
    "auth-gen-token-secret": _token_secret,
    "plugin": _plugin,
}
