"""One run of iperf3 from a namespace to another."""

from __future__ import annotations

import json
import signal
from typing import Any

from tests.lab.host_settings import CONGESTION_WANTED, iperf3_client, iperf3_server
from tests.lab.namespace import Namespace


def iperf3(
    near: Namespace,
    far: Namespace,
    address: str,
    *options: str,
    congestion: str = CONGESTION_WANTED,
    seconds: float = 30.0,
) -> dict[str, Any]:
    """The client's document. Each run has a server of its own: one that served before may not listen yet.

    Raises:
        LabError: it failed, or did not end within `seconds`.
    """
    server = far.popen(*iperf3_server("-1"), log="iperf3")
    try:
        server.wait_for_output("Server listening")
        command = iperf3_client(address, "-J", *options, congestion=congestion)
        document: dict[str, Any] = json.loads(near.run(*command, seconds=seconds))
    finally:
        server.stop(signal.SIGKILL)
    return document
