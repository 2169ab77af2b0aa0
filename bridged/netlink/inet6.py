"""How links treat routers' advertisements: read the settings, change them, and solicit routers.

Source: Linux `Documentation/networking/ip-sysctl.rst` (conf/interface/*); RFC 4861, 4.1 (solicitation).
Acts in the network namespace of the calling thread.
"""

from __future__ import annotations

import dataclasses
import os
import socket
from pathlib import Path
from typing import Final

from bridged.errors import NetlinkError
from bridged.link_planning.actions import SetInet6
from bridged.link_planning.links import Inet6Settings, Link
from bridged.netlink.announce import icmpv6_frame

_CONF: Final = Path("/proc/sys/net/ipv6/conf")
_ROUTER_SOLICITATION: Final = bytes((133, 0, 0, 0)) + bytes(4)
_ALL_ROUTERS: Final = "ff02::2"


def inet6_settings(link: str) -> Inet6Settings | None:
    """The settings; None without such a link, without IPv6, or where they are read-only (a container)."""
    folder = _CONF / link
    if not _is_writable(folder / "accept_ra"):
        return None
    values = {}
    for field in dataclasses.fields(Inet6Settings):
        try:
            values[field.name] = int((folder / field.name).read_text())
        except (OSError, ValueError):
            # This kernel has no such key, and behaves as by default.
            continue
    return Inet6Settings(**values)


def _is_writable(file: Path) -> bool:
    """Not access(2): that leaves out the capabilities of a user other than root."""
    try:
        os.close(os.open(file, os.O_WRONLY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def set_inet6(action: SetInet6) -> None:
    """Write the settings that differ.

    Raises:
        NetlinkError: the kernel refused; part of it may be written.
    """
    for field in dataclasses.fields(Inet6Settings):
        value = getattr(action.value, field.name)
        if value == getattr(action.was, field.name):
            continue
        try:
            (_CONF / action.link / field.name).write_text(f"{value}\n")
        except OSError as error:
            operation = f"set {field.name} {value}"
            raise NetlinkError(operation, action.link, error.errno or 0, error.strerror or "") from error


def solicit_routers(link: Link) -> None:
    """Ask the routers of a link's network to advertise themselves now. Best effort."""
    if link.mac is None or not link.up:
        return
    frame = icmpv6_frame(link.mac, "::", _ALL_ROUTERS, _ROUTER_SOLICITATION)
    try:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
            raw.bind((link.name, 0))
            raw.send(frame)
    except OSError:
        pass  # routers advertise themselves later in any case
