"""Reads a client's OpenVPN profile.

Source: docs/protocol/data.md#7.
Pure: text in, `Profile` out. Files that the profile names are not read here.
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import Final

from bridged.errors import ConfigurationError, ConfigurationErrors
from bridged.profiles.connections import REMOTES_MAX, settle_connections
from bridged.profiles.draft import Draft, Refusal
from bridged.profiles.mapping_trust import DIGESTS
from bridged.profiles.profile import Material, Notice, Profile
from bridged.profiles.statements import Statement, split_statements
from bridged.profiles.table import DIRECTIVES, find_directive

_ERRORS_MAX: Final = 50
_CONFIGURATION: Final = re.compile(r"^(tunnels|bridges):", re.MULTILINE)
_SETENV_DEPTH_MAX: Final = 1
# No line of a key: Base64 has capitals, and lines of a static key have 32 characters.
_DIRECTIVE: Final = re.compile(r"[a-z][a-z0-9_-]{0,30}")


def parse_profile(text: str, source: str) -> Profile:
    """Read a profile; `source` names the file in errors.

    `Profile.notices` has what does nothing here, or not the same as in OpenVPN.

    Raises:
        ConfigurationErrors: all that is wrong or not supported, each with file, line, reason and what to do.
    """
    draft = Draft()
    errors: list[ConfigurationError] = []
    try:
        if _CONFIGURATION.search(text):
            reason = (
                "is a configuration of bridged, not an OpenVPN profile; `bridged run --config FILE` starts it"
            )
            raise ConfigurationError(reason, file=source, code="profile")
        statements = split_statements(text, source)
        if not any(find_directive(statement.name) for statement in statements):
            reason = "has no directive of OpenVPN; is it a profile?" if text.strip() else "the file is empty"
            raise ConfigurationError(reason, file=source, code="profile")
        draft.ignorable = {
            word
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
                errors.append(_error(str(refusal), source, statement.line, _quotable(statement.name)))
            if len(errors) >= _ERRORS_MAX:
                break
    except ConfigurationError as error:
        raise ConfigurationErrors([error]) from None
    errors.extend(_complete(draft, source))
    if errors:
        raise ConfigurationErrors(sorted(errors, key=lambda error: error.line or 1 << 30))
    draft.profile.notices.sort(key=lambda notice: notice.line)
    return draft.profile


def _take_block(draft: Draft, statement: Statement, source: str) -> None:
    """Take a `<connection>` block. Its options apply to it alone; mistakes count only if it is used."""
    assert statement.inline is not None
    block = draft.general.for_block(statement.line)
    draft.blocks.append(block)
    if len(draft.blocks) > REMOTES_MAX:
        raise _error(f"more than {REMOTES_MAX} blocks", source, statement.line, "connection")
    draft.connection = block
    try:
        for part in split_statements(statement.inline, source, statement.line + 1):
            try:
                known = find_directive(part.name)
                if known is not None and not known.is_of_connection and part.name != "setenv":
                    raise Refusal("cannot stand in `<connection>`; move the line above the blocks")
                _take(draft, part)
            except Refusal as refusal:
                block.refusals.append((part.line, _quotable(part.name), str(refusal)))
                if len(block.refusals) >= _ERRORS_MAX:
                    break
    finally:
        draft.connection = draft.general


def _take(draft: Draft, statement: Statement, depth: int = 0) -> None:
    """Take one statement into the draft; raises Refusal."""
    name = statement.name
    if name == "setenv":
        _take_setenv(draft, statement, depth)
        return
    known = find_directive(name)
    if known is None:
        if name in draft.ignorable:
            draft.note(statement, "unknown, and ignored as `ignore-unknown-option` asks")
        elif draft.is_forward_compatible:
            draft.note(statement, "unknown, and ignored as `setenv FORWARD_COMPATIBLE 1` asks")
        else:
            raise Refusal(_unknown(name))
    elif known.kind == "refused":
        raise Refusal(known.text)
    elif known.kind == "noted":
        draft.note(statement, known.text)
    elif known.mapper is not None:
        if statement.inline is not None and not known.is_block:
            raise Refusal("cannot be written as a block")
        known.mapper(draft, statement)
    elif name == "connection":
        raise Refusal("is a block: write `<connection>`, its lines, and `</connection>`")


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
    if find_directive(inner.name) is None:
        draft.note(inner, "unknown, and ignored as `setenv opt` asks")
    else:
        _take(draft, inner, depth + 1)


def _quotable(name: str) -> str:
    """`name` if it can be a directive. Empty if it may be a line of a key outside of its block."""
    return name if _DIRECTIVE.fullmatch(name) or _alike(name) else ""


def _alike(name: str) -> list[str]:
    return get_close_matches(name[:64], DIRECTIVES, n=1, cutoff=0.8)


def _unknown(name: str) -> str:
    close = _alike(name)
    hint = f" (did you mean `{close[0]}`?)" if close else ""
    return f"is no directive of OpenVPN{hint}; to skip it, write `ignore-unknown-option NAME` above it"


def _complete(draft: Draft, source: str) -> list[ConfigurationError]:
    """Decide what depends on several lines. Returns what is missing or contradictory."""
    errors = [
        _error(f"`[inline]` needs a block `<{name}>`; the file has none", source, line, name)
        for name, line in draft.markers.items()
        if name not in draft.inlined
    ]
    errors.extend(_settle_device(draft, source))
    errors.extend(settle_connections(draft, source))
    try:
        _settle_digest(draft)
    except Refusal as refusal:
        errors.append(_error(str(refusal), source, draft.digest[0] if draft.digest else None, "auth"))
    errors.extend(_settle_identity(draft, source))
    if not draft.is_client or not draft.pulls:
        reason = (
            "`client` is missing; point-to-point links without `client` are not supported by this version"
        )
        errors.append(_error(reason, source, None, "client"))
    _settle_peer_role(draft)
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


def _settle_identity(draft: Draft, source: str) -> list[ConfigurationError]:
    profile = draft.profile
    # Markers without a block were reported already. A PKCS#12 file may hold all three.
    absent: dict[str, Material | None] = {
        "cert": profile.certificate or profile.pkcs12,
        "key": profile.key or profile.pkcs12,
        "ca": profile.ca or profile.pkcs12,
    }
    texts = {
        "cert": "missing: the client's certificate",
        "key": "missing: the client's private key",
        "ca": "missing: the certificate of the server's CA (or `peer-fingerprint`)",
    }
    missing = [
        (name, texts[name])
        for name, found in absent.items()
        if found is None and name not in draft.markers and not (name == "ca" and profile.peer_fingerprints)
    ]
    if absent["ca"] is None and profile.crl is not None:
        missing.append(("crl-verify", "needs the `ca` that signed the list"))
    return [_error(reason, source, None, name) for name, reason in missing]


def _settle_peer_role(draft: Draft) -> None:
    """Say that bridged requires a server certificate, which OpenVPN does not without `remote-cert-tls`."""
    profile = draft.profile
    if profile.peer_role is None and not profile.peer_fingerprints:
        text = (
            "no `remote-cert-tls server`: bridged still requires a server certificate (extended key "
            "usage serverAuth). If the server's certificate lacks it, every handshake fails: have it "
            "renewed with `extendedKeyUsage = serverAuth`, or set `tls.peer_role: any` together with "
            "`tls.peer_name`"
        )
        profile.notices.append(Notice(0, text))


def _settle_keepalive(profile: Profile) -> None:
    ping, restart = profile.ping_seconds, profile.restart_seconds
    if ping and restart and restart < 2 * ping:
        profile.restart_seconds = 2 * ping
        profile.notices.append(
            Notice(0, f"`ping-restart`: {2 * ping} is used in place of {restart} (at least two pings)")
        )


def _error(reason: str, source: str, line: int | None, key: str) -> ConfigurationError:
    return ConfigurationError(reason, file=source, line=line, key=key[:64], code="profile")
