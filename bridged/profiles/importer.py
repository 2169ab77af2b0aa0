"""Reads OpenVPN files: a client's profile, a server's configuration, one section of OpenWrt's UCI file.

Source: docs/protocol/data.md#7.
Pure: text in, `Profile` out. Files that the text names are not read here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from bridged.errors import ConfigurationError, ConfigurationErrors
from bridged.profiles.connections import REMOTES_MAX
from bridged.profiles.draft import Draft, FileRole, Mapper, Refusal
from bridged.profiles.hints import SpellingHints, typographic, unfilled_template
from bridged.profiles.not_yet import Ability
from bridged.profiles.profile import Profile
from bridged.profiles.report import Outcome, Seen, Treatment, outcomes
from bridged.profiles.settling import settle
from bridged.profiles.statements import Statement, bare, split_statements
from bridged.profiles.table import DIRECTIVES, find_directive
from bridged.profiles.uci import choose_section, looks_like_uci, read_uci

_ERRORS_MAX: Final = 50
_CONFIGURATION: Final = re.compile(r"^(tunnels|bridges):", re.MULTILINE)
_SETENV_DEPTH_MAX: Final = 1
# No line of a key: Base64 has capitals, and lines of a static key have 32 characters.
_DIRECTIVE: Final = re.compile(r"[a-z][a-z0-9_-]{0,30}")


@dataclass(frozen=True, slots=True)
class Reading:
    """What a file says. With `errors`, `profile` is not complete.

    `section`: its name in a UCI file. `report`: what became of each directive. `needs`: what this version
    lacks.
    """

    role: FileRole
    profile: Profile
    report: Sequence[Outcome]
    errors: Sequence[ConfigurationError]
    needs: frozenset[Ability] = frozenset()
    section: str = ""

    def demand(self) -> Profile:
        """The profile.

        Raises:
            ConfigurationErrors: all that is wrong or not supported.
        """
        if self.errors:
            raise ConfigurationErrors(list(self.errors))
        return self.profile


def parse_profile(text: str, source: str) -> Profile:
    """Read a client's profile; `source` names the file in errors.

    `Profile.notices` has what does nothing here, or not the same as in OpenVPN.

    Raises:
        ConfigurationErrors: all that is wrong or not supported, each with file, line, reason and what to do.
    """
    try:
        return _read(_statements(text, source), source, "client").demand()
    except ConfigurationErrors:
        raise
    except ConfigurationError as error:
        raise ConfigurationErrors([error]) from None


def read_file(text: str, source: str, section: str | None = None) -> Reading:
    """Read a profile, a server's file, or a section of a UCI file, whichever it is.

    Raises:
        ConfigurationError: it is none of these, cut off or too large.
    """
    name = ""
    if looks_like_uci(text):
        chosen = choose_section(read_uci(text, source), section, source)
        name, statements = chosen.name, chosen.statements
        nested = next((one for one in statements if one.name == "config"), None)
        if nested is not None:
            reason = f"names a file: give that to `bridged import`: {' '.join(nested.arguments)}"
            raise ConfigurationError(reason, file=source, line=nested.line, key="config", code="profile")
    elif section is not None:
        raise ConfigurationError("has no sections; leave out --section", file=source, code="profile")
    else:
        statements = _statements(text, source)
    return _read(statements, source, role_of(statements), name)


def role_of(statements: Sequence[Statement]) -> FileRole:
    """A server has many clients (`server`, `server-bridge`, `mode server`), or one: `tls-server`, or
    `secret` without a remote or with `proto tcp-server`.
    """
    names = {one.name for one in statements}
    protocols = [one.arguments[0] for one in statements if one.name == "proto" and one.arguments]
    listens = bool(protocols) and protocols[-1].endswith("-server")
    waits = "secret" in names and (listens or not names & {"remote", "connection"})
    is_server = _has_many_clients(statements) or "tls-server" in names or waits
    return "server" if is_server else "client"


def _has_many_clients(statements: Sequence[Statement]) -> bool:
    return any(
        one.name in ("server", "server-bridge", "server-ipv6")
        or (one.name == "mode" and one.arguments[:1] == ("server",))
        for one in statements
    )


def _statements(text: str, source: str) -> list[Statement]:
    if _CONFIGURATION.search(text):
        reason = (
            "is a configuration of bridged, not an OpenVPN profile; `bridged run --config FILE` starts it"
        )
        raise ConfigurationError(reason, file=source, code="profile")
    statements = split_statements(text, source)
    if not any(find_directive(statement.name) for statement in statements):
        reason = "has no directive of OpenVPN; is it a profile?" if text.strip() else "the file is empty"
        raise ConfigurationError(reason, file=source, code="profile")
    return statements


def _read(statements: Sequence[Statement], source: str, role: FileRole, section: str = "") -> Reading:
    """Raises ConfigurationError for what no line is to blame for, or too much."""
    draft = Draft(role=role, spelling=SpellingHints(DIRECTIVES["client"]))
    draft.has_static_key = any(one.name == "secret" for one in statements)
    draft.profile.point_to_point = role == "server" and not _has_many_clients(statements)
    errors: list[ConfigurationError] = []
    draft.ignorable = {
        bare(word)
        for statement in statements
        if statement.name == "ignore-unknown-option"
        for word in statement.arguments
    }
    for statement in statements:
        if statement.name == "connection" and statement.inline is not None:
            _take_block(draft, statement, source)
            continue
        try:
            _take(draft, statement)
        except Refusal as refusal:
            name = _quotable(draft, statement.name)
            draft.seen.append(Seen(statement.line, name, "refused"))
            errors.append(_error(str(refusal), source, statement.line, name))
        if len(errors) >= _ERRORS_MAX:
            break
    # A refused line is not missing as well.
    refused = {(error.line, error.key) for error in errors} | {(None, error.key) for error in errors}
    errors.extend(error for error in settle(draft, source) if (error.line, error.key) not in refused)
    errors.sort(key=lambda error: error.line or 1 << 30)
    profile = draft.profile
    profile.notices.sort(key=lambda notice: notice.line)
    report = outcomes(draft.seen, profile.notices, errors)
    return Reading(role, profile, report, errors, frozenset(draft.needs), section)


def _take_block(draft: Draft, statement: Statement, source: str) -> None:
    """Take a `<connection>` block. Its options apply to it alone; mistakes count only if it is used."""
    assert statement.inline is not None
    draft.seen.append(Seen(statement.line, statement.name, "taken"))
    block = draft.general.for_block(statement.line)
    draft.blocks.append(block)
    if len(draft.blocks) > REMOTES_MAX:
        raise _error(f"more than {REMOTES_MAX} blocks", source, statement.line, "connection")
    draft.connection = block
    try:
        for part in split_statements(statement.inline, source, statement.line + 1):
            try:
                known = find_directive(part.name, draft.role)
                if known is not None and not known.is_of_connection and part.name != "setenv":
                    raise Refusal("cannot stand in `<connection>`; move the line above the blocks")
                _take(draft, part)
            except Refusal as refusal:
                block.refusals.append((part.line, _quotable(draft, part.name), str(refusal)))
                # One refusal decides what becomes of the block. Those of all blocks together are bounded.
                if sum(len(one.refusals) for one in draft.blocks) >= _ERRORS_MAX:
                    break
    finally:
        draft.connection = draft.general


def _take(draft: Draft, statement: Statement, depth: int = 0) -> None:
    """Take one statement into the draft; raises Refusal."""
    name = statement.name
    if name == "setenv":
        draft.seen.append(Seen(statement.line, name, "not needed"))
        _take_setenv(draft, statement, depth)
        return
    known = find_directive(name, draft.role)
    if known is None:
        _take_unknown(draft, statement)
        return
    if name == "remote" and draft.profile.point_to_point:
        known_by = "key" if draft.has_static_key else "certificate"
        draft.note(statement, f"ignored: this end waits, and knows its peer by its {known_by}")
        draft.seen.append(Seen(statement.line, name, "not needed"))
        return
    verdict: Treatment = "taken" if known.kind == "taken" else "not needed"
    if known.kind == "refused":
        draft.needs |= {known.needs} if known.needs else set()
        raise Refusal(known.text)
    if known.kind == "noted":
        draft.note(statement, known.text)
    elif known.mapper is not None:
        if statement.inline is not None and not known.is_block:
            raise Refusal("cannot be written as a block")
        _map(known.mapper, draft, statement)
    elif name == "connection":
        raise Refusal("is a block: write `<connection>`, its lines, and `</connection>`")
    if not draft.is_in_block:
        draft.seen.append(Seen(statement.line, name, verdict))


def _map(mapper: Mapper, draft: Draft, statement: Statement) -> None:
    """Take it. A typographic character or a template's marker explains better what is wrong with it."""
    template = unfilled_template(statement.arguments, is_command=statement.name == "up")
    if template is not None:
        raise Refusal(template)
    try:
        mapper(draft, statement)
    except Refusal as refusal:
        raise Refusal(typographic(statement.arguments) or str(refusal)) from None


def _take_unknown(draft: Draft, statement: Statement) -> None:
    if statement.name in draft.ignorable:
        text = "unknown, and ignored as `ignore-unknown-option` asks"
    elif draft.is_forward_compatible:
        text = "unknown, and ignored as `setenv FORWARD_COMPATIBLE 1` asks"
    else:
        words = statement.words
        raise Refusal(typographic(words) or unfilled_template(words) or _unknown(draft, statement.name))
    draft.note(statement, text)
    draft.seen.append(Seen(statement.line, statement.name, "not needed"))


def _take_setenv(draft: Draft, statement: Statement, depth: int) -> None:
    """`setenv opt DIRECTIVE …` allows an unknown directive, `setenv FORWARD_COMPATIBLE 1` all that follow.

    Other variables have no effect.
    """
    words = statement.words
    if words[1:3] == ("FORWARD_COMPATIBLE", "1"):
        draft.is_forward_compatible = True
    if len(words) < 3 or words[1] != "opt" or depth >= _SETENV_DEPTH_MAX:
        return
    inner = Statement(words[2:], statement.line)
    if find_directive(inner.name, draft.role) is None:
        draft.note(inner, "unknown, and ignored as `setenv opt` asks")
    else:
        _take(draft, inner, depth + 1)


def _quotable(draft: Draft, name: str) -> str:
    """`name` if it can be a directive. Empty if it may be a line of a key outside of its block."""
    return name if _DIRECTIVE.fullmatch(name) or draft.spelling.nearest(name) else ""


def _unknown(draft: Draft, name: str) -> str:
    close = draft.spelling.nearest(name)
    hint = f" (did you mean `{close}`?)" if close else ""
    return f"is no directive of OpenVPN{hint}; to skip it, write `ignore-unknown-option NAME` above it"


def _error(reason: str, source: str, line: int | None, key: str) -> ConfigurationError:
    return ConfigurationError(reason, file=source, line=line, key=key[:64], code="profile")
