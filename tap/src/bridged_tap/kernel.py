"""The ioctls of /dev/net/tun and of network links, as typed calls.

Source: Linux `include/uapi/linux/if_tun.h`, `include/uapi/linux/sockios.h`, netdevice(7).
Everything goes through file descriptors, never through /sys or /proc/net: those may show another
network namespace than the one the calling thread is in (setns(2) does not remount /sys).
"""

from __future__ import annotations

import errno
import fcntl
import os
import platform
import socket
import struct
from ipaddress import IPv4Interface, IPv6Interface
from typing import Final, Self

from bridged_tap.addresses import MacAddress
from bridged_tap.containers import container_kind, device_cure
from bridged_tap.errors import TapError
from bridged_tap.rtnetlink import pack_attribute, request

DEVICE: Final = "/dev/net/tun"

IFF_TUN: Final = 0x0001
IFF_TAP: Final = 0x0002
IFF_MULTI_QUEUE: Final = 0x0100
IFF_ATTACH_QUEUE: Final = 0x0200
IFF_DETACH_QUEUE: Final = 0x0400
IFF_NO_PI: Final = 0x1000
IFF_VNET_HDR: Final = 0x4000

IFF_UP: Final = 0x0001

_ARPHRD_ETHER: Final = 1
_SIOCGIFFLAGS: Final = 0x8913
_SIOCSIFFLAGS: Final = 0x8914
_SIOCGIFMTU: Final = 0x8921
_SIOCSIFMTU: Final = 0x8922
_SIOCSIFHWADDR: Final = 0x8924
_SIOCGIFHWADDR: Final = 0x8927
_SIOCGIFINDEX: Final = 0x8933
_SIOCGIFTXQLEN: Final = 0x8942
_SIOCSIFTXQLEN: Final = 0x8943

_RTM_NEWADDR: Final = 20
_NLM_F_REPLACE: Final = 0x100
_NLM_F_CREATE: Final = 0x400
_IFA_ADDRESS: Final = 1
_IFA_LOCAL: Final = 2

_IFREQ_OCTETS: Final = 40
_ANSWER_SECONDS: Final = 5.0


def _request(number: int, *, read: bool = False) -> int:
    """_IOW or _IOR ('T', number, int). PowerPC, MIPS, SPARC and Alpha put the direction elsewhere."""
    if platform.machine().startswith(("ppc", "mips", "sparc", "alpha")):
        return (2 if read else 4) << 29 | (4 << 16) | (ord("T") << 8) | number
    return (2 if read else 1) << 30 | (4 << 16) | (ord("T") << 8) | number


TUNSETIFF: Final = _request(202)
TUNSETPERSIST: Final = _request(203)
TUNSETOWNER: Final = _request(204)
TUNSETGROUP: Final = _request(206)
TUNSETOFFLOAD: Final = _request(208)
TUNGETIFF: Final = _request(210, read=True)
TUNGETVNETHDRSZ: Final = _request(215, read=True)
TUNSETVNETHDRSZ: Final = _request(216)
TUNSETQUEUE: Final = _request(217)


def open_device() -> int:
    """A new, unattached, non-blocking queue in the network namespace of the calling thread.

    Raises:
        TapError: code `tap_unavailable` (no device, no driver) or `tap_permission`.
    """
    try:
        return os.open(DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except PermissionError as error:
        # EPERM, not EACCES: a container's rules about devices refuse it, even to root.
        kind = container_kind() if error.errno == errno.EPERM else ""
        cure = device_cure(kind) if kind else "run as root, or change its mode"
        raise TapError(
            "tap_permission", f"this user may not open {DEVICE} ({error.strerror}); {cure}", error.errno
        ) from error
    except OSError as error:
        cure = device_cure(container_kind())
        raise TapError("tap_unavailable", f"{DEVICE}: {error.strerror}; {cure}", error.errno) from error


def check_device() -> None:
    """Check that this program can open /dev/net/tun; makes nothing.

    Raises:
        TapError: code `tap_unavailable` (no device, no driver) or `tap_permission`; the text says what to do,
            in a container the lines for its kind of container.
    """
    os.close(open_device())


def set_interface(queue: int, name: str, flags: int) -> str:
    """TUNSETIFF: attach the queue to adapter `name`, making it if need be; returns the real name.

    Raises:
        OSError: as the kernel said it.
    """
    answer = fcntl.ioctl(queue, TUNSETIFF, _ifreq(name, struct.pack("=H", flags)))
    return _name(answer)


def get_interface(queue: int) -> tuple[str, int]:
    """TUNGETIFF: present name (it follows a rename) and flags of the queue's adapter.

    Raises:
        OSError: EBADFD when the adapter is gone.
    """
    answer = fcntl.ioctl(queue, TUNGETIFF, bytes(_IFREQ_OCTETS))
    return _name(answer), struct.unpack_from("=H", answer, 16)[0]


def set_queue(queue: int, *, attached: bool) -> None:
    """TUNSETQUEUE: take one queue of a multi-queue adapter out of service, or back in."""
    flag = IFF_ATTACH_QUEUE if attached else IFF_DETACH_QUEUE
    fcntl.ioctl(queue, TUNSETQUEUE, _ifreq("", struct.pack("=H", flag)))


def set_header_size(queue: int, octets: int) -> None:
    """TUNSETVNETHDRSZ; the size belongs to the adapter and outlives its last holder."""
    fcntl.ioctl(queue, TUNSETVNETHDRSZ, struct.pack("=i", octets))


def get_header_size(queue: int) -> int:
    answer = fcntl.ioctl(queue, TUNGETVNETHDRSZ, bytes(4))
    return int(struct.unpack("=i", answer)[0])


def try_offloads(queue: int, offloads: int) -> bool:
    """TUNSETOFFLOAD; False when the kernel does not know or allow the combination."""
    try:
        fcntl.ioctl(queue, TUNSETOFFLOAD, offloads)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return False
    return True


class LinkControl:
    """Changes of links (address, MTU, queue length, flags) in the network namespace it was made in.

    The socket pins the namespace: a thread that moves on with setns(2) still reaches its adapter.
    All methods raise OSError as the kernel said it.
    """

    def __init__(self) -> None:
        # A netlink socket takes the link ioctls, too.
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._socket.settimeout(_ANSWER_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def ifindex(self, name: str) -> int:
        return self._get_number(_SIOCGIFINDEX, name)

    def mac(self, name: str) -> MacAddress:
        answer = fcntl.ioctl(self._socket, _SIOCGIFHWADDR, _ifreq(name))
        return MacAddress(bytes(answer[18:24]))

    def set_mac(self, name: str, mac: MacAddress) -> None:
        fcntl.ioctl(
            self._socket, _SIOCSIFHWADDR, _ifreq(name, struct.pack("=H6s", _ARPHRD_ETHER, mac.octets))
        )

    def mtu(self, name: str) -> int:
        return self._get_number(_SIOCGIFMTU, name)

    def set_mtu(self, name: str, mtu: int) -> None:
        fcntl.ioctl(self._socket, _SIOCSIFMTU, _ifreq(name, struct.pack("=i", mtu)))

    def txqueuelen(self, name: str) -> int:
        return self._get_number(_SIOCGIFTXQLEN, name)

    def set_txqueuelen(self, name: str, frames: int) -> None:
        fcntl.ioctl(self._socket, _SIOCSIFTXQLEN, _ifreq(name, struct.pack("=i", frames)))

    def is_up(self, name: str) -> bool:
        return bool(self._flags(name) & IFF_UP)

    def set_up(self, name: str, up: bool) -> None:
        flags = self._flags(name)
        wanted = flags | IFF_UP if up else flags & ~IFF_UP
        if wanted != flags:
            fcntl.ioctl(self._socket, _SIOCSIFFLAGS, _ifreq(name, struct.pack("=H", wanted)))

    def add_address(self, ifindex: int, interface: IPv4Interface | IPv6Interface) -> None:
        """Put an address with its prefix length on a link; one that is there already stays."""
        family = socket.AF_INET if interface.version == 4 else socket.AF_INET6
        body = struct.pack("=BBBBi", family, interface.network.prefixlen, 0, 0, ifindex)
        for kind in (_IFA_LOCAL, _IFA_ADDRESS):
            body += pack_attribute(kind, interface.packed)
        request(self._socket, _RTM_NEWADDR, _NLM_F_CREATE | _NLM_F_REPLACE, body)

    def _flags(self, name: str) -> int:
        answer = fcntl.ioctl(self._socket, _SIOCGIFFLAGS, _ifreq(name))
        return int(struct.unpack_from("=H", answer, 16)[0])

    def _get_number(self, request: int, name: str) -> int:
        answer = fcntl.ioctl(self._socket, request, _ifreq(name))
        return int(struct.unpack_from("=i", answer, 16)[0])


def _ifreq(name: str, value: bytes = b"") -> bytes:
    return (name.encode().ljust(16, b"\0") + value).ljust(_IFREQ_OCTETS, b"\0")


def _name(ifreq: bytes) -> str:
    return ifreq[:16].split(b"\0", 1)[0].decode(errors="replace")
