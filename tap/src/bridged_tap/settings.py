"""What an adapter shall look like: name, offloads, queues, ownership.

Source: Linux `Documentation/networking/tuntap.rst` and `include/uapi/linux/if_tun.h`.
Values and their checks; of the system only the user database is asked.
"""

from __future__ import annotations

import grp
import pwd
from dataclasses import dataclass
from enum import IntFlag
from typing import Final, Literal

from bridged_tap.addresses import MacAddress, check_unicast
from bridged_tap.errors import TapSettingsError

Mode = Literal["tap", "tun"]
"""`tap` carries Ethernet frames, `tun` IP packets."""

NAME_SIZE: Final = 15
"""IFNAMSIZ without its terminating zero."""

MTU_MINIMUM: Final = 68
MTU_MAXIMUM: Final = 65521
"""65535 less the 14 bytes of the Ethernet header: what the kernel takes for a TAP. A TUN takes 65535."""

QUEUES_MAXIMUM: Final = 256
"""MAX_TAP_QUEUES of the kernel."""

TXQUEUELEN_DEFAULT: Final = 4000
"""Frames that wait for `read`. The kernel's own default (500 or 1000) overflows under super-frames."""

_TXQUEUELEN_MAXIMUM: Final = 1 << 20
_ID_MAXIMUM: Final = 0xFFFFFFFE


class Offload(IntFlag):
    """Work that the kernel leaves to the reader of the adapter (TUN_F_*); needs the virtio-net header.

    `CSUM`: checksums may be incomplete. `TSO4`, `TSO6`, `USO4`, `USO6`: one read may give a super-frame of
    up to 64 KiB of TCP or UDP that is still to be cut into packets; `TSO_ECN`: also where ECN is in use.
    The kernel ties some together: all need `CSUM`, `TSO_ECN` needs `TSO4` or `TSO6`, and `USO4` and `USO6`
    go only as a pair (Linux 6.2 or later).
    """

    NONE = 0
    CSUM = 0x01
    TSO4 = 0x02
    TSO6 = 0x04
    TSO_ECN = 0x08
    USO4 = 0x20
    USO6 = 0x40


@dataclass(frozen=True, slots=True)
class AdapterSettings:
    """One adapter as it shall be; the fields are the arguments of `open_tap`. None leaves what is there.

    Raises:
        TapSettingsError: code `tap_settings`, with the field and what it may be; or `mac_address`.
    """

    name: str
    mode: Mode = "tap"
    persistent: bool = False
    mac: MacAddress | None = None
    mtu: int | None = None
    txqueuelen: int | None = TXQUEUELEN_DEFAULT
    owner: int | None = None
    group: int | None = None
    virtio_header: bool = False
    offloads: Offload = Offload.NONE
    queues: int = 1
    lock: bool = True

    def __post_init__(self) -> None:
        check_name(self.name, pattern=True)
        if self.mac is not None:
            check_unicast(self.mac)
        check_mtu(self.mtu, self.mode)
        check_range("txqueuelen", self.txqueuelen, 1, _TXQUEUELEN_MAXIMUM)
        check_range("owner", self.owner, 0, _ID_MAXIMUM)
        check_range("group", self.group, 0, _ID_MAXIMUM)
        check_range("queues", self.queues, 1, QUEUES_MAXIMUM)
        if self.offloads and not self.virtio_header:
            raise _refused("offloads need the virtio-net header: set virtio_header=True or drop them")

    @property
    def has_pattern(self) -> bool:
        """The kernel chooses the number in the name."""
        return "%d" in self.name


def check_name(name: str, *, pattern: bool = False) -> None:
    """Hold a link name against the kernel's own rules; `pattern` also allows one `%d`.

    Raises:
        TapSettingsError: code `tap_settings`.
    """
    bare = name.replace("%d", "0", 1) if pattern else name
    if not name or len(name.encode(errors="surrogatepass")) > NAME_SIZE:
        raise _refused(f"adapter name {name!r} must have 1 to {NAME_SIZE} bytes")
    if bare in {".", ".."} or any(c in "/:%" or c.isspace() or not c.isprintable() for c in bare):
        raise _refused(
            f"adapter name {name!r}: no '/', ':', '%', blanks or control characters"
            + (" (one %d is allowed)" if pattern else "")
        )


def check_mtu(mtu: int | None, mode: Mode) -> None:
    """Refuse an MTU that the kernel does not take; None passes.

    Raises:
        TapSettingsError: code `tap_settings`.
    """
    check_range("mtu", mtu, MTU_MINIMUM, MTU_MAXIMUM + (14 if mode == "tun" else 0))


def check_range(field: str, value: int | None, low: int, high: int) -> None:
    """Refuse a number outside low..high; None passes.

    Raises:
        TapSettingsError: code `tap_settings`.
    """
    if value is not None and not low <= value <= high:
        raise _refused(f"{field} is {value}; it must be from {low} to {high}")


def user_id(user: int | str | None) -> int | None:
    """The number of a user, given by number or name.

    Raises:
        TapSettingsError: code `tap_settings`; there is no such user.
    """
    if not isinstance(user, str):
        return user
    if user.isascii() and user.isdigit():
        return int(user)
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError as error:
        raise _refused(f"there is no user {user!r}; give a user name or number") from error


def group_id(group: int | str | None) -> int | None:
    """The number of a group, given by number or name.

    Raises:
        TapSettingsError: code `tap_settings`; there is no such group.
    """
    if not isinstance(group, str):
        return group
    if group.isascii() and group.isdigit():
        return int(group)
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError as error:
        raise _refused(f"there is no group {group!r}; give a group name or number") from error


def _refused(reason: str) -> TapSettingsError:
    return TapSettingsError("tap_settings", reason)
