"""Lets only one daemon keep a bridge: two would undo each other's work.

The lock is that of adapters (bridged_tap/lock.py) under another name: it ends with its process.
"""

from __future__ import annotations

from typing import Final

from bridged.errors import ConfigurationError
from bridged_tap import AdapterLock, AdapterLockedError, find_lock_holder, lock_adapter

_PREFIX: Final = "bridged/bridge/"


def lock_bridge(name: str) -> AdapterLock:
    """Take the lock of a bridge in this network namespace.

    Raises:
        ConfigurationError: `bridge_taken`; another daemon keeps it.
        TapError: `tap_lock`; the system forbids such locks.
    """
    try:
        return lock_adapter(name, prefix=_PREFIX)
    except AdapterLockedError as error:
        who = f"process {error.holder_pid} ({error.holder_command})" if error.holder_pid else "another daemon"
        raise ConfigurationError(
            f"{name} is kept by {who}. Put all tunnels of a bridge into one configuration, or name another "
            "bridge here",
            key=f"bridges.{name}",
            code="bridge_taken",
        ) from None


def is_kept_by_another(name: str) -> bool:
    """Whether a running daemon has the lock of this bridge. Not for bridges of this process."""
    return find_lock_holder(name, prefix=_PREFIX) is not None
