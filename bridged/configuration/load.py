"""Reads, parses, merges, validates and cross-checks the configuration's files. Every error has its line.

Reads the file and its drop-ins; `parse` is pure.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from bridged.configuration.check import find_conflicts, is_inline
from bridged.configuration.document import (
    NODES_MAX,
    TEXT_CHARACTERS_MAX,
    KeyPath,
    MappingNode,
    descend,
    parse_document,
    plain,
)
from bridged.configuration.drop_ins import Lines, find_drop_ins, merge_nodes, merge_values
from bridged.configuration.problems import error_at, from_validation, sorted_errors
from bridged.configuration.schema import Admin, Configuration
from bridged.errors import ConfigurationError, ConfigurationErrors
from bridged.files import open_to_read, why_unreadable

_PROFILE: Final = (
    "is an OpenVPN profile, not a configuration; convert it: "
    "`bridged join FILE --bridge br0 --port eth1 --output client.yaml`"
)
_PROFILE_LINE: Final = re.compile(
    r"[ \t]*(client|dev[ \t]+t[au][pn]\S*|proto[ \t]+\w+|remote[ \t]+\S+.*|persist-\w+"
    r"|<(ca|cert|key|connection)>)[ \t]*\r?$",
    re.MULTILINE,
)
CREDENTIAL: Final = "credential:"
"""Begins a value that names a credential of the service manager instead of a file."""
_SECTIONS: Final = frozenset({"bridges", "tunnels"})
_TRUST: Final = {
    "tls": ("ca", "certificate", "key", "crl"),
    "wrap": ("key", "old_clients_key"),
    "login": ("password", "totp_secret"),
    "proxy": ("credentials_file",),
}


def load(path: Path) -> Configuration:
    """Read the configuration at `path`, and its drop-ins. Relative paths start from the folder of their file.

    Raises:
        ConfigurationErrors: a file cannot be read; or all errors in them.
    """
    return _build(load_merged(path))


def load_admin(path: Path) -> tuple[Admin, Path]:
    """`admin` and `state_directory` of the file at `path`, even if other parts of it are wrong.

    Raises:
        ConfigurationErrors: all errors of a file in which these two cannot be read.
    """
    texts = _read_all(path)
    try:
        configuration = _build(_merge(texts))
        return configuration.admin, configuration.state_directory
    except ConfigurationErrors:
        found = _admin_alone(texts)
        if found is None:
            raise
        return found


def _admin_alone(texts: Sequence[tuple[Path, str]]) -> tuple[Admin, Path] | None:
    data: dict[str, Any] = {}
    try:
        for file, text in texts:
            root = parse_document(text) if _has_content(text) else MappingNode(1)
            if not isinstance(root, MappingNode):
                return None
            values = plain(root)
            _resolve_paths(values, file.parent)
            data = merge_values(data, values)
        if not _SECTIONS.intersection(data):
            return None
        state = data.get("state_directory", Configuration.model_fields["state_directory"].default)
        return Admin.model_validate(data.get("admin") or {}), TypeAdapter(Path).validate_python(state)
    except (ConfigurationError, ValidationError):
        return None


def _read_all(path: Path) -> list[tuple[Path, str]]:
    return [(path, _read(path)), *((file, _read(file)) for file in find_drop_ins(path))]


def _read(path: Path) -> str:
    try:
        with open_to_read(path) as stream:
            content = stream.read(TEXT_CHARACTERS_MAX * 4 + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise _whole_file(f"cannot be read: {why_unreadable(path, error)}", path) from None
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        reason = "not UTF-8 text; save it as UTF-8, or `iconv -f ISO-8859-1 -t UTF-8 OLD > NEW`"
        if content.startswith((b"\xff\xfe", b"\xfe\xff")):
            reason = "UTF-16 text; save it as UTF-8, or `iconv -f UTF-16 -t UTF-8 OLD > NEW`"
        raise ConfigurationErrors([ConfigurationError(reason, file=path, line=line)]) from None


@dataclass(frozen=True, slots=True)
class Merged:
    """The tree of all files. `data`: its plain values, with absolute paths. `lines`: whose each line is."""

    root: MappingNode
    data: dict[str, Any]
    lines: Lines

    def file_at(self, path: KeyPath) -> Path:
        """The file that has the value at `path`."""
        line = self.root.line
        for _, step_line, _ in descend(self.root, path):
            line = step_line
        return self.lines.place(line)[0]


def load_merged(path: Path) -> Merged:
    """The file at `path` with its drop-ins, merged but not checked.

    Raises:
        ConfigurationErrors: a file cannot be read or is no YAML; the first error of each.
    """
    return _merge(_read_all(path))


def parse(text: str, file: Path) -> Configuration:
    """Build the configuration from YAML `text`. `file` appears in messages and anchors relative paths.

    Raises:
        ConfigurationErrors: all errors in the text.
    """
    return _build(_merge([(file, text)]))


def _merge(texts: Sequence[tuple[Path, str]]) -> Merged:
    """The first text with all others, its drop-ins, over it."""
    lines = Lines()
    root: MappingNode | None = None
    data: dict[str, Any] = {}
    errors: list[ConfigurationError] = []
    for file, text in texts:
        before = lines.add(file, text)
        if len(texts) > 1 and not _has_content(text):
            continue
        try:
            tree = _tree(text, file, before)
        except ConfigurationErrors as error:
            errors += error.errors
            continue
        values = plain(tree)
        _resolve_paths(values, file.parent)
        data = merge_values(data, values)
        root = tree if root is None else merge_nodes(root, tree)
        if root.size > NODES_MAX:
            raise _whole_file(f"more than {NODES_MAX} values in all files together", file)
    if errors:
        raise ConfigurationErrors(errors)
    if root is None:
        raise _whole_file("the file is empty, and so are its drop-ins", texts[0][0])
    return Merged(root, data, lines)


def _tree(text: str, file: Path, lines_before: int) -> MappingNode:
    try:
        root = parse_document(text, lines_before)
    except ConfigurationError as error:
        if _is_profile(text):
            raise _whole_file(_PROFILE, file) from None
        found = ConfigurationError(error.reason, file=file, line=error.line, key=error.key)
        raise ConfigurationErrors([found]) from None
    if not isinstance(root, MappingNode):
        wrong = _PROFILE if _is_profile(text) else "the file must have the sections `bridges:` and `tunnels:`"
        raise _whole_file(wrong, file)
    return root


def _has_content(text: str) -> bool:
    """Whether a line is more than a comment."""
    return any(line.strip() and not line.lstrip().startswith("#") for line in text.splitlines())


def _build(merged: Merged) -> Configuration:
    root = merged.root
    try:
        configuration = Configuration.model_validate(merged.data)
    except ValidationError as error:
        details = error.errors(include_url=False)
        raise _placed(from_validation(root, details, Path()).errors, merged) from None
    conflicts = find_conflicts(configuration)
    if conflicts:
        found = sorted_errors([error_at(root, path, reason, Path()) for path, reason in conflicts])
        raise _placed(found.errors, merged)
    configuration._inline_files = {
        path: merged.file_at(path) for path, value in _trust_values(merged.data) if is_inline(value)
    }
    return configuration


def _placed(errors: Sequence[ConfigurationError], merged: Merged) -> ConfigurationErrors:
    return ConfigurationErrors([merged.lines.placed(error) for error in errors])


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
    _anchor(data.get("metrics"), "web_config_file", folder)
    tunnels = data.get("tunnels")
    for tunnel in tunnels.values() if isinstance(tunnels, dict) else ():
        _anchor(tunnel.get("status") if isinstance(tunnel, dict) else None, "file", folder)
        asking = tunnel.get("authentication") if isinstance(tunnel, dict) else None
        _anchor(asking, "password_file", folder)
    for (_, name, section, key), _ in list(_trust_values(data)):
        _anchor(data["tunnels"][name][section], str(key), folder)


def _trust_values(data: dict[str, Any]) -> Iterator[tuple[KeyPath, str]]:
    """Path and value of all certificates and keys, given as text or as path."""
    tunnels = data.get("tunnels")
    for name, tunnel in tunnels.items() if isinstance(tunnels, dict) else ():
        if not isinstance(tunnel, dict):
            continue
        for section, keys in _TRUST.items():
            values = tunnel.get(section)
            if isinstance(values, dict):
                for key in keys:
                    if isinstance(values.get(key), str):
                        yield ("tunnels", name, section, key), values[key]


def _anchor(section: Any, key: str, folder: Path) -> None:
    if not isinstance(section, dict):
        return
    value = section.get(key)
    if isinstance(value, str) and value and not is_inline(value):
        section[key] = str(anchored(value, folder))


def anchored(value: str, folder: Path) -> Path:
    """The path of a file in the configuration: `credential:NAME`, or relative to `folder`."""
    name = value.removeprefix(CREDENTIAL)
    is_credential = name != value and bool(name) and "/" not in name
    return (credentials_folder() / name if is_credential else folder / value).absolute()


def credentials_folder() -> Path:
    """Where the service manager puts what LoadCredential= names; outside the service: where systemd does."""
    return Path(os.environ.get("CREDENTIALS_DIRECTORY", "/run/credentials/bridged.service"))
