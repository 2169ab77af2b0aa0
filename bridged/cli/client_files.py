"""The folder of `client-config-dir`: says what its files would do, which this version cannot."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from bridged.cli.materials import read_octets
from bridged.errors import ConfigurationError

_FILES_MAX: Final = 1000
_SHOWN: Final = 20


def read_client_files(folder: Path) -> list[str]:
    """One remark for each client whose file says something; none if there is no folder.

    Raises:
        ConfigurationError: a file bars its client, which could connect from now on; or one is cut off.
    """
    from bridged.profiles.statements import split_statements
    from bridged.profiles.text import decode_text

    try:
        files = sorted(path for path in folder.iterdir() if path.is_file())
    except OSError:
        return []
    remarks: list[str] = []
    for path in files[:_FILES_MAX]:
        statements = split_statements(decode_text(read_octets(path), str(path)), str(path))
        for statement in statements:
            if statement.name == "disable":
                reason = (
                    "bars this client, which this version cannot do; revoke its certificate (`crl-verify`), "
                    "then remove the file"
                )
                raise ConfigurationError(
                    reason, file=path, line=statement.line, key="disable", code="profile"
                )
        names = ", ".join(dict.fromkeys(f"`{statement.name}`" for statement in statements))
        if names:
            remarks.append(f"{path.name}: {names} not needed or not possible here; set it at the client")
    more = len(remarks) - _SHOWN
    if more > 0:
        remarks = [*remarks[:_SHOWN], f"and {more} more files"]
    if (unread := len(files) - _FILES_MAX) > 0:
        remarks.append(
            f"{unread} further files, from {files[_FILES_MAX].name} on, were not looked at: "
            "`grep -rl disable` finds clients that are barred there, and could connect from now on"
        )
    return remarks
