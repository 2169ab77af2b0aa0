"""Reads, parses, validates and cross-checks the configuration file. Every error has its line.

Reads that one file; `parse` is pure.
"""

from __future__ import annotations

import re
from itertools import islice
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from bridged.configuration.check import find_conflicts, is_inline
from bridged.configuration.document import TEXT_CHARACTERS_MAX, MappingNode, Node, parse_document, plain
from bridged.configuration.problems import error_at, from_validation, sorted_errors
from bridged.configuration.schema import Admin, Configuration
from bridged.errors import ConfigurationError, ConfigurationErrors

_PROFILE: Final = (
    "is an OpenVPN profile, not a configuration; convert it: "
    "`bridged join FILE --bridge br0 --port eth1 --output client.yaml`"
)
_PROFILE_LINE: Final = re.compile(
    r"[ \t]*(client|dev[ \t]+t[au][pn]\S*|proto[ \t]+\w+|remote[ \t]+\S+.*|persist-\w+"
    r"|<(ca|cert|key|connection)>)[ \t]*\r?$",
    re.MULTILINE,
)
_SECTIONS: Final = frozenset({"bridges", "tunnels"})
_TLS_FILES: Final = ("ca", "certificate", "key", "crl")


def load(path: Path) -> Configuration:
    """Read the configuration at `path`. Relative paths in it start from its folder.

    Raises:
        ConfigurationErrors: the file cannot be read; or all errors in it.
    """
    return parse(_read(path), path)


def load_admin(path: Path) -> tuple[Admin, Path]:
    """`admin` and `state_directory` of the file at `path`, even if other parts of it are wrong.

    Raises:
        ConfigurationErrors: all errors of a file in which these two cannot be read.
    """
    text = _read(path)
    try:
        configuration = parse(text, path)
        return configuration.admin, configuration.state_directory
    except ConfigurationErrors:
        found = _admin_alone(text, path.parent)
        if found is None:
            raise
        return found


def _admin_alone(text: str, folder: Path) -> tuple[Admin, Path] | None:
    try:
        root = parse_document(text)
        if not isinstance(root, MappingNode) or not _SECTIONS.intersection(root.entries):
            return None
        data = plain(root)
        _resolve_paths(data, folder)
        state = data.get("state_directory", Configuration.model_fields["state_directory"].default)
        return Admin.model_validate(data.get("admin") or {}), TypeAdapter(Path).validate_python(state)
    except (ConfigurationError, ValidationError):
        return None


def _read(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            content = stream.read(TEXT_CHARACTERS_MAX * 4 + 1)
    except OSError as error:
        raise _whole_file(f"cannot be read: {error.strerror or error}", path) from None
    except ValueError as error:  # a NUL in the path
        raise _whole_file(f"cannot be read: {error}", path) from None
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        reason = "not UTF-8 text; save it as UTF-8, or `iconv -f ISO-8859-1 -t UTF-8 OLD > NEW`"
        if content.startswith((b"\xff\xfe", b"\xfe\xff")):
            reason = "UTF-16 text; save it as UTF-8, or `iconv -f UTF-16 -t UTF-8 OLD > NEW`"
        raise ConfigurationErrors([ConfigurationError(reason, file=path, line=line)]) from None


def parse(text: str, file: Path) -> Configuration:
    """Build the configuration from YAML `text`. `file` appears in messages and anchors relative paths.

    Raises:
        ConfigurationErrors: all errors in the text.
    """
    try:
        root = parse_document(text)
    except ConfigurationError as error:
        if _is_profile(text):
            raise _whole_file(_PROFILE, file) from None
        found = ConfigurationError(error.reason, file=file, line=error.line, key=error.key)
        raise ConfigurationErrors([found]) from None
    if not isinstance(root, MappingNode):
        wrong = _PROFILE if _is_profile(text) else "the file must have the sections `bridges:` and `tunnels:`"
        raise _whole_file(wrong, file)
    data = plain(root)
    _resolve_paths(data, file.parent)
    try:
        configuration = Configuration.model_validate(data)
    except ValidationError as error:
        details = error.errors(include_url=False)
        raise from_validation(root, details, file) from None
    configuration._source = file
    return _without_conflicts(configuration, root, file)


def _without_conflicts(configuration: Configuration, root: Node, file: Path) -> Configuration:
    conflicts = find_conflicts(configuration)
    if conflicts:
        raise sorted_errors([error_at(root, path, reason, file) for path, reason in conflicts])
    return configuration


def _is_profile(text: str) -> bool:
    """Whether at least two different lines occur only in OpenVPN's files."""
    found = {match.group().split()[0] for match in islice(_PROFILE_LINE.finditer(text), 100)}
    return len(found) > 1


def _whole_file(reason: str, file: Path) -> ConfigurationErrors:
    return ConfigurationErrors([ConfigurationError(reason, file=file)])


def _resolve_paths(data: dict[str, Any], folder: Path) -> None:
    """Make the file's paths absolute, before validation; values that are not text stay."""
    _anchor(data, "state_directory", folder)
    _anchor(data.get("admin"), "socket", folder)
    _anchor(data.get("metrics"), "bearer_token_file", folder)
    tunnels = data.get("tunnels")
    for tunnel in tunnels.values() if isinstance(tunnels, dict) else ():
        if isinstance(tunnel, dict):
            for name in _TLS_FILES:
                _anchor(tunnel.get("tls"), name, folder)
            _anchor(tunnel.get("wrap"), "key", folder)


def _anchor(section: Any, key: str, folder: Path) -> None:
    if not isinstance(section, dict):
        return
    value = section.get(key)
    if isinstance(value, str) and value and not is_inline(value):
        section[key] = str((folder / value).absolute())
