"""Directives about user names and passwords of a client.

Source: OpenVPN's manual page on `auth-user-pass` and `static-challenge`.
Pure.
"""

from __future__ import annotations

from typing import Final

from bridged.profiles.draft import INLINE_MARKER, Draft, Mapper, argument, refuse
from bridged.profiles.profile import LoginLine, Material
from bridged.profiles.statements import Statement


def _auth_user_pass(draft: Draft, statement: Statement) -> None:
    login = draft.profile.login = draft.profile.login or LoginLine()
    if statement.inline is not None:
        login.material = draft.material(statement, login.material)
        return
    if not statement.arguments:
        return
    if statement.arguments[0] in ("stdin", "up"):
        draft.note(statement, "nobody is asked: the daemon starts unattended")
        return
    if statement.arguments[0] != INLINE_MARKER:
        login.material = Material(statement.line, path=statement.arguments[0])
    else:
        draft.markers.setdefault(statement.name, statement.line)
    if statement.arguments[1:] == ("username-only",):
        login.has_name_only = True


def _static_challenge(draft: Draft, statement: Statement) -> None:
    argument(statement, "a question")
    words = statement.arguments
    form = words[2].lower() if len(words) > 2 else "scrv1"
    if form not in ("scrv1", "concat"):
        refuse(f"{form!r} is neither scrv1 nor concat")
    draft.profile.challenge = "concat" if form == "concat" else "scrv1"
    draft.note(
        statement,
        "nobody is asked: bridged makes the code itself (TOTP), from the secret in `login.totp_secret`",
    )


LOGIN_MAPPERS: Final[dict[str, Mapper]] = {
    "auth-user-pass": _auth_user_pass,
    "static-challenge": _static_challenge,
}
