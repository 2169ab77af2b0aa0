"""A lossy path in user space: a UDP relay that drops, delays, repeats, reorders, reflects and corrupts.

Runs as a process of its own (`python relay.py --listen ADDRESS --target ADDRESS …`), and stands alone: the
kernels of small machines often have no netem. `Relay` starts and steers it from a test.

One line of JSON on standard input changes it while it runs: `{"loss": 0.2}`, any of the impairments;
`{"only": "control"}` spares data packets from all of it, `"data"` control packets; `{"rebind": true}` gives
every client a new source port towards the target, as an address translator that forgot its state does;
`{"blackhole": true}` drops everything. Each line is answered by one with the counters.
"""

from __future__ import annotations

import argparse
import heapq
import json
import random
import selectors
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field, fields
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.lab.namespace import Namespace
    from tests.lab.processes import Process

CLIENTS_MAX = 64
QUEUE_MAX = 20_000
DATAGRAM_OCTETS = 65_535
DATA_OPCODES = frozenset({6, 9})
"""P_DATA_V1 and P_DATA_V2 (control.md#1-1). The opcode is the upper five bits of a packet."""

Address = tuple[str, int]


@dataclass(slots=True)
class Impairment:
    """What happens to a datagram, in each direction. Chances are 0 to 1, times are seconds."""

    loss: float = 0.0
    delay: float = 0.0
    jitter: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    corrupt: float = 0.0
    blackhole: bool = False
    only: str = ""
    """Impair `data` packets alone, or `control` packets alone; the others pass at once."""
    reflect: str = ""
    """What `clients` or the `target` send comes back to them as well, before it goes on."""

    def spares(self, datagram: bytes) -> bool:
        kind = "data" if datagram[:1] and datagram[0] >> 3 in DATA_OPCODES else "control"
        return self.only not in ("", kind)


@dataclass(slots=True)
class Counters:
    """Datagrams since the start, both directions together."""

    received: int = 0
    sent: int = 0
    lost: int = 0
    duplicated: int = 0
    reordered: int = 0
    corrupted: int = 0
    reflected: int = 0
    overflowed: int = 0


@dataclass(order=True, slots=True)
class _Due:
    at: float
    number: int
    datagram: bytes = field(compare=False)
    out: socket.socket = field(compare=False)
    destination: Address = field(compare=False)


class _Relay:
    """The relay's own process: one socket for clients, one towards the target for each client."""

    REORDER_SECONDS = 0.02

    def __init__(self, listen: Address, target: Address, impairment: Impairment, seed: int) -> None:
        self.family = socket.AF_INET6 if ":" in listen[0] else socket.AF_INET
        self.impairment = impairment
        self.counters = Counters()
        self.target = target
        self.dice = random.Random(seed)
        self.selector = selectors.DefaultSelector()
        self.front = self._socket()
        self.front.bind(listen)
        self.selector.register(self.front, selectors.EVENT_READ, None)
        self.upstream: dict[Address, socket.socket] = {}
        self.queue: list[_Due] = []
        self.number = 0

    def run(self) -> None:
        self.selector.register(sys.stdin, selectors.EVENT_READ, "orders")
        print("relay ready", flush=True)
        while True:
            wait = max(0.0, self.queue[0].at - time.monotonic()) if self.queue else None
            for key, _ in self.selector.select(wait):
                if key.data == "orders":
                    if not self._order():
                        return
                else:
                    self._receive(key.fileobj, key.data)  # type: ignore[arg-type]
            self._send_due()

    def _socket(self) -> socket.socket:
        made = socket.socket(self.family, socket.SOCK_DGRAM)
        made.setblocking(False)
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            made.setsockopt(socket.SOL_SOCKET, option, 4 << 20)
        return made

    def _order(self) -> bool:
        line = sys.stdin.readline()
        if not line:
            return False
        order = json.loads(line)
        if order.pop("rebind", False):
            self._rebind()
        for name, value in order.items():
            setattr(self.impairment, name, value)
        print(
            json.dumps({item.name: getattr(self.counters, item.name) for item in fields(Counters)}),
            flush=True,
        )
        return True

    def _rebind(self) -> None:
        for client in list(self.upstream):
            self.selector.unregister(self.upstream[client])
            self.upstream.pop(client).close()
            self._upstream_of(client)
        self.queue = [due for due in self.queue if due.out is self.front]
        heapq.heapify(self.queue)

    def _upstream_of(self, client: Address) -> socket.socket:
        if client not in self.upstream:
            if len(self.upstream) >= CLIENTS_MAX:
                oldest = next(iter(self.upstream))
                self.selector.unregister(self.upstream[oldest])
                self.upstream.pop(oldest).close()
            made = self._socket()
            made.bind(("::" if self.family == socket.AF_INET6 else "0.0.0.0", 0))
            self.selector.register(made, selectors.EVENT_READ, client)
            self.upstream[client] = made
        return self.upstream[client]

    def _receive(self, source: socket.socket, client: Address | None) -> None:
        for _ in range(64):
            try:
                datagram, sender = source.recvfrom(DATAGRAM_OCTETS)
            except (BlockingIOError, ConnectionRefusedError):
                return
            except OSError:
                return  # closed by a rebind in this round
            self.counters.received += 1
            back = (self.front, sender[:2]) if client is None else (source, self.target)
            if self.impairment.reflect == ("clients" if client is None else "target"):
                self._send(datagram, *back)
                self.counters.reflected += 1
            if client is None:
                self._impair(datagram, self._upstream_of(sender[:2]), self.target)
            else:
                self._impair(datagram, self.front, client)

    def _impair(self, datagram: bytes, out: socket.socket, destination: Address) -> None:
        rules, dice = self.impairment, self.dice
        if rules.spares(datagram):
            self._send(datagram, out, destination)
            return
        if rules.blackhole or dice.random() < rules.loss:
            self.counters.lost += 1
            return
        if dice.random() < rules.corrupt and datagram:
            position = dice.randrange(len(datagram))
            flipped = datagram[position] ^ (1 << dice.randrange(8))
            datagram = datagram[:position] + bytes([flipped]) + datagram[position + 1 :]
            self.counters.corrupted += 1
        copies = 1
        if dice.random() < rules.duplicate:
            copies = 2
            self.counters.duplicated += 1
        for _ in range(copies):
            wait = rules.delay + dice.random() * rules.jitter
            if dice.random() < rules.reorder:
                wait += self.REORDER_SECONDS
                self.counters.reordered += 1
            if wait <= 0:
                self._send(datagram, out, destination)
            elif len(self.queue) >= QUEUE_MAX:
                self.counters.overflowed += 1
            else:
                self.number += 1
                heapq.heappush(
                    self.queue, _Due(time.monotonic() + wait, self.number, datagram, out, destination)
                )

    def _send_due(self) -> None:
        now = time.monotonic()
        while self.queue and self.queue[0].at <= now:
            due = heapq.heappop(self.queue)
            self._send(due.datagram, due.out, due.destination)

    def _send(self, datagram: bytes, out: socket.socket, destination: Address) -> None:
        try:
            out.sendto(datagram, destination)
            self.counters.sent += 1
        except BlockingIOError:
            self.counters.overflowed += 1
        except OSError:
            self.counters.lost += 1


class Relay:
    """A relay process in a namespace, e.g. `topology.wan_namespace`.

    `listen` and `target` are `(address, port)`. Impairments by keyword: see `Impairment`.
    """

    def __init__(
        self,
        namespace: Namespace,
        listen: Address,
        target: Address,
        *,
        seed: int = 1,
        **impairments: float | str,
    ) -> None:
        arguments = [f"--{name}={value}" for name, value in impairments.items()]
        self.process: Process = namespace.popen(
            sys.executable,
            __file__,
            *("--listen", f"{listen[0]}#{listen[1]}", "--target", f"{target[0]}#{target[1]}"),
            *("--seed", str(seed), *arguments),
            log="relay",
            stdin=subprocess.PIPE,
        )
        self._answers = 0
        self.process.wait_for_output("relay ready", 10)

    def change(self, **impairments: float | str) -> None:
        """Change impairments from now on, e.g. `change(loss=0.4, delay=0.05)`."""
        self._order(impairments)

    def rebind(self) -> None:
        """From now on the server sees every client under a new port."""
        self._order({"rebind": True})

    def counters(self) -> dict[str, int]:
        """Datagram counts since the start: received, sent, lost, duplicated, reordered, corrupted."""
        return self._order({})

    def _order(self, order: dict[str, Any]) -> dict[str, int]:
        pipe: IO[bytes] | None = self.process.popen.stdin
        assert pipe is not None
        pipe.write(json.dumps(order).encode() + b"\n")
        pipe.flush()
        self._answers += 1
        self.process.wait_for_output('{"received"', 5, occurrences=self._answers)
        answer: dict[str, int] = json.loads(self.process.output().splitlines()[-1])
        return answer


def _address(text: str) -> Address:
    host, _, port = text.rpartition("#")
    return host, int(port)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--listen", type=_address, required=True, help="ADDRESS#PORT")
    parser.add_argument("--target", type=_address, required=True, help="ADDRESS#PORT")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=("", "data", "control"), default="")
    names = [item.name for item in fields(Impairment) if item.name not in ("blackhole", "only", "reflect")]
    for name in names:
        parser.add_argument(f"--{name}", type=float, default=0.0)
    chosen = parser.parse_args()
    impairment = Impairment(only=chosen.only, **{name: getattr(chosen, name) for name in names})
    try:
        _Relay(chosen.listen, chosen.target, impairment, chosen.seed).run()
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
