"""Runs in the virtual machine, as root: does what the test asks over the serial port `lab`.

One line of JSON asks, one answers: {"id", "script", "seconds"} and {"id", "status", "output"}. Each command
has a thread of its own, so a long one does not hold up others. The first line after a start is the boot's id.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

PORT = Path("/dev/virtio-ports/lab")
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def main() -> int:
    while not PORT.exists():
        time.sleep(0.1)
    lock = threading.Lock()
    with PORT.open("r+b", buffering=0) as port:

        def answer(line: bytes) -> None:
            tell(_do(json.loads(line)))

        def tell(document: dict[str, object]) -> None:
            with lock:
                line = json.dumps(document).encode() + b"\n"
                while line:
                    line = line[port.write(line) or 0 :]

        tell({"boot": BOOT_ID.read_text().strip()})
        rest = b""
        while True:
            octets = port.read(65536)
            if not octets:
                # Nobody has the other end open.
                time.sleep(0.1)
                continue
            *lines, rest = (rest + octets).split(b"\n")
            for line in lines:
                threading.Thread(target=answer, args=(line,), daemon=True).start()


def _do(asked: dict[str, object]) -> dict[str, object]:
    try:
        done = subprocess.run(
            ["/bin/sh", "-c", str(asked["script"])],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=float(str(asked["seconds"])),
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        text = (error.stdout or b"").decode(errors="replace")
        return {"id": asked["id"], "status": -1, "output": f"{text}\nnot within {asked['seconds']} s"}
    return {"id": asked["id"], "status": done.returncode, "output": done.stdout.decode(errors="replace")}


if __name__ == "__main__":
    sys.exit(main())
