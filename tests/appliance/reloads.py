"""Runs in the virtual machine: `reloads.py COUNT SEED`. Random edits of a drop-in, valid or not, and reloads.

Most reloads ask the admin API, as `bridged reload` does; every tenth is `systemctl reload`, whose start takes
most of its time where the processor is emulated. Prints a line for the first edit that ended otherwise than
expected, and exits with 1.
"""

from __future__ import annotations

import http.client
import json
import random
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

DROP_IN = Path("/etc/bridged/conf.d/zz-edits.yaml")
SOCKET = "/run/bridged/bridged.sock"
SYSTEMCTL_EVERY = 10

Dice = random.Random
Edit = Callable[[Dice], dict[str, Any]]


def _server(**keys: Any) -> dict[str, Any]:
    return {"tunnels": {"server": keys}}


def _bridge(**keys: Any) -> dict[str, Any]:
    return {"bridges": {"br0": keys}}


VALID: tuple[Edit, ...] = (
    lambda dice: {"log": {"level": dice.choice(("info", "warning", "error"))}},
    lambda dice: {"metrics": {"max_peers": dice.randint(1, 1000)}},
    lambda dice: _server(push=[f"dhcp-option DNS 192.0.2.{dice.randint(1, 254)}"]),
    lambda dice: _server(forward_between_peers=dice.random() < 0.5),
    lambda dice: _server(renegotiate={"seconds": dice.randint(600, 7200)}),
    lambda dice: _bridge(addresses=[f"192.0.2.{dice.randint(1, 254)}/24"]),
    lambda dice: _bridge(ageing_seconds=dice.randint(100, 600)),
    lambda dice: {"bridges": {f"br{dice.randint(7, 9)}": {"ports": []}}},
)
INVALID: tuple[Edit, ...] = (
    lambda dice: {"log": {"level": dice.choice(("loud", 7, None, []))}},
    lambda dice: {f"unknown{dice.randint(0, 99)}": {}},
    lambda dice: _server(peers_max=dice.choice((0, -1, "many"))),
    lambda dice: _server(role=dice.choice(("client", "peer"))),
    lambda dice: _server(bridge="br99"),
    lambda dice: _server(listen=dice.choice(("nowhere", "[::]:99999", 7))),
    lambda dice: _bridge(addresses=[dice.choice(("192.0.2.1/33", "x", 5))]),
    lambda dice: _bridge(ports=["lan0", "lan0"]),
    lambda dice: {"tunnels": {"other": {"role": "server", "bridge": "br0", "tls": {"ca": "/nowhere.crt"}}}},
)
BROKEN = (b"{", b"\xff\xfe\x00", b"tunnels: [\n", b"a: b: c\n", b"- 1\n")


def main() -> int:
    count, seed = int(sys.argv[1]), int(sys.argv[2])
    dice = random.Random(seed)
    refused = 0
    for number in range(count):
        valid = dice.random() < 0.6
        octets = _text(dice, valid)
        DROP_IN.write_bytes(octets)
        is_accepted, answer = _systemctl() if number % SYSTEMCTL_EVERY == 0 else _ask()
        if is_accepted != valid:
            print(f"edit {number} of seed {seed}: expected valid={valid}: {octets!r}\n{answer}")
            return 1
        refused += not valid
    DROP_IN.unlink()
    is_accepted, answer = _ask()
    print(f"{count} reloads, {refused} refused; {answer if not is_accepted else 'the last one applied'}")
    return 0 if is_accepted else 1


def _text(dice: Dice, valid: bool) -> bytes:
    if not valid and dice.random() < 0.2:
        return dice.choice(BROKEN)
    merged: dict[str, Any] = {}
    for edit in dice.sample(VALID, dice.randint(0, 3)):
        _merge(merged, edit(dice))
    if not valid:
        _merge(merged, dice.choice(INVALID)(dice))
    return json.dumps(merged).encode()


def _merge(into: dict[str, Any], more: dict[str, Any]) -> None:
    for key, value in more.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value


def _systemctl() -> tuple[bool, str]:
    done = subprocess.run(("systemctl", "reload", "bridged"), capture_output=True, text=True, check=False)
    return done.returncode == 0, done.stderr


def _ask() -> tuple[bool, str]:
    connection = http.client.HTTPConnection("localhost", timeout=120)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(SOCKET)
    connection.request("POST", "/v1/reload")
    text = connection.getresponse().read().decode()
    connection.close()
    return json.loads(text).get("outcome") != "rejected", text


if __name__ == "__main__":
    sys.exit(main())
