"""Contract: `busy_poll` is set on the socket of the native data plane, and frames cross all the same."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from tests.contract.dataplane_rig import Rig, frame

# To set more than the host's `net.core.busy_read` takes CAP_NET_ADMIN.
pytestmark = [pytest.mark.root, pytest.mark.native]

SO_BUSY_POLL = 46


def busy_poll(sock: socket.socket) -> int | None:
    """Microseconds; None where the kernel does not know the option."""
    try:
        return sock.getsockopt(socket.SOL_SOCKET, SO_BUSY_POLL)
    except OSError:
        return None


def busy_poll_at(port: int) -> int | None:
    """Of this process' UDP socket with that port."""
    for entry in Path("/proc/self/fd").iterdir():
        if not (entry.is_symlink() and os.readlink(entry).startswith("socket:")):
            continue
        with socket.socket(fileno=os.dup(int(entry.name))) as sock:
            is_udp = (sock.family, sock.type) == (socket.AF_INET, socket.SOCK_DGRAM)
            if is_udp and sock.getsockname()[1] == port:
                return busy_poll(sock)
    raise AssertionError(f"no UDP socket with port {port}")


@pytest.mark.parametrize("microseconds", [None, 50])
def test_busy_poll_is_set_where_it_was_asked_for_and_frames_cross(microseconds: int | None) -> None:
    keys = {} if microseconds is None else {"busy_poll": microseconds}
    with Rig("native", **keys) as rig:
        peer = rig.peer(1)
        # A plain socket has what the host sets for all, as a rule 0.
        plain = busy_poll(peer.socket)
        assert busy_poll_at(rig.port) == (plain if plain is None else microseconds or plain)
        for number in range(20):
            there, back = frame(1, 2, bytes([number])), frame(2, 1, bytes([number]))
            rig.put(there)
            assert peer.payloads() == [there]
            peer.send(back)
            assert rig.frames() == [back]
        assert rig.snapshot().drops == {}
