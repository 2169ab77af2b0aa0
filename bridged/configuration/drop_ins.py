"""Drop-ins: files that are merged over the configuration, in the order of their names.

They are `conf.d/*.yaml` beside a file named bridged.yaml, and `NAME.d/*.yaml` beside any other NAME.yaml.
Mappings are merged key by key; any other value, lists too, replaces the one of an earlier file. The lines of
all files are counted through, so that a value of the merged tree still leads to its file and line.
"""

from __future__ import annotations

import stat
from bisect import bisect_right
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bridged.configuration.document import MappingNode
from bridged.errors import ConfigurationError, ConfigurationErrors
from bridged.files import closed_to_user, user_name

DROP_INS_MAX: Final = 200
MAIN_NAME: Final = "bridged.yaml"
DROP_INS: Final = "conf.d"
"""The folder beside it."""
_ALIKE: Final = (".yml", ".YAML", ".YML", ".conf")


def find_drop_ins(file: Path) -> list[Path]:
    """The drop-ins of the configuration at `file`, sorted by name. Hidden files do not count.

    Raises:
        ConfigurationErrors: the folder cannot be read, or has more than DROP_INS_MAX of them.
    """
    folder = _folder_of(file)
    try:
        found = [one for one in folder.iterdir() if one.suffix == ".yaml" and not one.name.startswith(".")]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except ValueError:  # a NUL in the path, which reading the file reports
        return []
    except OSError as error:
        reason = f"cannot be read: {error.strerror or error}"
        if isinstance(error, PermissionError):
            reason = f"{closed_to_user(folder)}; `chgrp {user_name()} {folder}` and `chmod 750 {folder}`"
        raise ConfigurationErrors([ConfigurationError(reason, file=folder)]) from None
    if len(found) > DROP_INS_MAX:
        reason = f"has {len(found)} files; at most {DROP_INS_MAX} are read: join some of them"
        raise ConfigurationErrors([ConfigurationError(reason, file=folder)])
    return sorted(found)


def find_unread(file: Path) -> list[Path]:
    """Files beside the drop-ins that are none because of their ending, though somebody may think so."""
    try:
        return sorted(one for one in _folder_of(file).iterdir() if one.suffix in _ALIKE)
    except (OSError, ValueError):
        return []


def find_writable(file: Path) -> list[Path]:
    """Which of the configuration's files everybody may write."""
    files = [file, *find_drop_ins(file)]
    return [one for one in files if one.is_file() and one.stat().st_mode & stat.S_IWOTH]


def _folder_of(file: Path) -> Path:
    return file.parent / (DROP_INS if file.name == MAIN_NAME else f"{file.stem}.d")


def merge_nodes(below: MappingNode, above: MappingNode) -> MappingNode:
    """`above` merged over `below`; neither is changed."""
    entries = dict(below.entries)
    for key, (line, value) in above.entries.items():
        known = entries[key][1] if key in entries else None
        if isinstance(known, MappingNode) and isinstance(value, MappingNode):
            value = merge_nodes(known, value)
        entries[key] = (line, value)
    return MappingNode(below.line, below.size + above.size, max(below.depth, above.depth), entries)


def merge_values(below: Any, above: Any) -> Any:
    """The same for plain values."""
    if not isinstance(below, dict) or not isinstance(above, dict):
        return above
    merged = dict(below)
    for key, value in above.items():
        merged[key] = merge_values(merged[key], value) if key in merged else value
    return merged


@dataclass(slots=True)
class Lines:
    """The lines of several files, counted through: 1 is the first line of the first file."""

    _starts: list[int] = field(default_factory=list)
    _files: list[Path] = field(default_factory=list)
    _count: int = 0

    def add(self, file: Path, text: str) -> int:
        """Append a file; how many lines come before it."""
        before = self._count
        self._starts.append(before)
        self._files.append(file)
        # One more than it has: an error may point behind the last line.
        self._count += text.count("\n") + 2
        return before

    def place(self, line: int) -> tuple[Path, int]:
        """File and line of a line counted through."""
        index = max(0, bisect_right(self._starts, line - 1) - 1)
        return self._files[index], line - self._starts[index]

    def placed(self, error: ConfigurationError) -> ConfigurationError:
        """The error with its file and the line in it. Without a line, it is about the first file."""
        file, line = (self._files[0], None) if error.line is None else self.place(error.line)
        return ConfigurationError(error.reason, file=file, line=line, key=error.key, code=error.code)
