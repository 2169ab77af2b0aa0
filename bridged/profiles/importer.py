"""Reads a client's OpenVPN profile.

Source: docs/protocol/data.md, section 7.
Pure: text in, `Profile` out; files that the profile names are not read here.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import Final

from bridged.addresses import Endpoint
from bridged.errors import ConfigurationError, ConfigurationErrors
from bridged.profiles.directives import ACCEPTED, REFUSED, WARNED, treatment_by_prefix
from bridged.profiles.draft import Draft, Refusal
from bridged.profiles.mapping import INLINE, MAPPERS
from bridged.profiles.mapping_trust import DIGESTS
from bridged.profiles.profile import Notice, Profile
from bridged.profiles.statements import Statement, split_statements

REMOTES_MAX: Final = 64
_ERRORS_MAX: Final = 50


def parse_profile(text: str, source: str) -> Profile:
    """Read a profile; `source` names the file in errors.

    What has no effect on a bridge, or another one than in OpenVPN, is in `Profile.notices`.

    Raises:
        ConfigurationErrors: everything that cannot be taken, each with file, line, reason and what to do.
    """
    try:
        statements = _flatten(split_statements(text, source), source)
    except ConfigurationError as error:
        raise ConfigurationErrors([error]) from None
    ignorable = {
        word
        for statement in statements
        if statement.name == "ignore-unknown-option"
        for word in statement.arguments
    }
    draft = Draft()
    errors: list[ConfigurationError] = []
    for statement in statements:
        try:
            _take(draft, statement, ignorable)
        except Refusal as refusal:
            errors.append(_error(str(refusal), source, statement.line, statement.name))
        if len(errors) >= _ERRORS_MAX:
            break
    errors.extend(_complete(draft, source))
    if errors:
        raise ConfigurationErrors(sorted(errors, key=lambda error: error.line or 1 << 30))
    draft.profile.notices.sort(key=lambda notice: notice.line)
    return draft.profile


def _flatten(statements: list[Statement], source: str) -> list[Statement]:
    """Take `<connection>` blocks apart: each is a `remote` with its own port and protocol; whatever else
    stands in one holds for all."""
    result: list[Statement] = []
    for statement in statements:
        if statement.name != "connection" or statement.inline is None:
            result.append(statement)
            continue
        inner = split_statements(statement.inline, source, statement.line + 1)
        if any(part.inline is not None for part in inner):
            raise _error("a block within `<connection>`", source, statement.line, "connection")
        own = {part.name: part for part in inner if part.name in ("port", "rport", "proto")}
        for part in inner:
            if part.name == "remote" and len(part.words) > 1:
                port = own.get("rport") or own.get("port")
                words = [*part.words[:3]]
                if len(words) < 3:
                    words.append(port.arguments[0] if port and port.arguments else "1194")
                protocol = own.get("proto")
                if len(part.words) > 3:
                    words.append(part.words[3])
                elif protocol and protocol.arguments:
                    words.append(protocol.arguments[0])
                result.append(Statement(tuple(words), part.line))
            elif part.name not in own:
                result.append(part)
    return result


def _take(draft: Draft, statement: Statement, ignorable: set[str]) -> None:
    """One statement into the draft; raises Refusal."""
    name = statement.name
    if name == "setenv":
        _take_setenv(draft, statement, ignorable)
    elif name in MAPPERS:
        if statement.inline is not None and name not in INLINE:
            raise Refusal("cannot be written as a block")
        MAPPERS[name](draft, statement)
    elif name in ACCEPTED:
        pass
    elif name in WARNED:
        draft.note(statement, WARNED[name])
    elif name in REFUSED:
        raise Refusal(REFUSED[name])
    elif (treatment := treatment_by_prefix(name)) is not None:
        if treatment[0] == "refuse":
            raise Refusal(treatment[1])
        draft.note(statement, treatment[1])
    elif name in ignorable:
        draft.note(statement, "unknown, and ignored as `ignore-unknown-option` asks")
    else:
        raise Refusal(_unknown(name))


def _take_setenv(draft: Draft, statement: Statement, ignorable: set[str]) -> None:
    """`setenv opt DIRECTIVE …` is a directive that may be unknown; other variables have no effect."""
    if len(statement.words) < 3 or statement.words[1] != "opt":
        return
    inner = Statement(statement.words[2:], statement.line)
    if inner.name == "setenv":
        return
    _take(draft, inner, ignorable | {inner.name})


def _unknown(name: str) -> str:
    known = [*MAPPERS, *ACCEPTED, *WARNED, *REFUSED]
    close = get_close_matches(name[:64], known, n=1)
    hint = f"; did you mean `{close[0]}`?" if close else ""
    return (
        f"no directive of OpenVPN that is known here{hint} (to skip it, write "
        "`ignore-unknown-option NAME` above it)"
    )


def _complete(draft: Draft, source: str) -> list[ConfigurationError]:
    """Settle what depends on several lines; what is missing or does not fit together."""
    errors: list[ConfigurationError] = []
    try:
        _settle_digest(draft)
    except Refusal as refusal:
        errors.append(_error(str(refusal), source, draft.digest[0] if draft.digest else None, "auth"))
    errors.extend(_settle_device(draft, source))
    errors.extend(_settle_remotes(draft, source))
    errors.extend(_settle_identity(draft.profile, source))
    if not draft.is_client or not draft.pulls:
        reason = "no `client` in it; point-to-point links without `client` are not supported by this version"
        errors.append(_error(reason, source, None, "client"))
    _settle_keepalive(draft.profile)
    return errors


def _settle_digest(draft: Draft) -> None:
    if draft.profile.wrap != "tls-auth" or draft.digest is None:
        return
    name = draft.digest[1]
    if name not in DIGESTS:
        raise Refusal(f"{name} cannot be used with tls-auth; the server must use one of {', '.join(DIGESTS)}")
    draft.profile.wrap_digest = name


def _settle_device(draft: Draft, source: str) -> list[ConfigurationError]:
    if draft.device_type != "tap":
        reason = "layer 3 (tun); a bridge needs `dev tap` at both ends"
        if draft.device_line is None:
            reason = "missing; a bridge needs `dev tap`"
        elif draft.device_type is None:
            reason = "neither tap nor tun by its name; add `dev-type tap`"
        return [_error(reason, source, draft.device_line, "dev")]
    draft.profile.tap_name = draft.device_name
    return []


def _settle_remotes(draft: Draft, source: str) -> list[ConfigurationError]:
    profile = draft.profile
    if not draft.remotes:
        return [_error("missing: which server?", source, None, "remote")]
    if len(draft.remotes) > REMOTES_MAX:
        return [_error(f"more than {REMOTES_MAX} servers", source, draft.remotes[REMOTES_MAX].line, "remote")]
    for remote in draft.remotes:
        if (remote.protocol or draft.protocol).startswith("tcp"):
            text = f"`remote`: {remote.host} is left out: only UDP is supported by this version"
            profile.notices.append(Notice(remote.line, text))
        else:
            profile.remotes.append(Endpoint.of(remote.host, remote.port or draft.remote_port))
    if not profile.remotes:
        reason = "only TCP, which this version cannot use; ask the server's owner for a UDP port"
        return [_error(reason, source, draft.remotes[0].line, "remote")]
    if draft.binds and (draft.local_host is not None or draft.local_port is not None):
        profile.local = Endpoint.of(draft.local_host or "::", draft.local_port or draft.remote_port)
    return []


def _settle_identity(profile: Profile, source: str) -> list[ConfigurationError]:
    missing = []
    if profile.certificate is None:
        missing.append(("cert", "missing: the client's certificate"))
    if profile.key is None:
        missing.append(("key", "missing: the client's private key"))
    if profile.ca is None and not profile.peer_fingerprints:
        missing.append(("ca", "missing: the certificate of the server's CA (or `peer-fingerprint`)"))
    if profile.ca is None and profile.crl is not None:
        missing.append(("crl-verify", "needs the `ca` that signed the list"))
    return [_error(reason, source, None, name) for name, reason in missing]


def _settle_keepalive(profile: Profile) -> None:
    ping, restart = profile.ping_seconds, profile.restart_seconds
    if ping and restart and restart < 2 * ping:
        profile.restart_seconds = 2 * ping
        profile.notices.append(
            Notice(0, f"`ping-restart`: {2 * ping} is used in place of {restart} (at least two pings)")
        )


def _error(reason: str, source: str, line: int | None, key: str) -> ConfigurationError:
    return ConfigurationError(reason, file=source, line=line, key=key[:64], code="profile")
