"""Run a program under a kernel that refuses: `refusing_kernel.py WHAT[,WHAT…] PROGRAM [ARGUMENT …]`.

A seccomp filter makes this kernel answer as an older or poorer one would; the program is the real one and
everything else it asks for is done. Needs CAP_SYS_ADMIN. WHAT is of `REFUSALS`, or
`segments` (a send with UDP_SEGMENT: EIO, as of a WAN card without UDP GSO), or
`release` (uname says 2.6.x).
Source: seccomp(2), seccomp_unotify(2), personality(2), Linux include/uapi/linux/filter.h.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import select
import socket
import struct
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

SYSTEM_CALLS = {
    "x86_64": {"setsockopt": 54, "ioctl": 16, "write": 1, "writev": 20, "unshare": 272, "sendmsg": 46},
    "aarch64": {"setsockopt": 208, "ioctl": 29, "write": 64, "writev": 66, "unshare": 97, "sendmsg": 211},
}
SECCOMP, PIDFD_GETFD = {"x86_64": (317, 438), "aarch64": (277, 438)}[platform.machine()]

IPPROTO_UDP, UDP_SEGMENT, UDP_GRO = 17, 103, 104
SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF = 1, 51
TUNSETOFFLOAD = 0x400454D0
TSO, USO = 0x0E, 0x60

EQUAL, GREATER, ANY_BIT = 0x15, 0x25, 0x45
LOAD, RETURN = 0x20, 0x06
ALLOW, ERRNO, NOTIFY = 0x7FFF0000, 0x00050000, 0x7FC00000
UNAME26 = 0x0020000


@dataclass(frozen=True)
class Refusal:
    """A system call with these arguments (number, comparison, value) fails with `number`."""

    call: str
    arguments: tuple[tuple[int, int, int], ...]
    number: int


REFUSALS: dict[str, tuple[Refusal, ...]] = {
    # Linux before 5.0 and 4.18.
    "udp_gro": (Refusal("setsockopt", ((1, EQUAL, IPPROTO_UDP), (2, EQUAL, UDP_GRO)), errno.ENOPROTOOPT),),
    "udp_segment": (
        Refusal("setsockopt", ((1, EQUAL, IPPROTO_UDP), (2, EQUAL, UDP_SEGMENT)), errno.ENOPROTOOPT),
    ),
    # Linux before 6.2.
    "uso": (Refusal("ioctl", ((1, EQUAL, TUNSETOFFLOAD), (2, ANY_BIT, USO)), errno.EINVAL),),
    "tso": (Refusal("ioctl", ((1, EQUAL, TUNSETOFFLOAD), (2, ANY_BIT, TSO)), errno.EINVAL),),
    # Linux 6.6.44 and its neighbours: told by the bytes, or by the parts, of one write.
    "super_frames": (
        Refusal("write", ((2, GREATER, 4000),), errno.EINVAL),
        Refusal("writev", ((2, GREATER, 2),), errno.EINVAL),
    ),
    # A filter of system calls that does not know the option.
    "steering": (
        Refusal("setsockopt", ((1, EQUAL, SOL_SOCKET), (2, EQUAL, SO_ATTACH_REUSEPORT_CBPF)), errno.EPERM),
    ),
    # No CAP_SYS_ADMIN: a service with CAP_NET_ADMIN alone.
    "unshare": (Refusal("unshare", (), errno.EPERM),),
}
NAMES = frozenset(REFUSALS) | {"segments", "release"}


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_char_p))


def _instruction(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
    return struct.pack("=HBBI", code, yes, no, value)


def _rule(call: str, arguments: tuple[tuple[int, int, int], ...], verdict: int) -> bytes:
    """Instructions that return `verdict` for such a call, and go on behind themselves for any other."""
    tests = [(0, EQUAL, SYSTEM_CALLS[platform.machine()][call])]
    tests += [(16 + 8 * number, compare, value) for number, compare, value in arguments]
    left = 2 * len(tests) + 1
    made = b""
    for offset, compare, value in tests:
        left -= 2
        made += _instruction(LOAD, offset) + _instruction(compare, value, 0, left)
    return made + _instruction(RETURN, verdict)


def build_filter(names: set[str]) -> bytes:
    """The filter's instructions for these names."""
    made = b""
    for name in sorted(names & REFUSALS.keys()):
        for refusal in REFUSALS[name]:
            made += _rule(refusal.call, refusal.arguments, ERRNO | refusal.number)
    if "segments" in names:
        made += _rule("sendmsg", (), NOTIFY)
    return made + _instruction(RETURN, ALLOW)


def install(code: bytes, *, listen: bool) -> int:
    """Put the filter on this thread and what it starts; the descriptor of the listener, if one is wanted."""
    libc = ctypes.CDLL(None, use_errno=True)
    program = _Program(len(code) // 8, code)
    set_filter, new_listener = 1, 8
    answer: int = libc.syscall(SECCOMP, set_filter, new_listener if listen else 0, ctypes.byref(program))
    if answer < 0:
        raise OSError(ctypes.get_errno(), "seccomp")
    return answer


def _supervise(descriptor: int) -> NoReturn:
    """Answer for the kernel until the program has ended: no to sends with UDP_SEGMENT, yes to all others."""
    receive, send = 0xC0502100, 0xC0182101
    waiting = select.poll()
    waiting.register(descriptor, select.POLLIN)
    while True:
        if waiting.poll()[0][1] & select.POLLHUP:
            os._exit(0)
        notice = bytearray(80)
        try:
            fcntl.ioctl(descriptor, receive, notice)
        except OSError:
            continue  # the thread was killed meanwhile
        number, thread = struct.unpack_from("=QI", notice)
        message = struct.unpack_from("=Q", notice, 16 + 16 + 8)[0]
        is_segmented = _has_segment_size(thread, message)
        answer = struct.pack("=QqiI", number, 0, -errno.EIO if is_segmented else 0, 0 if is_segmented else 1)
        try:
            fcntl.ioctl(descriptor, send, answer)
        except OSError:
            continue


def _has_segment_size(thread: int, message: int) -> bool:
    with Path(f"/proc/{thread}/mem").open("rb", buffering=0) as memory:
        memory.seek(message)
        control, octets = struct.unpack_from("=QQ", memory.read(56), 32)
        if not control:
            return False
        memory.seek(control)
        items = memory.read(octets)
    at = 0
    while at + 16 <= len(items):
        length, level, kind = struct.unpack_from("=Qii", items, at)
        if (level, kind) == (IPPROTO_UDP, UDP_SEGMENT):
            return True
        at += max(16, (length + 7) & ~7)
    return False


def _supervised(code: bytes) -> None:
    """As `install`, with a child that answers."""
    program = os.getpid()
    ours, theirs = socket.socketpair()
    if os.fork() == 0:
        listener = int.from_bytes(theirs.recv(4), "little")
        libc = ctypes.CDLL(None, use_errno=True)
        descriptor: int = libc.syscall(PIDFD_GETFD, os.pidfd_open(program), listener, 0)
        theirs.send(b"\1")
        ours.close()
        theirs.close()
        _supervise(descriptor)
    ours.send(install(code, listen=True).to_bytes(4, "little"))
    # The listener goes with this image: the child must have it before.
    ours.recv(1)
    ours.close()
    theirs.close()


def main() -> NoReturn:
    names = set(sys.argv[1].split(","))
    if names - NAMES:
        sys.exit(f"unknown: {', '.join(sorted(names - NAMES))}; known: {', '.join(sorted(NAMES))}")
    if "release" in names and ctypes.CDLL(None).personality(UNAME26) < 0:
        sys.exit("personality: refused")
    code = build_filter(names)
    if "segments" in names:
        _supervised(code)
    else:
        install(code, listen=False)
    os.execvp(sys.argv[2], sys.argv[2:])


if __name__ == "__main__":
    main()
