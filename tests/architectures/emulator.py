"""What QEMU's user emulation refuses of sockets, and the Rust tests that need it.

The emulator is asked each time, so that nothing is left out longer than it must be.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Final

from tests.architectures.machines import Machine

_ASK: Final = """
import errno, json, socket

def is_known(call):
    try:
        call()
    except OSError as error:
        return error.errno != errno.ENOPROTOOPT
    return True

with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
    asked.connect(("127.0.0.1", 9))
    steering = is_known(lambda: asked.setsockopt(socket.SOL_SOCKET, 51, b""))
    mtu = is_known(lambda: asked.getsockopt(socket.IPPROTO_IP, 14))
print(json.dumps({"SO_ATTACH_REUSEPORT_CBPF": steering, "IP_MTU": mtu}))
"""
_TESTS_WITH: Final = {
    "SO_ATTACH_REUSEPORT_CBPF": (
        "steer::tests::a_run_of_datagrams_stays_together",
        "steer::tests::an_ipv4_datagram_to_an_ipv6_socket_is_steered_as_well",
        "steer::tests::control_and_short_datagrams_go_to_the_first_socket_and_data_v1_stays_with_its_address",
        "steer::tests::eight_peers_on_one_flow_are_spread_over_two_and_four_sockets",
    ),
    "IP_MTU": ("udp::tests::the_route_to_loopback_has_its_mtu",),
}


def known(python: Path) -> dict[str, bool]:
    """Whether each option of sockets exists where this Python runs."""
    done = subprocess.run((str(python), "-c", _ASK), capture_output=True, text=True, check=True, timeout=120)
    return dict(json.loads(done.stdout))


def tests_that_cannot_run(machine: Machine) -> dict[str, str]:
    """Tests of native/sys, each with the reason."""
    unknown = [name for name, is_known in known(machine.python).items() if not is_known]
    return {test: f"{machine.emulator} refuses {name}" for name in unknown for test in _TESTS_WITH[name]}
