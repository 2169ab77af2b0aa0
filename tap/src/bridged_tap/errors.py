"""What goes wrong, with a stable word for each kind of failure.

Every error is an `OSError`, as errors of sockets and files are: `except OSError` catches all of them, and
what the kernel said is in `errno`.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Any, Final

ERROR_CODES: Final = MappingProxyType(
    {
        "tap_settings": "An argument is out of range or does not fit the others.",
        "mac_address": "Not a MAC address, or one that no adapter can have (multicast, all zero).",
        "tap_unavailable": "/dev/net/tun is missing: load the driver, or give the container the device.",
        "tap_permission": "This user may not open /dev/net/tun or attach the adapter.",
        "tap_not_a_tap": "The name belongs to a TUN adapter or to another kind of link.",
        "tap_not_a_tun": "The name belongs to a TAP adapter or to another kind of link.",
        "tap_queues": "Several queues are wanted of a single-queue adapter, or one descriptor of several.",
        "tap_busy": "Another process has the single-queue adapter, and the lock is off.",
        "adapter_locked": "Another process has the adapter; the text names it.",
        "tap_exists": "A link of that name exists already.",
        "tap_missing": "There is no adapter of that name.",
        "tap_down": "The link is down; frames can be written only while it is up.",
        "tap_frame": "The kernel refuses this frame or packet: too short, or a wrong virtio-net header.",
        "tap_gone": "Somebody deleted the adapter while it was open.",
        "tap_closed": "This program has closed the adapter.",
        "tap_io": "The kernel refused another operation on the adapter; `errno` says why.",
        "tap_links": "The kernel did not list its links.",
        "tap_lock": "The system forbids the socket that the adapter lock is made of.",
        "mac_state": "A kept MAC address cannot be read or written.",
        "mac_machine_id": "The machine-id is missing or unusable.",
        "mac_exhausted": "Every address that was drawn is taken.",
    }
)
"""Every `code`, and what it means."""


class TapError(OSError):
    """Base of all errors of this library.

    `code` is a stable word of `ERROR_CODES`; `message` is for people and may change. `errno` is the kernel's
    error number, or None where the kernel was not asked.
    """

    def __init__(self, code: str, message: str, number: int | None = None) -> None:
        super().__init__(number, message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.code, self.message, self.errno)


class TapSettingsError(TapError, ValueError):
    """An argument is wrong: code `tap_settings` or `mac_address`. Also a `ValueError`."""


class AdapterLockedError(TapError):
    """Another process has the adapter.

    `holder_pid` and `holder_command` name it; they are None where it cannot be seen from here.
    """

    def __init__(self, adapter: str, holder_pid: int | None, holder_command: str | None) -> None:
        self.adapter = adapter
        self.holder_pid = holder_pid
        self.holder_command = holder_command
        holder = (
            f"process {holder_pid} ({holder_command or 'unknown command'})"
            if holder_pid
            else "another process"
        )
        super().__init__(
            "adapter_locked",
            f"adapter {adapter} is held by {holder}; stop that process, or choose another name",
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.adapter, self.holder_pid, self.holder_command)
