"""What a TAP adapter shall look like: name, offloads, queues, ownership.

Source: Linux `Documentation/networking/tuntap.rst` and `include/uapi/linux/if_tun.h`.
Pure: values and their checks; nothing here touches the kernel.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag
from typing import Final

from bridged.addresses import MacAddress
from bridged.errors import TapError

NAME_OCTETS: Final = 15
"""IFNAMSIZ without its terminating zero."""

MTU_MINIMUM: Final = 68
MTU_MAXIMUM: Final = 65521
"""65535 less the 14 octets of the Ethernet header: what the kernel takes for a TAP."""

QUEUES_MAXIMUM: Final = 256
"""MAX_TAP_QUEUES of the kernel."""

TXQUEUELEN_DEFAULT: Final = 4000
"""Frames. The kernel's own default (1000, 500 on old kernels) overflows under super-frames."""

_TXQUEUELEN_MAXIMUM: Final = 1 << 20
_ID_MAXIMUM: Final = 0xFFFFFFFE


class Offload(IntFlag):
    """What the reader of the TAP takes upon itself (TUN_F_*); needs the virtio-net header.

    The kernel ties some together: everything needs CSUM, TSO_ECN needs TSO4 or TSO6, and USO4 and
    USO6 go only as a pair (Linux 6.2 and later).
    """

    NONE = 0
    CSUM = 0x01
    TSO4 = 0x02
    TSO6 = 0x04
    TSO_ECN = 0x08
    USO4 = 0x20
    USO6 = 0x40


@dataclass(frozen=True, slots=True)
class TapSettings:
    """One TAP adapter as it shall be; None leaves the kernel's (or the adapter's present) value.

    name: 1..15 octets; may contain one `%d`, for which the kernel puts the first free number.
    persistent: outlives this process. False does not take persistence from an adapter that has it.
    mac: unicast, not zero. mtu: octets of payload, 68..65521. txqueuelen: frames.
    owner, group: numeric ids that may attach without CAP_NET_ADMIN.
    virtio_header: each frame is preceded by a 10-octet virtio-net header.
    queues: file descriptors, 1..256; more than one makes a multi-queue adapter.
    lock: at most one process per adapter (lock.py).

    Raises:
        TapError: code `tap_settings`, with the field and what it may be.
    """

    name: str
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
        check_range("mtu", self.mtu, MTU_MINIMUM, MTU_MAXIMUM)
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
        TapError: code `tap_settings`.
    """
    bare = name.replace("%d", "0", 1) if pattern else name
    if not name or len(name.encode(errors="surrogatepass")) > NAME_OCTETS:
        raise _refused(f"adapter name {name!r} must have 1 to {NAME_OCTETS} octets")
    if bare in {".", ".."} or any(c in "/:%" or c.isspace() or not c.isprintable() for c in bare):
        raise _refused(
            f"adapter name {name!r}: no '/', ':', '%', blanks or control characters"
            + (" (one %d is allowed)" if pattern else "")
        )


def check_unicast(mac: MacAddress) -> None:
    """Refuse what cannot be the address of a port.

    Raises:
        TapError: code `mac_address`; the address is multicast, broadcast or all zero.
    """
    if mac.is_zero:
        raise TapError("mac_address", f"{mac} is all zero; a port needs an address of its own")
    if mac.is_multicast:
        first = mac.octets[0]
        raise TapError(
            "mac_address",
            f"{mac} is a multicast address (the lowest bit of {first:02x} is set); "
            f"a port needs a unicast one, such as {MacAddress(bytes([first & 0xFE | 2]) + mac.octets[1:])}",
        )


def check_range(field: str, value: int | None, low: int, high: int) -> None:
    """Raises:
    TapError: code `tap_settings`; the number is outside low..high. None passes.
    """
    if value is not None and not low <= value <= high:
        raise _refused(f"{field} is {value}; it must be from {low} to {high}")


def _refused(reason: str) -> TapError:
    return TapError("tap_settings", reason)
