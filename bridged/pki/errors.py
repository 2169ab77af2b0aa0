"""The error of the embedded CA."""

from __future__ import annotations

from pathlib import Path

from bridged.errors import BridgedError
from bridged.files import closed_to_user, user_name


class PkiError(BridgedError):
    """The embedded CA cannot do what was asked; nothing was changed."""


def closed(path: Path) -> PkiError:
    """This user may not read a file of STATE/pki: somebody else made it, or brought it back from a backup."""
    state = next((one.parent for one in path.parents if one.name == "pki"), path.parent)
    text = f"{path}: {closed_to_user(path)}; as root: `chown -R {user_name()}: {state}`"
    return PkiError("pki_damaged", text)
