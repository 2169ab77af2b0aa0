"""A virtual machine, and commands in it over a serial port."""

from __future__ import annotations

import json
import os
import queue
import shutil
import socket
import subprocess
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.appliance.host import COMMAND_SECONDS, Host, HostError
from tests.appliance.image import Image, ImageError

EMULATOR = "qemu-system-x86_64"
MEMORY_MEGABYTES = 1024
BOOT_SECONDS = 900.0
_APT = "DEBIAN_FRONTEND=noninteractive apt-get -q -y -o Dpkg::Use-Pty=0"


class Machine(Host):
    """`files` are in /run/lab of the machine, under their names. It starts at once; use it in `with`."""

    install = f"{_APT} install --reinstall"
    remove = f"{_APT} remove"
    purge = f"{_APT} purge"
    unit_settings = "TimeoutStartSec=600\nTimeoutStopSec=300\nWatchdogSec=300\n"

    def __init__(self, image: Image, files: Iterable[Path], log: Path) -> None:
        self._log = log
        self._folder = tempfile.TemporaryDirectory(prefix="appliance-")
        folder = Path(self._folder.name)
        with tarfile.open(folder / "files.tar", "w") as archive:
            for path in (Path(__file__).with_name("agent.py"), *files):
                archive.add(path, path.name)
        self._answers: dict[int, queue.SimpleQueue[tuple[int, str]]] = {}
        self._boots: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._asked = 0
        self._process = self._emulate(image, folder)
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self._connect(folder / "lab")
            self._await_boot()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Switch it off at once; what it wrote is gone."""
        self._process.kill()
        self._process.wait()
        self._socket.close()
        self._folder.cleanup()

    def call(self, script: str, *, seconds: float = COMMAND_SECONDS) -> tuple[int, str]:
        answer: queue.SimpleQueue[tuple[int, str]] = queue.SimpleQueue()
        with self._lock:
            self._asked += 1
            number = self._asked
            self._answers[number] = answer
            document = {"id": number, "script": script, "seconds": seconds}
            self._socket.sendall(json.dumps(document).encode() + b"\n")
        try:
            return answer.get(timeout=seconds + 60)
        except queue.Empty:
            raise HostError(f"{script}\nno answer within {seconds + 60:.0f} s; {self._console()}") from None
        finally:
            del self._answers[number]

    def reboot(self) -> None:
        self.call("systemctl --no-block reboot")
        self._await_boot()

    def processor_seconds(self) -> float:
        """Of this machine's processors, since the emulator's start."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _emulate(self, image: Image, folder: Path) -> subprocess.Popen[bytes]:
        emulator = shutil.which(EMULATOR)
        if emulator is None:
            raise ImageError(f"{EMULATOR} is not installed; `make test-appliance` installs it")
        # Debian's units have 90 s to start, 3 minutes to feed a watchdog: too short for this processor.
        slow = "systemd.default_timeout_start_sec=900 systemd.service_watchdogs=no"
        words = f"console=ttyS0 quiet panic=-1 systemd.show_status=error {slow}"
        return subprocess.Popen(
            (
                # One processor: an emulator with two can fault where the kernel patches its own code.
                *(emulator, "-accel", "tcg", "-cpu", "max", "-smp", "1"),
                *("-m", str(MEMORY_MEGABYTES), "-nodefaults", "-no-user-config", "-display", "none"),
                *("-kernel", str(image.kernel), "-initrd", str(image.initramfs), "-append", words),
                *("-drive", f"file={image.disk},format=raw,if=virtio,snapshot=on"),
                *("-drive", f"file={folder / 'files.tar'},format=raw,if=virtio,read-only=on"),
                *("-chardev", f"socket,id=lab,path={folder / 'lab'},server=on,wait=off"),
                *("-device", "virtio-serial-pci", "-device", "virtserialport,chardev=lab,name=lab"),
                *("-device", "virtio-rng-pci", "-serial", f"file:{self._log}", "-nic", "none"),
            ),
            stdin=subprocess.DEVNULL,
            env=os.environ | {"TMPDIR": str(folder)},
        )

    def _connect(self, path: Path) -> None:
        deadline = time.monotonic() + BOOT_SECONDS
        while True:
            try:
                self._socket.connect(str(path))
                break
            except OSError as error:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise HostError(f"{EMULATOR} does not run: {error}") from error
                time.sleep(0.05)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        try:
            with self._socket.makefile("rb") as lines:
                for line in lines:
                    # A reboot may cut a line.
                    document = json.loads(line) if line.startswith(b"{") and line.endswith(b"}\n") else {}
                    if "boot" in document:
                        self._boots.put(document["boot"])
                    elif (answer := self._answers.get(document.get("id", 0))) is not None:
                        answer.put((document["status"], document["output"]))
        except OSError:
            pass

    def _await_boot(self) -> None:
        try:
            self._boots.get(timeout=BOOT_SECONDS)
        except queue.Empty:
            raise HostError(f"did not boot within {BOOT_SECONDS:.0f} s; {self._console()}") from None

    def _console(self) -> str:
        return f"its console ends:\n{self._log.read_text(errors='replace')[-3000:]}"
